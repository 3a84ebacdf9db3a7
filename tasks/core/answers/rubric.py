"""The criteria of a rubric, and the scores of an answer that is no JSON: lines, headings, tables.

What an answer must hold does not depend on this: it serves to ask for scores more precisely.

Only a line that is a score and says of what is read: a number in a sentence is never one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


SCORE_WORDS: Final = ("score", "rating", "value", "points", "grade", "mark")
"""Names of a field that holds a score, in the order in which they are looked for."""

REASON_WORDS: Final = ("reasoning", "explanation", "justification", "rationale", "reason")
"""Names of a field that says why."""

AGGREGATES: Final = frozenset({"total", "overall", "average", "mean"})
"""Names of what is made of the other scores."""

_NUMBER: Final = (
    r"-?[0-9]{1,4}(?>(?:\.[0-9]{1,4})?)(?>(?:[ ]{0,3}(?:/|out[ ]of)[ ]{0,3}[0-9]{1,4}(?>(?:\.0+)?))?)"
)
# A heading or list mark, a number of the line, a quotation mark of mail.
_LEAD: Final = re.compile(
    r"(?>(?:[ \t]{0,8}(?:[>#]{1,6}|[-*•+](?=[ \t])|[0-9]{1,3}[.)](?=[ \t*_])))*)[ \t]{0,8}"
)
# Emphasis and code, but not the underscores inside of a name.
_MARKS: Final = re.compile(r"\*{1,3}|`{1,3}|(?<![^\W_])_{1,3}|_{1,3}(?![^\W_])")
_NAMED: Final = re.compile(
    rf"""
    (?P<name> [^:=|{{}}\[\]\n]{{1,80}}? )
    (?: [ ]{{0,3}}(?:[:=](?![0-9])|(?<![0-9])[:=])[ ]{{0,3}}
      | [ ]{{1,3}}[-\u2013\u2014][ ]{{1,3}} | [ ]{{0,3}}(?=\() )
    (?P<bracket> \(? ) (?P<score> {_NUMBER} ) (?> (?:[ ](?:stars|points)\b)? ) \)?
    (?P<rest> (?![\w%/'\u2019]|[.,:-][ ]?[0-9]) .* )
    """,
    re.VERBOSE,
)
_REASON: Final = re.compile(rf"(?:{'|'.join(REASON_WORDS)})[ ]{{0,3}}:[ ]{{0,3}}(.*)", re.IGNORECASE)
_SEPARATOR: Final = re.compile(r"[ \t.,;:|()\u2013\u2014-]*+")
_SCALE: Final = re.compile(r"[ ]{0,3}\([^()]{0,30}\)$")
_CELL: Final = re.compile(rf"[ ]{{0,3}}({_NUMBER})[ ]{{0,3}}")
_RULE: Final = re.compile(r"[ \t:|-]+")
# Score: [[4]], Score: [4], and [RESULT] 4 behind the feedback.
_BRACKETED: Final = re.compile(rf"\[\[({_NUMBER})\]\]|(?<=[:=] )\[({_NUMBER})\]|\[(?i:result)\][: ]{{0,3}}")
_SUFFIX: Final = re.compile(r"_(?:score|rating|grade|mark)$")
_ALSO_CALLED: Final = {"final": "overall"}
_SCORE_HEADING: Final = re.compile(r"[^\W\d_][^:=|{}\[\].!?\n]{0,79}")

_DIVIDERS: Final = "-\N{EN DASH}\N{EM DASH}|("

_MOST_WORDS: Final = 6
_MOST_CELLS: Final = 12


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A score as the text has it, unchecked: `4`, `4.5/5`, `7 / 10`; and why, "" when it does not say."""

    score: str
    reasoning: str = ""


def normalized(name: str) -> str:
    """A criterion's name as names are compared: in lower case, with underscores."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def without_brackets(text: str) -> str:
    """The text with the brackets taken away in which some judges put a score, as they look like JSON."""
    return _BRACKETED.sub(lambda found: found[1] or found[2] or "\nScore: ", text)


def score_lines(text: str) -> dict[str, ScoreLine]:
    """The scores in the lines and tables of a text, by normalized name; one without a name is `score`.

    Time is linear in the text's length.
    """
    reader = _Reader()
    for line in text.splitlines():
        reader.read(line.strip())
    return reader.found


@dataclass(slots=True)
class _Reader:
    """Reads line by line.

    Attributes:
        found: The scores so far.
        heading: The name that the lines below speak of, "" when there is none.
        last: The name whose score came last, and may be explained on the next line.
        reason: What was said below the heading before its score.
        head: The cells of a table's first row; empty outside of tables.
    """

    found: dict[str, ScoreLine] = field(default_factory=dict)
    heading: str = ""
    last: str = ""
    reason: str = ""
    head: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        if not line:
            self.head = []
        elif line.startswith("|") or (not self._line(line) and "|" in line):
            self._row(line)

    def _line(self, line: str) -> bool:
        """Read a line outside of tables; whether there was anything in it."""
        lead = _LEAD.match(line)
        bare = line[lead.end() if lead else 0 :]
        plain = _MARKS.sub("", bare)
        if reason := _REASON.match(plain):
            self._explain(reason[1].strip())
        elif (found := _NAMED.match(plain)) and _ends_there(found):
            self._put(found["name"], found["score"], _reasoning(found["rest"]))
        elif self.heading and (alone := _CELL.fullmatch(plain)):
            self._put(self.heading, alone[1], "")
        else:
            return self._head(line, bare, plain)
        return True

    def _head(self, line: str, bare: str, plain: str) -> bool:
        """Take a line that is only a name, and marked as a heading, as what the next lines are about."""
        name = _SCALE.sub("", plain.strip().removesuffix(":").strip())
        line_says = line[0].isdigit() or line[0] == "#" or bare[:1] in {"*", "_"}
        marked = line_says or plain.rstrip().endswith(":")
        if not marked or not _SCORE_HEADING.fullmatch(name) or len(name.split()) > _MOST_WORDS:
            return False
        self.heading, self.last, self.reason = normalized(name), "", ""
        return True

    def _put(self, name: str, score: str, reasoning: str) -> None:
        name = _SCALE.sub("", name.strip().strip("\"'“”").strip())
        if len(name.split()) > _MOST_WORDS or not _has_letter(name):
            return
        key = normalized(name)
        key = (self.heading or SCORE_WORDS[0]) if key in SCORE_WORDS else _SUFFIX.sub("", key)
        key = _ALSO_CALLED.get(key, key)
        known = self.found.get(key)
        if known is None or known.score != score or not known.reasoning:
            # Two scores that name nothing: nobody knows which one is meant.
            unclear = key == SCORE_WORDS[0] and known is not None and known.score != score
            self.found[key] = ScoreLine("" if unclear else score, reasoning.strip() or self.reason)
        self.last, self.reason = key, ""

    def _explain(self, reasoning: str) -> None:
        """Put the reasoning with the score that it follows, or keep it for the one that it precedes."""
        known = self.found.get(self.last)
        if known is None:
            self.reason = reasoning
        elif not known.reasoning:
            self.found[self.last] = ScoreLine(known.score, reasoning)

    def _row(self, line: str) -> None:
        if _RULE.fullmatch(line):
            return
        cells = [_MARKS.sub("", cell).strip() for cell in line.strip("|").split("|", _MOST_CELLS)]
        if len(cells) > _MOST_CELLS:
            return
        scores = [place for place, cell in enumerate(cells) if _CELL.fullmatch(cell)]
        if len(scores) == len(cells) == len(self.head):
            for name, cell in zip(self.head, cells, strict=True):
                self._put(name, cell, "")
            return
        if not scores:
            self.head = self.head or cells
            return
        names = [place for place in range(len(cells)) if place not in scores and _has_letter(cells[place])]
        after = [place for place in scores if names and place > names[0]]
        titled = [place for place in after if self._titles_scores(place)]
        if len(after) == 1 or len(titled) == 1:
            place = titled[0] if len(titled) == 1 else after[0]
            reasoning = " ".join(cells[other] for other in names[1:])
            self._put(cells[names[0]], cells[place], reasoning)
        self.head = self.head or [""]

    def _titles_scores(self, place: int) -> bool:
        title = normalized(self.head[place]) if place < len(self.head) else ""
        return title.startswith(SCORE_WORDS)


def _ends_there(found: re.Match[str]) -> bool:
    """Whether a number is the score, and not the beginning of a sentence that counts something."""
    scaled = any(sign in found["score"] for sign in "/f")
    if found["bracket"] and not scaled:
        return False
    rest = found["rest"]
    return scaled or not rest[:1].isspace() or rest.lstrip()[:1] in set(_DIVIDERS)


def _reasoning(rest: str) -> str:
    """What a line says after its score, without what divides the two."""
    said = rest.strip()
    if said.startswith("(") and said.endswith(")"):
        said = said[1:-1]
    return _SEPARATOR.sub("", said, count=1)


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))


MOST_CRITERIA: Final = 32
"""More names than this are taken to be something else."""

_DEEPEST: Final = 8
_CLOSERS: Final = {"{": "}", "[": "]"}
_NAMELESS: Final = frozenset((*SCORE_WORDS, *REASON_WORDS))

_CONTROL: Final = re.compile(r"\{\{-?\s*+(?:if|else|end|range|with|block|define|template)\b")
_ACTION: Final = re.compile(r"\{\{[^{}]*+\}\}")
# In place of a template's variable: no name may hold one.
_HOLE: Final = "\N{OBJECT REPLACEMENT CHARACTER}"
_TOKEN: Final = re.compile(
    r""" "(?P<string>(?>(?:[^"\\\n]|\\.)*))" | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<colon>:)
    | (?P<comma>,) | (?P<dots>\.\.\.|…) | (?P<bare>[^\s"\[\]{}:,…]++)""",
    re.VERBOSE,
)
_SCORE: Final = re.compile(
    r"""<? (?: [0-9](?:\.[0-9])? | [0-9][ ]?(?:-|to|\u2013)[ ]?[0-9]
    | n | x | int | integer | number | score ) >?""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME: Final = re.compile(r"[^\W\d_][\w -]{0,63}")
_STAND_IN: Final = re.compile(
    r"(?:the_)?(?:criteri(?:on|a)|aspect|dimension|name|metric)(?:_?(?:name|[0-9a-z]))?"
)
_HEADING: Final = re.compile(
    r"[ \t#*_]{0,12}(?:[\w'-]{1,20}[ \t]{1,3}){0,8}criteria[ \t]{0,3}"
    r"(?:\([^()\n]{0,40}\)[ \t]{0,3})?[*_]{0,3}:[*_]{0,3}",
    re.IGNORECASE,
)
_BULLET: Final = re.compile(r"[ \t]*+(?:[-*•+]|[0-9]{1,2}[.)])[ \t]++(?P<item>.*)")
_ITEM: Final = re.compile(
    r"""[*_`"']{0,3}(?P<name>[^\W\d_](?:[\w-]{0,63}\w)?)[*_`"']{0,3}[ \t]*+(?:[:(\u2013\u2014].*|-[ \t].*)?"""
)


@dataclass(slots=True)
class _ExampleFrame:
    """An open bracket of an example.

    Attributes:
        opener: The bracket.
        fields: The names and values of an object so far; a value is a text, or the frame of another bracket.
        name: The name whose value comes next.
        text: The words since the last comma.
        inner: The brackets since the last comma.
        is_open: Whether an ellipsis says that there is more.
    """

    opener: str
    fields: list[tuple[str, str | _ExampleFrame]] = field(default_factory=list)
    name: str | None = None
    text: list[str] = field(default_factory=list)
    inner: list[_ExampleFrame] = field(default_factory=list)
    is_open: bool = False

    def take(self, token: re.Match[str]) -> None:
        """Take what stands in the brackets themselves."""
        match token.lastgroup:
            case "comma":
                self.end_field()
            case "dots":
                self.is_open = True
            case "colon" if self.opener == "{" and self.name is None and len(self.text) == 1:
                self.name, self.text = self.text[0], []
            case "string" | "bare" as kind:
                self.text.append(token[kind])

    def end_field(self) -> None:
        """Put what came since the last comma with the fields."""
        if self.name is not None:
            self.fields.append((self.name, self.inner[0] if self.inner else " ".join(self.text)))
        elif self.opener == "[":
            self.fields += [("", value) for value in self.inner] or [("", " ".join(self.text))]
        self.name, self.text, self.inner = None, [], []


class _DoubtError(Exception):
    """The rubric has an example that does not say what its criteria are called."""


def criteria_in(rubric: str) -> tuple[str, ...] | None:
    """The names of a rubric's criteria, in its order and spelling; None where there is any doubt about them.

    They are the names in its JSON example that have a score each (`"plot": {"score": 3, …}` or `"plot": 3`).
    Where there is no example, or one that ends in an ellipsis, they are the items below a line "Criteria:",
    each a single word, with a description or without. Where there are both, they must be the same. A rubric
    with conditions in it may ask for other criteria each time.

    Args:
        rubric: The template, as it is configured.
    """
    if _CONTROL.search(rubric):
        return None
    text = _ACTION.sub(_HOLE, rubric)
    try:
        examples = list(_examples(text))
        lists = list(_lists(text))
    except _DoubtError:
        return None
    whole = [names for names, is_open in examples if not is_open] + lists
    if not whole:
        return None
    first = frozenset(map(normalized, whole[0]))
    same = all(frozenset(map(normalized, names)) == first for names in whole)
    within = all(first.issuperset(map(normalized, names)) for names, _ in examples)
    usable = len(first) == len(whole[0]) <= MOST_CRITERIA and not any(map(_STAND_IN.fullmatch, first))
    return whole[0] if same and within and usable else None


def _examples(text: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The names that each JSON example scores, and whether an ellipsis says that there are more.

    Raises:
        _DoubtError: An example has scores without names, or brackets do not match.
    """
    for frame in _brackets(text):
        example = frame
        while example.opener == "{" and not _scored(example):
            inner = [value for _, value in example.fields if isinstance(value, _ExampleFrame)]
            if len(inner) != 1:
                break
            example = inner[0]
        names = _scored(example)
        if example.opener == "[":
            # A list of objects that name their criteria is another form than an object by name.
            if any(isinstance(value, _ExampleFrame) and _scored(value) for _, value in example.fields):
                raise _DoubtError
        elif names:
            kept = tuple(name for name in names if normalized(name) not in AGGREGATES)
            if not kept or not all(map(_NAME.fullmatch, kept)) or _NAMELESS & set(map(normalized, kept)):
                raise _DoubtError
            yield kept, example.is_open


def _brackets(text: str) -> Iterator[_ExampleFrame]:
    """The outermost brackets of a text, read as far as their form says what they are.

    Raises:
        _DoubtError: They do not match, or are nested too deep.
    """
    frames: list[_ExampleFrame] = []
    for token in _TOKEN.finditer(text):
        if token["open"]:
            frames.append(_ExampleFrame(token[0]))
            if len(frames) > _DEEPEST:
                raise _DoubtError
        elif frames and token["close"]:
            frame = frames.pop()
            frame.end_field()
            if _CLOSERS[frame.opener] != token[0]:
                raise _DoubtError
            if frames:
                frames[-1].inner.append(frame)
            else:
                yield frame
        elif frames:
            frames[-1].take(token)
    if frames:
        raise _DoubtError


def _scored(frame: _ExampleFrame) -> list[str]:
    """The names of an object's fields that hold a score."""
    return [name for name, value in frame.fields if _is_score(value)] if frame.opener == "{" else []


def _is_score(value: str | _ExampleFrame) -> bool:
    if isinstance(value, str):
        return _SCORE.fullmatch(value) is not None
    if value.opener == "[":
        return (
            len(value.fields) == 1 and isinstance(value.fields[0][1], str) and _is_score(value.fields[0][1])
        )
    return any(normalized(name) in SCORE_WORDS for name, _ in value.fields)


def _lists(text: str) -> Iterator[tuple[str, ...]]:
    """The items of each list below a line that announces criteria.

    Raises:
        _DoubtError: An item is no single word.
    """
    lines = iter(text.splitlines())
    for line in lines:
        if not _HEADING.fullmatch(line.rstrip()):
            continue
        names: list[str] = []
        for below in lines:
            if bullet := _BULLET.fullmatch(below):
                if not (item := _ITEM.fullmatch(bullet["item"].rstrip())):
                    raise _DoubtError
                names.append(item["name"])
            elif names and not (below.strip() and below[0].isspace()):
                break  # What is indented belongs to the item above.
            elif not names and below.strip():
                break
        if names:
            yield tuple(names)

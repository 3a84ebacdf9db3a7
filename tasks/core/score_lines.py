"""Scores in an answer that is no JSON: lines such as `**Plot**: 4/5`, headings with a score below, tables.

Only a line that is a score and says of what is read: a number in a sentence is never one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

SCORE_WORDS: Final = ("score", "rating", "value", "points", "grade", "mark")
"""Names of a field that holds a score, in the order in which they are looked for."""

REASON_WORDS: Final = ("reasoning", "explanation", "justification", "rationale", "reason")
"""Names of a field that says why."""

AGGREGATES: Final = frozenset({"total", "overall", "average", "mean"})
"""Names of what is made of the other scores."""

_NUMBER: Final = r"-?[0-9]{1,4}(?:\.[0-9]{1,4})?+(?:[ ]{0,3}(?:/|out[ ]of)[ ]{0,3}[0-9]{1,4}(?:\.0+)?+)?+"
# A heading or list mark, a number of the line, a quotation mark of mail.
_LEAD: Final = re.compile(
    r"(?:[ \t]{0,8}(?:[>#]{1,6}|[-*•+](?=[ \t])|[0-9]{1,3}[.)](?=[ \t*_])))*+[ \t]{0,8}"
)
# Emphasis and code, but not the underscores inside of a name.
_MARKS: Final = re.compile(r"\*{1,3}|`{1,3}|(?<![^\W_])_{1,3}|_{1,3}(?![^\W_])")
_NAMED: Final = re.compile(
    rf"""
    (?P<name> [^:=|{{}}\[\]\n]{{1,80}}? )
    (?: [ ]{{0,3}}(?:[:=](?![0-9])|(?<![0-9])[:=])[ ]{{0,3}}
      | [ ]{{1,3}}[-\u2013\u2014][ ]{{1,3}} | [ ]{{0,3}}(?=\() )
    (?P<bracket> \(? ) (?P<score> {_NUMBER} ) (?:[ ](?:stars|points)\b)?+ \)?
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
_HEADING: Final = re.compile(r"[^\W\d_][^:=|{}\[\].!?\n]{0,79}")

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
        if not marked or not _HEADING.fullmatch(name) or len(name.split()) > _MOST_WORDS:
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

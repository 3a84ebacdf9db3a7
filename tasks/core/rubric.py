"""The criteria that a rubric asks for by name, where it leaves no doubt about them.

What an answer must hold does not depend on this: it serves to ask for scores more precisely.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tasks.core.score_lines import AGGREGATES, REASON_WORDS, SCORE_WORDS, normalized

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    r""" "(?P<string>(?:[^"\\\n]|\\.)*+)" | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<colon>:) | (?P<comma>,)
    | (?P<dots>\.\.\.|…) | (?P<bare>[^\s"\[\]{}:,…]++)""",
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
class _Frame:
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
    fields: list[tuple[str, str | _Frame]] = field(default_factory=list)
    name: str | None = None
    text: list[str] = field(default_factory=list)
    inner: list[_Frame] = field(default_factory=list)
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
            inner = [value for _, value in example.fields if isinstance(value, _Frame)]
            if len(inner) != 1:
                break
            example = inner[0]
        names = _scored(example)
        if example.opener == "[":
            # A list of objects that name their criteria is another form than an object by name.
            if any(isinstance(value, _Frame) and _scored(value) for _, value in example.fields):
                raise _DoubtError
        elif names:
            kept = tuple(name for name in names if normalized(name) not in AGGREGATES)
            if not kept or not all(map(_NAME.fullmatch, kept)) or _NAMELESS & set(map(normalized, kept)):
                raise _DoubtError
            yield kept, example.is_open


def _brackets(text: str) -> Iterator[_Frame]:
    """The outermost brackets of a text, read as far as their form says what they are.

    Raises:
        _DoubtError: They do not match, or are nested too deep.
    """
    frames: list[_Frame] = []
    for token in _TOKEN.finditer(text):
        if token["open"]:
            frames.append(_Frame(token[0]))
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


def _scored(frame: _Frame) -> list[str]:
    """The names of an object's fields that hold a score."""
    return [name for name, value in frame.fields if _is_score(value)] if frame.opener == "{" else []


def _is_score(value: str | _Frame) -> bool:
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

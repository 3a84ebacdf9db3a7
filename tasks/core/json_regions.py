"""JSON amid prose: found, mended and read.

A text is searched for regions in one pass: a region runs from a bracket that looks like JSON to the one
that closes it, or to the end of the text when that was cut off. Stray quotes, lone backslashes and dangling
commas are mended on the way; what is still not JSON goes to json-repair.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import json_repair

if TYPE_CHECKING:
    from collections.abc import Iterator

# Deeper JSON is no answer to anything we ask, and would exhaust the stack of what walks it.
_MAX_DEPTH: Final = 64
# json-repair can take quadratic time (seconds at this length), so an answer has only so much of it.
_REPAIR_BUDGET: Final = 10_000

# A bracket that prose would not write: the first thing in it is JSON. Links and notes in brackets are not.
_START: Final = re.compile(r"""\[\s*+(?:["'“\[{\]]|null\b|true\b|false\b)|\{\s*+["'“}]""")
# A quote ends a string only where JSON can go on after it, or a line in which a comma was forgotten;
# any other quote belongs to the text.
_TOKEN: Final = re.compile(
    r"""
    (?P<string> " (?: [^"\\]++ | \\. | "(?! \s*+ (?: [\]}] | \Z )
        | \s*+ [:,] \s*+ (?: ["'“\[{\]}\d-] | (?i:null|true|false|none|nan|infinity)\b | \.\.\. | \Z )
        | [ \t\r]*+ \n \s*+ ["\[{] ) )*+ "?)
    | (?P<open> [\[{]) | (?P<close> [\]}]) | (?P<dangling> ,\s*+(?=[\]}])) | (?P<comma> ,)
    """,
    re.DOTALL | re.VERBOSE,
)
# What may stand between JSON and the end of a text, or more JSON.
_GAP: Final = re.compile(r"(?:\s|[,;]|```(?:json\b)?)*+", re.IGNORECASE)
_ESCAPE: Final = re.compile(r"""\\(?:["\\/bfnrt']|u[0-9a-fA-F]{4})|[\\"]""")


@dataclass(slots=True)
class _Frame:
    """An open bracket: what closes it, and how many pieces make up what is complete in it."""

    closer: str
    complete: int


@dataclass(frozen=True, slots=True)
class _Region:
    """A stretch of JSON: its mended text, where it stands in the answer, whether the answer ended first."""

    text: str
    start: int
    end: int
    cut: bool


def json_values(answer: str) -> Iterator[tuple[object, bool]]:
    """Every JSON value in the answer, and whether it was cut off (then it holds what was complete)."""
    budget = _REPAIR_BUDGET
    for region in _regions(answer):
        try:
            yield json.loads(region.text, strict=False), region.cut
        except ValueError:
            if len(region.text) <= budget:
                budget -= len(region.text)
                yield _repaired(region.text), region.cut


def without_json(answer: str) -> str:
    """The answer with a space in place of each stretch of JSON, whole or not; as it is when it has none."""
    pieces: list[str] = []
    position = 0
    for region in _regions(answer):
        pieces.append(answer[position : region.start])
        position = region.end
    start = _START.search(answer, position)  # Where it is nested too deep to be read.
    return " ".join([*pieces, answer[position : start.start() if start else None]])


def outer_json(text: str, *, ended: bool) -> str:
    """The JSON that a text ends with, else the JSON that it begins with; "" when it does neither.

    Args:
        text: The text; a fence around the JSON is no part of it.
        ended: Whether the text was finished. One that was not ends nowhere, and only its beginning counts.
    """
    runs: list[tuple[int, int, bool]] = []  # Where JSON begins and ends, and whether it was cut.
    for region in _regions(text):
        if runs and _GAP.fullmatch(text, runs[-1][1], region.start):
            runs[-1] = (runs[-1][0], region.end, region.cut)
        else:
            runs.append((region.start, region.end, region.cut))
    if not runs:
        return ""
    start, end, cut = runs[-1]
    if ended and not cut and _GAP.fullmatch(text, end):
        return text[start:end]
    start, end, _ = runs[0]
    return text[start:end] if _GAP.fullmatch(text, 0, start) else ""


def _regions(answer: str) -> Iterator[_Region]:
    """The stretches of JSON in an answer, up to one that is nested too deep."""
    position = 0
    while (start := _START.search(answer, position)) and (region := _region(answer, start.start())):
        position = region.end
        yield region


def _repaired(text: str) -> object:
    try:
        return json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None


def _region(answer: str, start: int) -> _Region | None:
    """The region that starts at a bracket, or None when it is nested too deep."""
    pieces: list[str] = []
    frames: list[_Frame] = []
    position = start
    for token in _TOKEN.finditer(answer, start):
        pieces.append(answer[position : token.start()])
        position = token.end()
        match token.lastgroup:
            case "string":
                pieces.append(f'"{_ESCAPE.sub(_mended, token[0][1:-1])}"')
            case "open":
                if len(frames) == _MAX_DEPTH:
                    return None
                pieces.append(token[0])
                frames.append(_Frame("]" if token[0] == "[" else "}", len(pieces)))
            case "comma":
                frames[-1].complete = len(pieces)
                pieces.append(token[0])
            case "close":
                pieces.append(token[0])
                frames.pop()
                if not frames:
                    return _Region("".join(pieces), start, position, cut=False)
                frames[-1].complete = len(pieces)
    return _Region(_closed(pieces, frames), start, len(answer), cut=True)


def _closed(pieces: list[str], frames: list[_Frame]) -> str:
    """A cut region, ended after the last complete element of its outermost open array (or object)."""
    depth = next((depth for depth, frame in enumerate(frames) if frame.closer == "]"), 0)
    closers = "".join(frame.closer for frame in reversed(frames[: depth + 1]))
    return "".join(pieces[: frames[depth].complete]) + closers


def _mended(found: re.Match[str]) -> str:
    if found[0] == r"\'":
        return "'"
    return found[0] if len(found[0]) > 1 else f"\\{found[0]}"

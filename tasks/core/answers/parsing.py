"""Lists and scores in an answer: JSON amid prose found, mended and read.

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
import orjson

from tasks.core.answers.items import texts_in
from tasks.core.answers.rubric import (
    AGGREGATES,
    REASON_WORDS,
    SCORE_WORDS,
    normalized,
    score_lines,
    without_brackets,
)
from tasks.core.answers.thinking import split_thinking
from tasks.core.models import Score, Scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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
    (?P<string> " (?> (?: [^"\\]++ | \\. | "(?! \s*+ (?: [\]}] | \Z )
        | \s*+ [:,] \s*+ (?: ["'“\[{\]}\d-] | (?i:null|true|false|none|nan|infinity)\b | \.\.\. | \Z )
        | [ \t\r]*+ \n \s*+ ["\[{] ) )* ) "?)
    | (?P<open> [\[{]) | (?P<close> [\]}]) | (?P<dangling> ,\s*+(?=[\]}])) | (?P<comma> ,)
    """,
    re.DOTALL | re.VERBOSE,
)
# What may stand between JSON and the end of a text, or more JSON.
_GAP: Final = re.compile(r"(?>(?:\s|[,;]|```(?:json\b)?)*)", re.IGNORECASE)
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


# Longer answers are read up to here, as if they had been cut off.
_MAX_CHARACTERS: Final = 1_000_000

_NUMBERED: Final = re.compile(r"^[ \t]*(?:\*\*)?[0-9]{1,5}[.)](?:\*\*)?[ \t]+(.+)$", re.MULTILINE)
# "Prompt 1: …", and "1: …".
_LABELLED: Final = re.compile(
    r"^[ \t]*(?:\*\*)?(?:(?:prompt|task|question|sub-?topic|topic|item|idea)[ \t]?#?)?"
    r"[0-9]{1,5}:(?:\*\*)?[ \t]+(.+)$",
    re.MULTILINE | re.IGNORECASE,
)
# A title in bold on a line of its own, with the text below it.
_TITLED: Final = re.compile(
    r"^[ \t]*\*\*[0-9]{1,5}[.):][^\n*]{1,200}\*\*:?[ \t]*\n\s*(?![ \t]*\*\*[0-9])([^\n]+)$", re.MULTILINE
)
_BULLETED: Final = re.compile(r"^[ \t]*[-*•+][ \t]+(.+)$", re.MULTILINE)
# The look-behind lets a long run of spaces be tried once, not from each of its places.
_LINE_BREAK: Final = re.compile(r"(?<! ) *+[\r\n\t][\r\n\t ]*+")

_WRAPPER_KEYS: Final = ("scores", "evaluation", "ratings", "criteria")
_CRITERION_KEYS: Final = ("criterion", "criteria", "name", "aspect", "dimension", "metric", "category")
_SCORE: Final = re.compile(r"\s*+(-?[0-9]+(?:\.[0-9]+)?)\s*+(?:(?:/|out of)\s*+([0-9]+)\s*+)?")
# A score in a string, with the reason behind it: "5/5 - fine".
_REASONED: Final = re.compile(
    r"\s*+([0-9](?:\.[0-9]+)?)\s*+(?:/|out of)\s*+5\s*+[-\u2013\u2014:;,.(]\s*+(\S[^\0]*)"
)
_STRICT: Final = SCORE_WORDS[:1]
# Names of a score that name no criterion.
_UNNAMED: Final = (*SCORE_WORDS, "overall", "total")
_NAMELESS: Final = AGGREGATES.union(SCORE_WORDS)
_LOWEST: Final = 1
_HIGHEST: Final = 5


class ParseError(ValueError):
    """An answer that does not hold what was asked for; `str()` is a short reason."""


def parse_items(text: str) -> tuple[str, ...]:
    """The list of strings in an answer, in its order; () when there is none.

    Reads JSON arrays of strings or of objects with a text, bare or wrapped in an object, amid prose or
    fenced, several in a row; without any, numbered or else bulleted lines. An item that the answer's end has
    cut is left out. Items are one line each, stripped, never empty.

    Never raises, and takes time in proportion to the text, of which it reads the first million characters.
    """
    answer = _answer(text)
    items = _cleaned(_plain_list(answer))
    if not items:
        items = _cleaned(item for value, _ in json_values(answer) for item in texts_in(value))
    if not items:
        items = _cleaned(line.replace("**", "") for line in _lines(answer))
    return items


def _lines(answer: str) -> list[str]:
    """The items of a list that is written line by line."""
    numbered = _NUMBERED.findall(answer)
    if numbered and all(line.endswith("**") for line in numbered):
        titled = _TITLED.findall(answer)
        if len(titled) == len(numbered):
            return titled
    return numbered or _LABELLED.findall(answer) or _BULLETED.findall(answer)


def parse_scores(text: str, criteria: tuple[str, ...] | None, *, ended: bool = True) -> Scores:
    """The scores in a judge's answer, each a number from 1 to 5.

    Reads JSON: `{criterion: {"score", "reasoning"}}`, `{criterion: number}` or a list of objects that name
    their criterion, bare or wrapped; a score may also be called rating, value, points, grade or mark. "4",
    "4/5" and "4 out of 5" are numbers too. Where no JSON holds a score, lines (`**Plot**: 4/5 - why`),
    headings with a score below, and tables are read. Names are compared without regard to case, spaces and
    hyphens.

    Args:
        text: The answer.
        criteria: What must be scored, in the order of the result; anything else is left out. A score that
            names no criterion counts where there is but one. None takes the criteria that the answer has,
            their names in lower case with underscores, without aggregates such as "overall".
        ended: Whether the model finished. Without `criteria`, lines of an answer that it did not finish are
            not read: some may be missing.

    Raises:
        ParseError: When a criterion is missing or its score is not a number from 1 to 5, which one of another
            scale is not; without `criteria`, also when there are none or the answer was cut off.
    """
    answer = _answer(text)
    values = list(json_values(answer))
    # A field called value or points is a score only where none is called so.
    strict = _in_json(values, _STRICT)
    if criteria is not None:
        wanted = [_normalized(name) for name in criteria]
        if not all(name in strict for name in wanted):
            strict = _wanted(wanted, strict, _in_json(values, SCORE_WORDS)) or _wanted(
                wanted, _in_lines(answer)
            )
        return Scores({name: _score(name, strict.get(_normalized(name))) for name in criteria})
    if any(cut for _, cut in values):
        raise ParseError("the answer is cut off")
    entries = strict
    if strict.keys() <= _NAMELESS:
        # What is called a rating may be the score of the field that it stands in.
        loose = _in_json(values, SCORE_WORDS)
        inside = strict.keys().isdisjoint(loose.keys() - AGGREGATES)
        entries = loose if inside and not loose.keys() <= _NAMELESS else strict
    if not entries and ended:
        entries = _in_lines(answer)
    names = [name for name in entries if name not in AGGREGATES] or list(entries)
    if not names:
        raise ParseError("no scores in the answer" if ended else "the answer is cut off")
    return Scores({name: _score(name, entries.get(name)) for name in names})


def _in_json(values: Iterable[tuple[object, bool]], words: tuple[str, ...]) -> dict[str, _Entry]:
    """The scores in the JSON of an answer, under any of these words."""
    found: dict[str, _Entry] = {}
    for value, _ in values:
        found |= _entries(value, words)
    return found


def _in_lines(answer: str) -> dict[str, _Entry]:
    """The scores in what an answer has beside JSON."""
    rows = score_lines(without_json(without_brackets(answer)))
    return {name: _Entry(row.score, row.reasoning) for name, row in rows.items()}


def _wanted(names: list[str], *readings: dict[str, _Entry]) -> dict[str, _Entry]:
    """The entries of these criteria, from the first reading that has them.

    Where there is but one criterion, a score that names none is meant for it.
    """
    found = {name: reading[name] for reading in reversed(readings) for name in names if name in reading}
    if found or len(names) > 1:
        return found
    unnamed = next((readings[-1][word] for word in _UNNAMED if word in readings[-1]), None)
    return {} if unnamed is None else {names[0]: unnamed}


def _plain_list(answer: str) -> list[str]:
    """The items of an answer that is a JSON array of strings and nothing else: most are, and it is quick."""
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return []
    plain = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if plain else []


def _answer(text: str) -> str:
    """The part of a model's text that answers, after any thinking."""
    return split_thinking(text[:_MAX_CHARACTERS]).answer


def _first_text(fields: dict[str, object], keys: Iterable[str]) -> tuple[str, ...]:
    """The first of these fields that is a string, or nothing."""
    return next(((value,) for key in keys if isinstance(value := fields.get(key), str)), ())


def _cleaned(found: Iterable[str]) -> tuple[str, ...]:
    items = (_LINE_BREAK.sub(" ", _storable(item)).strip() for item in found)
    return tuple(item for item in items if item)


def _storable(text: str) -> str:
    """Without what JSON can escape but no file, wire or database takes: NUL and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A criterion's score as the answer has it, unchecked."""

    score: object
    reasoning: str


def _entries(value: object, words: tuple[str, ...]) -> dict[str, _Entry]:
    """The criteria in a JSON value of an answer, by normalized name."""
    entries: dict[str, _Entry] = {}
    if isinstance(value, list):
        for element in value:
            entries |= _named_entry(element, words) or _entries(element, words)
    elif isinstance(value, dict):
        fields = _fields(value)
        wrapped = [fields[key] for key in _WRAPPER_KEYS if _is_wrapper(fields.get(key), _STRICT)]
        if wrapped:
            return _entries(wrapped, words)
        entries = {name: entry for name, field in fields.items() if (entry := _entry(field, words))}
        if entries.keys() <= AGGREGATES:
            entries |= _entries([field for field in fields.values() if _is_wrapper(field, words)], words)
    return entries


def _named_entry(element: object, words: tuple[str, ...]) -> dict[str, _Entry]:
    """The entry of a list's element that names its criterion; empty when it does not."""
    entry = _entry(element, words)
    if entry is None or not isinstance(element, dict):
        return {}
    return {_normalized(name): entry for name in _first_text(_fields(element), _CRITERION_KEYS)}


def _entry(field: object, words: tuple[str, ...]) -> _Entry | None:
    """The score that a field holds; None for what is no score, such as a comment or a wrapper."""
    if isinstance(field, dict):
        fields = _fields(field)
        reasoning = "".join(_first_text(fields, REASON_WORDS))
        word = next((word for word in words if word in fields), None)
        if word is None or (word not in _STRICT and not _is_one_score(fields, word)):
            return None
        return _Entry(fields[word], _storable(reasoning).strip())
    if isinstance(field, str) and (reasoned := _REASONED.fullmatch(field)):
        return _Entry(float(reasoned[1]), _storable(reasoned[2]).strip())
    if isinstance(field, list) or (isinstance(field, str) and not _SCORE.fullmatch(field)):
        return None
    return _Entry(field, "")


def _is_one_score(fields: dict[str, object], word: str) -> bool:
    """Whether a field called so is the only score; several are criteria, and one may well be called value."""
    return not isinstance(fields[word], list | dict) and sum(map(_is_number, fields.values())) <= 1


def _is_number(field: object) -> bool:
    return isinstance(field, int | float) or (isinstance(field, str) and _SCORE.fullmatch(field) is not None)


def _is_wrapper(field: object, words: tuple[str, ...]) -> bool:
    return isinstance(field, list | dict) and _entry(field, words) is None


def _fields(value: dict[object, object]) -> dict[str, object]:
    return {_normalized(str(key)): field for key, field in value.items()}


def _normalized(name: str) -> str:
    return normalized(_storable(name))


def _score(name: str, entry: _Entry | None) -> Score:
    if entry is None:
        raise ParseError(f"no score for {name}")
    score = entry.score
    if isinstance(score, str) and (found := _SCORE.fullmatch(score)) and found[2] in {None, str(_HIGHEST)}:
        score = float(found[1])
    if isinstance(score, bool) or not isinstance(score, int | float) or not _LOWEST <= score <= _HIGHEST:
        raise ParseError(f"the score for {name} is not a number from {_LOWEST} to {_HIGHEST}")
    return Score(float(score), entry.reasoning)

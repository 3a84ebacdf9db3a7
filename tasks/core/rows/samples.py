"""Rows of a dataset file, whatever its mode, as what lint looks at: a prompt with one answer or two.

Files are read line by line, and a line is held only as long as it is looked at. The two rows of a kto pair
are put together, as long as they are not too far apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from tasks.core import files
from tasks.core.errors import UsageError
from tasks.core.rows.formats import HISTORY, asked_text

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

LONGEST_LINE: Final = 64 * 1024 * 1024
"""Bytes; a longer line is no row."""

MOST_WAITING: Final = 10_000
MOST_CHARACTERS: Final = 64 * 1024 * 1024
"""How many kto rows, and of how many characters all together, wait for the other side of their pair."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What stands in one row, or in the two rows of a kto pair.

    Attributes:
        mode: The dataset mode by the form of its row.
        row: The number of its line in the file, from 1; of a kto pair, that of the first.
        rows: How many rows it stands in.
        sub_topic: Its subtopic; "" where the row does not tell.
        chosen_scores: The judge's score of the chosen answer by criterion; empty where nothing was judged.
        rejected_scores: The same of the rejected one.
        prompt: Its prompt.
        chosen: The chosen answer, or None.
        rejected: The rejected answer, or None.
        margin: By how much the judge preferred the chosen answer; None where nothing was judged.
    """

    mode: str
    row: int
    prompt: str
    chosen: str | None = None
    rejected: str | None = None
    margin: float | None = None
    rows: int = 1
    sub_topic: str = ""
    chosen_scores: Mapping[str, float] = field(default_factory=dict)
    rejected_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no row.

    Attributes:
        line: Its number in the file, from 1.
        reason: What is wrong with it.
    """

    line: int
    reason: str


def refused(path: Path, first: Sequence[BadLine], count: int) -> UsageError:
    """The error of a file with bad lines, which names the first of them.

    Args:
        path: The file.
        first: The lines that are named, one at least.
        count: How many there are.
    """
    lines = [f"{path}:{bad.line}: {bad.reason}" for bad in first]
    if count > len(lines):
        lines.append(f"and {count - len(lines):,} more bad lines; --skip-bad leaves them out")
    else:
        lines[-1] += "; --skip-bad leaves bad lines out"
    return UsageError(*lines)


class _NoRowError(ValueError):
    """A line that is no row; `str()` is the reason."""


def read_samples(path: Path, only: Container[int] | None = None) -> Iterator[Sample | BadLine]:
    """What stands in a dataset file, in the order of its rows; bad lines in their places.

    Args:
        path: The file.
        only: The numbers of the lines that are looked at; None for all of them.

    Raises:
        UsageError: The file cannot be read.
    """
    halves = _Halves()
    kind = ""
    try:
        with files.opened(path) as file:
            for number, line in enumerate(bounded_lines(file), 1):
                if line.isspace() or (only is not None and number not in only):
                    continue
                try:
                    sample = _sample(line, number)
                except _NoRowError as reason:
                    yield BadLine(number, str(reason))
                    continue
                # Rows that the judge has not seen are among those of mo-dpo in VellumForge2's files.
                its_kind = sample.mode.removeprefix("mo-")
                kind = kind or its_kind
                if its_kind != kind:
                    yield BadLine(number, f"it is a row of {its_kind}, and those before it are of {kind}")
                elif kind == "kto":
                    yield from halves.add(sample)
                else:
                    yield sample
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    yield from halves.rest()


def bounded_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The file's lines; of one that is too long, no more than its beginning."""
    while line := file.readline(LONGEST_LINE):
        yield line
        while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)


def _sample(line: bytes, number: int) -> Sample:
    if len(line) == LONGEST_LINE:
        raise _NoRowError(f"it is longer than {LONGEST_LINE // 1024**2} MB")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _NoRowError(f"it is no JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise _NoRowError("it is no JSON object")
    sample = _form(row, number)
    if isinstance(sub_topic := row.get("sub_topic"), str):
        return replace(sample, sub_topic=sub_topic)
    return sample


def _form(row: dict[str, Any], number: int) -> Sample:
    """The row's texts, whichever mode it is of."""
    if "conversations" in row:
        return _conversation(row["conversations"], number)
    if "instruction" in row:
        context = _text(row, "input") if row.get("input") else ""
        prompt = "\n\n".join(filter(None, (_text(row, "instruction"), context)))
        return Sample("sft", number, _asked(row, prompt), _text(row, "output"))
    if "label" in row:
        if not isinstance(row["label"], bool):
            raise _NoRowError("label is neither true nor false")
        prompt, completion = _asked(row, _text(row, "prompt")), _text(row, "completion")
        sides = (completion, None) if row["label"] else (None, completion)
        return Sample("kto", number, prompt, *sides)
    if "chosen" in row or "rejected" in row:
        prompt, chosen, rejected = (_text(row, name) for name in ("prompt", "chosen", "rejected"))
        margin = _margin(row)
        mode = "dpo" if margin is None else "mo-dpo"
        good, bad = (_scores(row.get(name)) for name in ("chosen_scores", "rejected_scores"))
        sample = Sample(mode, number, _asked(row, prompt), chosen, rejected, margin)
        return replace(sample, chosen_scores=good, rejected_scores=bad) if good or bad else sample
    raise _NoRowError("it is no row of sft, dpo, kto or mo-dpo")


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise _NoRowError(f"{name} is {'no text' if name in row else 'missing'}")
    return value


def _asked(row: dict[str, Any], prompt: str) -> str:
    """The prompt, after what was said before it, where the row tells."""
    history = row.get(HISTORY)
    if history is None:
        return prompt
    if not isinstance(history, list) or not all(isinstance(turn, dict) for turn in history):
        raise _NoRowError(f"{HISTORY} is no list of messages")
    return asked_text((_text(turn, "content") for turn in history), prompt)


def _conversation(turns: object, number: int) -> Sample:
    """A ShareGPT row: the last answer of the model, and all that was said before it."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _NoRowError("conversations is no list of turns")
    said = [_text(turn, "value") for turn in turns]
    roles = [turn.get("from") for turn in turns]
    if roles[-1:] != ["gpt"] or "human" not in roles:
        raise _NoRowError("conversations has no turn of human that one of gpt answers")
    return Sample("sft", number, "\n\n".join(said[:-1]), said[-1])


def _margin(row: dict[str, Any]) -> float | None:
    """The row's margin, or the difference of its totals; None when it has neither."""
    found = row.get("preference_margin")
    if found is None and "chosen_score_total" in row and "rejected_score_total" in row:
        totals = [row["chosen_score_total"], row["rejected_score_total"]]
        found = totals[0] - totals[1] if all(map(_is_number, totals)) else "?"
    if found is not None and not _is_number(found):
        raise _NoRowError("preference_margin, or a score's total, is no number")
    return found


def _scores(found: object) -> dict[str, float]:
    """Scores by criterion; what is none is left out, for no row is worth less for it."""
    if not isinstance(found, dict):
        return {}
    scores = {name: item.get("score") for name, item in found.items() if isinstance(item, dict)}
    return {name: float(score) for name, score in scores.items() if score is not None and _is_number(score)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Halves:
    """Rows of kto that wait for the other side of their pair."""

    def __init__(self) -> None:
        self._waiting: dict[str, Sample] = {}
        self._characters = 0

    def add(self, half: Sample) -> Iterator[Sample]:
        """The row with its other side, if that came before; and rows that have waited for too long."""
        other = self._waiting.get(half.prompt)
        if other is None:
            self._waiting[half.prompt] = half
            self._characters += _characters(half)
        elif (other.chosen is None) == (half.chosen is None):
            yield half  # The same side again: a duplicate.
        else:
            self._take(half.prompt)
            good, bad = (half, other) if other.chosen is None else (other, half)
            yield replace(good, row=other.row, rejected=bad.rejected, rows=2)
        while len(self._waiting) > MOST_WAITING or self._characters > MOST_CHARACTERS:
            yield self._take(next(iter(self._waiting)))

    def rest(self) -> Iterator[Sample]:
        """The rows whose other side never came."""
        yield from self._waiting.values()

    def _take(self, prompt: str) -> Sample:
        half = self._waiting.pop(prompt)
        self._characters -= _characters(half)
        return half


def _characters(half: Sample) -> int:
    return len(half.prompt) + len(half.chosen or "") + len(half.rejected or "")

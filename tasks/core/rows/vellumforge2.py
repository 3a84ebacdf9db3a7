"""Dataset files that VellumForge2 itself wrote, read as they are.

They may be damaged in the ways that program is known for: rows in the order of completion, rows twice, a
torn last line with the next row glued to it, jobs that are marked done and have no row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson

from tasks.core import files
from tasks.core.answers.parsing import ParseError, parse_scores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.core.models import Scores

_ROW_START = re.compile(rb'\{"(?:prompt|main_topic|instruction|conversations)":')


@dataclass(frozen=True, slots=True)
class ForeignRow:
    """A row's contents, whatever its mode; what the mode does not have is None."""

    prompt: str
    chosen: str | None = None
    rejected: str | None = None
    chosen_scores: Scores | None = None
    rejected_scores: Scores | None = None
    chosen_reasoning: str = ""
    rejected_reasoning: str = ""

    def is_whole(self, mode: str) -> bool:
        """Whether it has all that a row of this mode has."""
        if self.chosen is None or (mode != "sft" and self.rejected is None):
            return False
        return mode != "mo-dpo" or (self.chosen_scores is not None and self.rejected_scores is not None)


@dataclass(slots=True)
class ForeignRows:
    """What a dataset file holds.

    Attributes:
        rows: The contents by prompt, both rows of a kto pair together; the first of equal prompts counts.
        duplicates: Rows that were there again.
        damaged: Lines, or parts of lines, that are no row.
    """

    rows: dict[str, ForeignRow] = field(default_factory=dict)
    duplicates: int = 0
    damaged: int = 0


def read_rows(path: Path) -> ForeignRows:
    """Read a dataset file of any mode, line by line; a missing one holds nothing.

    Raises:
        OSError: The file is there and cannot be read.
    """
    found = ForeignRows()
    if not path.exists():
        return found
    with files.opened(path) as file:
        for line in file:
            for document in _documents(line, found):
                _take(document, found)
    return found


def _documents(line: bytes, found: ForeignRows) -> Iterator[dict[str, Any]]:
    """The rows on a line: one, or what can be had of a torn row and of those glued to it."""
    line = line.strip()
    if not line:
        return
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        yield document
        return
    found.damaged += 1
    starts = [match.start() for match in _ROW_START.finditer(line)]
    for start, end in pairwise([*starts, len(line)]):
        try:
            document = orjson.loads(line[start:end])
        except orjson.JSONDecodeError:
            continue
        if isinstance(document, dict):
            yield document


def _take(document: dict[str, Any], found: ForeignRows) -> None:
    """Put a row's contents beside what is known of its prompt."""
    row = _row(document)
    if row is None:
        found.damaged += 1
        return
    known = found.rows.get(row.prompt)
    if known is None:
        found.rows[row.prompt] = row
    elif (known.chosen is None and row.chosen is not None) or (
        known.rejected is None and row.rejected is not None
    ):
        # The other row of a kto pair.
        found.rows[row.prompt] = ForeignRow(
            row.prompt, known.chosen or row.chosen, known.rejected or row.rejected
        )
    else:
        found.duplicates += 1


def _row(document: dict[str, Any]) -> ForeignRow | None:
    """A row of any mode; None when it is none."""
    if "conversations" in document:
        return _conversation(document["conversations"])
    if "instruction" in document:
        return _texts(document["instruction"], chosen=document.get("output"))
    if "label" in document:
        side = "chosen" if document["label"] is True else "rejected"
        return _texts(document.get("prompt"), **{side: document.get("completion")})
    row = _texts(document.get("prompt"), document.get("chosen"), document.get("rejected"))
    if row is None or "chosen_scores" not in document:
        return row
    scores = _scores(document["chosen_scores"]), _scores(document.get("rejected_scores"))
    return ForeignRow(row.prompt, row.chosen, row.rejected, *scores)


def _conversation(turns: object) -> ForeignRow | None:
    """A ShareGPT row: the first human turn, and the model's answer to it."""
    if not isinstance(turns, list):
        return None
    by_role = {str(turn.get("from")): turn.get("value") for turn in reversed(turns) if isinstance(turn, dict)}
    return _texts(by_role.get("human"), chosen=by_role.get("gpt"))


def _texts(prompt: object, chosen: object = None, rejected: object = None) -> ForeignRow | None:
    """A row of these texts; None when the prompt is none or there is no answer at all."""
    # A blank answer is none: it would be asked for again here.
    good, bad = (text if isinstance(text, str) and text.strip() else None for text in (chosen, rejected))
    return ForeignRow(prompt, good, bad) if isinstance(prompt, str) and (good or bad) else None


def _scores(document: object) -> Scores | None:
    """A judge's scores as mo-dpo rows hold them; None when they are none."""
    try:
        return parse_scores(orjson.dumps(document).decode(), None)
    except ParseError:
        return None

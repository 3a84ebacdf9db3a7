"""Input files, JSONL or Parquet, read row by row: memory holds one row, or one batch of Parquet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import orjson

from tasks.core import files
from tasks.core.errors import UsageError
from tasks.core.printable import reason_of
from tasks.core.rows.samples import LONGEST_LINE, BadLine, bounded_lines, refused
from tasks.core.rows.transformed import COLUMNS, InputRow, NoRowError, check_sides, read_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tasks.core.models import Text
    from tasks.core.rows.transformed import Mode

PARQUET: Final = b"PAR1"
BATCH: Final = 32
"""Rows of Parquet that are unpacked at a time."""
BUFFER: Final = 1 << 20
"""Bytes of a Parquet file that are read at a time."""
MOST_ROWS: Final = 500
MOST_CHARACTERS: Final = 4_000_000
"""Of one block: what is in memory must not grow with the input."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is transformed.

    Attributes:
        mode: What it is transformed for.
        plain: The file of rows; None where there is only one with reasoning.
        reasoning: The file of the same rows with reasoning in their answers, or None.
    """

    mode: Mode
    plain: Path | None
    reasoning: Path | None

    @property
    def files(self) -> list[Path]:
        """The files that are there, the one that gives the lines their numbers first."""
        return [path for path in (self.plain, self.reasoning) if path is not None]

    def read(self) -> Iterator[InputRow | BadLine]:
        """Its rows in order, bad lines in their places.

        Raises:
            UsageError: A file cannot be read.
        """
        place = 0
        for entry in self._entries():
            if isinstance(entry, InputRow):
                yield replace(entry, place=place)
                place += 1
            else:
                yield entry

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """By what it is seen that the files are still the same: their sizes and times.

        Raises:
            UsageError: A file cannot be looked at.
        """
        try:
            return tuple((stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in self.files))
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error

    def _entries(self) -> Iterator[InputRow | BadLine]:
        if self.plain is None or self.reasoning is None:
            split = self.plain is None or self.mode.name == "add-reasoning"
            return _rows(self.files[0], self.mode, split=split)
        return self._both(self.plain, self.reasoning)

    def _both(self, plain: Path, reasoning: Path) -> Iterator[InputRow | BadLine]:
        """The rows of one file, with the reasoning of the other one's, row by row."""
        rows, others = _rows(plain, self.mode, split=False), _rows(reasoning, self.mode, split=True)
        last = 0
        for row, other in zip_longest(rows, others):
            if row is None:
                yield BadLine(last + 1, f"it is missing, and {reasoning} goes on in line {other.line}")
                return
            last = row.line
            yield row if isinstance(row, BadLine) else _with_reasoning(row, other, reasoning)


def _with_reasoning(row: InputRow, other: InputRow | BadLine | None, path: Path) -> InputRow | BadLine:
    if other is None:
        return BadLine(row.line, f"{path} has no row for it")
    if isinstance(other, BadLine):
        return BadLine(row.line, f"{path}:{other.line}: {other.reason}")
    if (row.kind, row.prompt) != (other.kind, other.prompt):
        return BadLine(row.line, f"{path}:{other.line} has another prompt, or is a row of another kind")
    chosen, rejected = _joined(row.chosen, other.chosen), _joined(row.rejected, other.rejected)
    return replace(row, chosen=chosen, rejected=rejected)


def _joined(text: Text | None, other: Text | None) -> Text | None:
    return text if text is None or other is None else replace(text, reasoning=other.reasoning)


def _rows(path: Path, mode: Mode, *, split: bool) -> Iterator[InputRow | BadLine]:
    try:
        with files.opened(path) as file:
            is_parquet = file.read(len(PARQUET)) == PARQUET
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    for line, row in _parquet(path) if is_parquet else _json_lines(path):
        if isinstance(row, NoRowError):
            yield BadLine(line, str(row))
            continue
        try:
            yield check_sides(read_row(row, place=0, line=line, mode=mode, split=split), mode)
        except NoRowError as reason:
            yield BadLine(line, str(reason))


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with files.opened(path) as file:
            for number, line in enumerate(bounded_lines(file), 1):
                if line.isspace():
                    continue
                if len(line) == LONGEST_LINE:
                    yield number, NoRowError(f"it is longer than {LONGEST_LINE // 1024**2} MB")
                    continue
                try:
                    yield number, orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    yield number, NoRowError(f"it is no JSON ({error.msg})")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    # Imported here: it takes a quarter of a second, and most input is JSONL.
    import pyarrow.parquet  # noqa: PLC0415

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            columns = [name for name in file.schema_arrow.names if name in COLUMNS]
            for batch in file.iter_batches(batch_size=BATCH, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    # Times that no calendar has, in zones that nobody knows: each is another error.
    except (pyarrow.ArrowException, OSError, ArithmeticError, LookupError, ValueError) as error:
        reason = reason_of(error, 200)
        raise UsageError(f"{path} cannot be read as Parquet after row {number}: {reason}") from error


def in_blocks(
    entries: Iterable[InputRow | BadLine], size: int, skip: Callable[[BadLine], object]
) -> Iterator[list[InputRow]]:
    """Consecutive rows, as many as make a block; where they are cut depends on the input alone.

    Args:
        entries: The rows, with bad lines among them.
        size: How many rows a block has at most.
        skip: Handed each bad line.
    """
    block: list[InputRow] = []
    characters = 0
    for entry in entries:
        if not isinstance(entry, InputRow):
            skip(entry)
            continue
        block.append(entry)
        characters += entry.size
        if len(block) >= size or characters >= MOST_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


@dataclass(slots=True)
class FirstPass:
    """What a first pass found.

    Attributes:
        rows: How many rows there are.
        bad: How many lines are bad.
        first_bad: The first of them.
        stamp: By what it is seen that the files are still the same.
    """

    rows: int = 0
    bad: int = 0
    first_bad: tuple[BadLine, ...] = ()
    stamp: tuple[tuple[int, int], ...] = ()


MOST_SHOWN: Final = 10
"""Bad lines that are shown."""


def check_input(source: Source, *, skip_bad: bool) -> FirstPass:
    """Read the input once, and make sure that every line can be taken.

    Args:
        source: The input.
        skip_bad: Whether bad lines are counted and not refused.

    Raises:
        UsageError: A file cannot be read, lines are bad, or there are no rows.
    """
    found = FirstPass(stamp=source.stamp())
    for entry in source.read():
        if isinstance(entry, InputRow):
            found.rows += 1
            continue
        found.bad += 1
        if found.bad <= MOST_SHOWN:
            found.first_bad = (*found.first_bad, entry)
    if found.bad and not skip_bad:
        raise refused(source.files[0], found.first_bad, found.bad)
    if not found.rows:
        raise UsageError(f"{source.files[0]} holds no rows")
    return found

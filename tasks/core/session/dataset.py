"""`dataset.jsonl` while a run writes it, and `session.log`: what happened, one JSON object a line."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from tasks.core import files
from tasks.core.errors import SessionError
from tasks.core.printable import shown

if TYPE_CHECKING:
    from collections.abc import Iterator


DATASET = "dataset.jsonl"
"""The file of rows in a session's folder."""

REASONING = "dataset_reasoning.jsonl"
"""The file of the same rows with the reasoning before the answers."""

CANDIDATES = "candidates.jsonl"
"""The file of all answers that the rows were chosen of."""

PIECE = 1 << 20
"""Bytes that are read at a time where only line ends are counted."""


class DatasetFile:
    """One growing file of rows.

    While it grows, rows stand in the order of arrival; where each job's rows begin is kept in memory, some
    hundred bytes a job, so that ordering the file needs no second copy of its text.

    Where there is a file already, that of a session which is resumed, the rows grow in a hidden file
    beside it and take its place once they are as many: whatever cuts the resume off, there are never fewer
    rows than before.
    """

    def __init__(self, path: Path) -> None:
        """Begin the file.

        Raises:
            SessionError: It cannot be created.
        """
        self.path = path
        self._places: dict[int, tuple[int, int]] = {}
        self._size = 0
        self._rows = 0
        try:
            self._rows_before = _count_rows(path)
            self._growing = path.with_name(f".{path.name}.growing") if self._rows_before else path
            self._file = files.begun(self._growing)
        except OSError as error:
            raise SessionError(f"{path} cannot be created: {error.strerror}") from error

    @property
    def jobs(self) -> int:
        """Jobs that have rows in the file."""
        return len(self._places)

    def add(self, job_id: int, lines: bytes) -> None:
        """Append a job's rows; a job that is there already keeps the rows it has.

        Raises:
            SessionError: The file cannot be written to.
        """
        if job_id in self._places:
            return
        try:
            self._file.write(lines)
        except OSError as error:
            raise self._failed(error) from error
        self._places[job_id] = (self._size, len(lines))
        self._size += len(lines)
        self._rows += lines.count(b"\n")
        if self._growing != self.path and self._rows >= self._rows_before:
            self._take_place()

    def flush(self) -> None:
        """Hand to the system what waits in memory, so that readers of the file see it.

        Raises:
            SessionError: The file cannot be written to.
        """
        try:
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def finish(self, *, complete: bool = True) -> None:
        """Put the rows in the order of job ids, durably and in one step, and close the file.

        Args:
            complete: Whether these are all rows; else a file that held more of them stays as it was.

        Raises:
            SessionError: The file cannot be written; the unordered one stays.
        """
        self.flush()
        try:
            if complete or self._growing == self.path:
                self._order()
            if self._growing != self.path:
                self._growing.unlink()
        except OSError as error:
            raise self._failed(error) from error
        self.close()

    def _order(self) -> None:
        # Unbuffered, for rows are read in another order than they stand in.
        with self._growing.open("rb", buffering=0) as grown, files.replaced(self.path) as ordered:
            for _, (start, length) in sorted(self._places.items()):
                grown.seek(start)
                ordered.write(grown.read(length))

    def _take_place(self) -> None:
        self.flush()
        try:
            # Else the power may go when the rename is durable and the rows are not.
            os.fsync(self._file.fileno())
            self._growing.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error
        self._growing = self.path

    def first_row(self) -> str:
        """The first row of the finished file, without its newline; "" when there is none."""
        return next(iter(self.first_rows(1)), "")

    def first_rows(self, most: int) -> list[str]:
        """So many of the file's first rows at most, as they lie on the disk, without their newlines.

        Raises:
            OSError: The file cannot be read.
        """
        with self.path.open(encoding="utf-8") as file:
            return [line.rstrip("\n") for line in islice(file, most)]

    def close(self) -> None:
        """Close the file as it is.

        Raises:
            SessionError: What waited in memory cannot be written; the file is closed all the same.
        """
        try:
            self._file.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SessionError:
        return SessionError(
            f"{self.path} cannot be written: {error.strerror}; every answer is in the ledger, "
            "so run again when there is room and nothing is paid for twice"
        )


def _count_rows(path: Path) -> int:
    """Lines of a file, also a last one without its end, for it may be whole; 0 when there is no file."""
    lines, last = 0, b"\n"
    try:
        with files.opened(path) as file:
            for piece in iter(partial(file.read, PIECE), b""):
                lines += piece.count(b"\n")
                last = piece[-1:]
    except FileNotFoundError:
        return 0
    return lines + (last != b"\n")


ROOT = "vellumforge"
"""The logger that every module of the project logs under."""


class JournalFormat(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line; a traceback, if any, goes into the field `error`."""
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": shown(record.getMessage()),
        }
        if record.exc_info:
            document["error"] = shown(self.formatException(record.exc_info))
        return orjson.dumps(document, default=str).decode()


class _JournalFile(logging.FileHandler):
    """The file; one that cannot be written any more says so once, and the run goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._given_up = False

    def _open(self) -> TextIOWrapper:
        # Not as logging does it: a pipe in its place would stop the run.
        return TextIOWrapper(files.begun(Path(self.baseFilename), keeping=True), encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        if not self._given_up:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = sys.exception()
        if isinstance(error, OSError):
            self._give_up(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # of what waited in memory
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._given_up:
            self._given_up = True
            _warn(Path(self.baseFilename), error)


def _warn(path: Path, error: OSError) -> None:
    logging.getLogger(ROOT).warning("%s cannot be written: %s; going on without it", path, error.strerror)


@contextmanager
def journal(path: Path, level: int = logging.INFO) -> Iterator[None]:
    """Write the project's log records to `path` while the block runs.

    A log that cannot be written only warns: it is not what must hold.
    """
    root = logging.getLogger(ROOT)
    try:
        handler: logging.Handler = _JournalFile(path)
    except OSError as error:
        _warn(path, error)
        handler = logging.NullHandler()
    handler.setFormatter(JournalFormat())
    handler.setLevel(level)
    before = root.level
    root.setLevel(min(level, before) if before else level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()

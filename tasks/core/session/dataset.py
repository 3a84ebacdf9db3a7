"""`dataset.jsonl`: grows as pairs come, and is put in the order of job ids at the end."""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from tasks.core.errors import SessionError
from tasks.core.session.files import replaced

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO


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
            self._file: IO[bytes] = self._growing.open("wb")
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
        with self._growing.open("rb", buffering=0) as grown, replaced(self.path) as ordered:
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
        with path.open("rb") as file:
            for piece in iter(partial(file.read, PIECE), b""):
                lines += piece.count(b"\n")
                last = piece[-1:]
    except FileNotFoundError:
        return 0
    return lines + (last != b"\n")

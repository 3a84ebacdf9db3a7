"""`dataset.jsonl`: grows as pairs come, and is put in the order of job ids at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.errors import SessionError
from tasks.core.session.files import replaced

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO


class DatasetFile:
    """One growing file of rows.

    While it grows, rows stand in the order of arrival; where each job's rows begin is kept in memory, some
    hundred bytes a job, so that ordering the file needs no second copy of its text.
    """

    def __init__(self, path: Path) -> None:
        """Create the file, empty.

        Raises:
            SessionError: It cannot be created.
        """
        self.path = path
        self._places: dict[int, tuple[int, int]] = {}
        self._size = 0
        try:
            self._file: IO[bytes] = path.open("xb")
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

    def flush(self) -> None:
        """Hand to the system what waits in memory, so that readers of the file see it.

        Raises:
            SessionError: The file cannot be written to.
        """
        try:
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Put the rows in the order of job ids, durably and in one step, and close the file.

        Raises:
            SessionError: The file cannot be written; the unordered one stays.
        """
        self.flush()
        try:
            # Unbuffered, for rows are read in another order than they stand in.
            with self.path.open("rb", buffering=0) as grown, replaced(self.path) as ordered:
                for _, (start, length) in sorted(self._places.items()):
                    grown.seek(start)
                    ordered.write(grown.read(length))
        except OSError as error:
            raise self._failed(error) from error
        self.close()

    def first_row(self) -> str:
        """The first row of the finished file, without its newline; "" when there is none."""
        with self.path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")

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

"""Pairs on their way into an export: they come in any order, wait on the disk, and are read in any other."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Self

import orjson

from tasks.core.errors import SessionError
from tasks.core.export.splits import Subtopics
from tasks.core.models import Job, Pair, Score, Scores, Text

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Spool:
    """Pairs in a file without a name, which is gone with the process; in memory some hundred bytes of each.

    Attributes:
        subtopics: What a split has to keep together.
    """

    def __init__(self, folder: Path) -> None:
        """Begin an empty one.

        Args:
            folder: The folder whose disk holds the pairs.

        Raises:
            SessionError: No file can be made there.
        """
        self.subtopics = Subtopics()
        self._folder = folder
        self._criteria: set[str] = set()
        self._marks: dict[int, str] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._size = 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".pairs.")  # noqa: SIM115 - see `close`
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria of all scores; sorted, for pairs come in no set order."""
        return tuple(sorted(self._criteria))

    def add(self, pair: Pair) -> None:
        """Take a pair; of a job that is there already the first one counts.

        Raises:
            SessionError: The disk is full, or fails.
        """
        job = pair.job
        if job.id in self._places:
            return
        packed = orjson.dumps(pair)
        try:
            # A write that failed, or a pair that was read, may have left it elsewhere.
            self._file.seek(self._size)
            self._file.write(packed)
        except OSError as error:
            raise self._failed(error) from error
        self._places[job.id] = (self._size, len(packed))
        self._size += len(packed)
        self._marks[job.id] = self.subtopics.add(job)
        for scores in (pair.chosen_scores, pair.rejected_scores):
            self._criteria.update(scores.criteria if scores else ())

    def jobs(self) -> list[tuple[int, str]]:
        """The id of each job, ascending, with the mark of its subtopic."""
        return [(job, self._marks[job]) for job in sorted(self._places)]

    def size_of(self, job: int) -> int:
        """Bytes of a job's pair as it lies on the disk: about those of its texts."""
        return self._places[job][1]

    def pair(self, job: int) -> Pair:
        """The pair of a job.

        Raises:
            SessionError: The disk fails.
        """
        start, length = self._places[job]
        try:
            self._file.seek(start)
            return _unpacked(self._file.read(length))
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let the file go; a second time changes nothing."""
        self._file.close()

    def _failed(self, error: OSError) -> SessionError:
        return SessionError(
            f"pairs for the export cannot be kept in {self._folder}: {error.strerror}; every answer is in "
            "the ledger, so do it again when there is room"
        )


def _unpacked(packed: bytes) -> Pair:
    document = orjson.loads(packed)
    rejected = document["rejected"]
    return Pair(
        Job(**document["job"]),
        Text(**document["chosen"]),
        None if rejected is None else Text(**rejected),
        _scores(document["chosen_scores"]),
        _scores(document["rejected_scores"]),
    )


def _scores(document: dict[str, Any] | None) -> Scores | None:
    if document is None:
        return None
    return Scores({name: Score(**score) for name, score in document["criteria"].items()})

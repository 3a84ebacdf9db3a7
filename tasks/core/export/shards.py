"""Which file each row of an export goes to: for testing or training, in which order, in which file."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from sys import intern
from typing import IO, TYPE_CHECKING, Protocol

import orjson

from tasks.core.export.rows import DATA, ExportedFile, path_of
from tasks.core.sameness import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tasks.core.config.settings import FileType
    from tasks.core.models import Job
    from tasks.core.rows.formats import Row


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the pieces of an export may be; the row that reaches a bound still belongs to its piece.

    Attributes:
        shard_bytes: Bytes of a file.
        group_rows: Rows of a row group of Parquet.
        group_bytes: Bytes of its texts: as much as waits in memory.
    """

    shard_bytes: int = 500_000_000
    group_rows: int = 1_000
    group_bytes: int = 16_000_000


class RowFile(Protocol):
    """An open file that rows are written to."""

    @property
    def size(self) -> int:
        """Bytes written so far."""

    def write(self, row: Row, size: int) -> None:
        """Write a row whose texts have about so many bytes."""

    def close(self) -> None:
        """Write what is left; the file itself stays open."""


class JsonLinesFile:
    """Rows as JSON lines in UTF-8."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0

    def write(self, row: Row, size: int) -> None:  # noqa: ARG002 - a line has no need of it
        """Write a row."""
        self.size += self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Nothing is left."""


class SplitFiles:
    """The files of one split of one configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        configuration: str,
        split: str,
        file_type: FileType,
        begin: Callable[[IO[bytes]], RowFile],
        most_bytes: int,
    ) -> None:
        """Begin without a file; the first row brings one.

        Args:
            folder: The exported folder.
            configuration: The configuration.
            split: The split.
            file_type: What the files end in.
            begin: Begins a shard in an open file.
            most_bytes: Bytes after which the next one is begun.
        """
        self._folder = folder
        self._configuration = configuration
        self._split = split
        self._file_type = file_type
        self._begin = begin
        self._most_bytes = most_bytes
        self._rows: list[int] = []
        self._file: IO[bytes] | None = None
        self._shard: RowFile | None = None

    def add(self, row: Row, size: int) -> None:
        """Write a row.

        Args:
            row: The row.
            size: About the bytes of its texts.

        Raises:
            OSError: The disk is full, or fails.
        """
        if self._shard is None or self._shard.size >= self._most_bytes:
            self.close()
            path = self._path(len(self._rows))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
            self._shard = self._begin(self._file)
            self._rows.append(0)
        self._shard.write(row, size)
        self._rows[-1] += 1

    def close(self) -> None:
        """Finish the file that is being written, durably.

        Raises:
            OSError: The disk is full, or fails.
        """
        if self._shard is None or self._file is None:
            return
        with self._file:
            self._shard.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        self._shard = self._file = None

    def abandon(self) -> None:
        """Close the file that is being written as it is."""
        if self._file is not None:
            self._file.close()

    def finish(self) -> list[ExportedFile]:
        """Give the files their names, now that it is known how many they are.

        Raises:
            OSError: The disk is full, or fails.
        """
        self.close()
        found = []
        for number, rows in enumerate(self._rows):
            name = path_of(self._configuration, self._split, number, len(self._rows), self._file_type)
            path = self._path(number).rename(self._folder / name)
            found.append(ExportedFile(name, self._configuration, self._split, rows, path.stat().st_size))
        return found

    def _path(self, number: int) -> Path:
        return self._folder / DATA / self._configuration / f"{self._split}-{number:05}.{self._file_type}"


class Subtopics:
    """What must stay on one side of a split: a subtopic's pairs, and subtopics that share a prompt.

    Sessions that were taken over may have the same prompt in two subtopics; elsewhere there is none twice.
    What comes of it does not depend on the order in which jobs are added.
    """

    def __init__(self) -> None:
        self._pairs: Counter[str] = Counter()
        self._joined: dict[str, str] = {}
        self._prompts: dict[bytes, str] = {}

    def add(self, job: Job) -> str:
        """Count a pair's job; returns the subtopic's mark, which `test` knows it by."""
        prompt = blake2b(fingerprint(job.prompt).encode(), digest_size=16).digest()
        # Prompts of one's own have no subtopic: each stands for itself.
        mark = intern(fingerprint(job.sub_topic) or prompt.hex())
        self._pairs[mark] += 1
        other = self._prompts.setdefault(prompt, mark)
        if other != mark:
            first, second = sorted((self._root(mark), self._root(other)))
            if first != second:
                self._joined[second] = first
        return mark

    def test(self, share: float, seed: int) -> frozenset[str]:
        """The marks of the subtopics for testing.

        Args:
            share: The share of pairs that is wanted; as near to it as whole subtopics come, but at least one
                is taken and one left.
            seed: Another number chooses others.

        Returns:
            None for a share of 0, and where there is nothing to divide.
        """
        sizes: Counter[str] = Counter()
        for mark, count in self._pairs.items():
            sizes[self._root(mark)] += count
        wanted = share * sizes.total()
        chosen: set[str] = set()
        if share:
            taken = 0
            for root in sorted(sizes, key=lambda root: (_place(seed, root), root))[:-1]:
                if chosen and abs(taken + sizes[root] - wanted) >= abs(taken - wanted):
                    break
                chosen.add(root)
                taken += sizes[root]
        return frozenset(mark for mark in self._pairs if self._root(mark) in chosen)

    def _root(self, mark: str) -> str:
        root = mark
        while (above := self._joined.get(root)) is not None:
            root = above
        # Paths are kept short, for a chain of thousands is walked for each of its members.
        while mark != root:
            self._joined[mark], mark = root, self._joined[mark]
        return root


def mixed(jobs: Sequence[int], seed: int) -> Iterator[tuple[int, bool]]:
    """The order of kto rows: each job with True, for its chosen answer, and with False.

    KTOTrainer takes rows in the order in which they stand, and compares each prompt with the answers of other
    rows of its batch. So both labels come in equal numbers, in no pattern and never more than two alike in a
    row, and the answers to one prompt stand as far apart as they can.
    """
    order = sorted(jobs, key=lambda job: (_place(seed, f"kto {job}"), job))
    half = len(order) // 2
    for place, job in enumerate(order):
        rows = (job, True), (order[(place + half) % len(order)], False)
        yield from rows if _place(seed, f"first {job}") % 2 else reversed(rows)


def _place(seed: int, name: str) -> int:
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")

"""The files of a split: rows go in one by one, and a full file is followed by the next."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

import orjson

from tasks.core.export.written import DATA, ExportedFile, path_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.core.config.models import FileType
    from tasks.core.formats import Row


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


class Shard(Protocol):
    """An open file that rows are written to."""

    @property
    def size(self) -> int:
        """Bytes written so far."""

    def write(self, row: Row, size: int) -> None:
        """Write a row whose texts have about so many bytes."""

    def close(self) -> None:
        """Write what is left; the file itself stays open."""


class JsonLines:
    """Rows as JSON lines in UTF-8."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0

    def write(self, row: Row, size: int) -> None:  # noqa: ARG002 - a line has no need of it
        """Write a row."""
        self.size += self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Nothing is left."""


class Shards:
    """The files of one split of one configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        configuration: str,
        split: str,
        file_type: FileType,
        begin: Callable[[IO[bytes]], Shard],
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
        self._shard: Shard | None = None

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

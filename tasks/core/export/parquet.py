"""Rows as Parquet. Imported where it is asked for: pyarrow takes a quarter of a second."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from tasks.core.export.shards import Bounds
    from tasks.core.formats import Row


class ParquetFile:
    """Rows as Parquet, a bounded group of them at a time; a shard.

    Columns are cut where their content says, so that a store that keeps equal pieces once, as the Hub does,
    is sent little when a dataset grows.
    """

    def __init__(self, file: IO[bytes], schema: pa.Schema, bounds: Bounds) -> None:
        self._file = file
        self._schema = schema
        self._bounds = bounds
        self._rows: list[Row] = []
        self._waiting = 0
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_content_defined_chunking=True,
            write_page_index=True,
            # They would hold the first and last text of each page, whole, and in the footer once more.
            write_statistics=False,
        )

    @property
    def size(self) -> int:
        """Bytes written so far, without the rows that wait for their group to fill."""
        return self._file.tell()

    def write(self, row: Row, size: int) -> None:
        """Write a row whose texts have about so many bytes."""
        self._rows.append(row)
        self._waiting += size
        if len(self._rows) >= self._bounds.group_rows or self._waiting >= self._bounds.group_bytes:
            self._write_group()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._waiting = [], 0

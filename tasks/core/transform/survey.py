"""What of a transform is paid for: its work done over the ledger alone, without asking any model."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import MutableSet
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tasks.core.survey import Survey, SurveyRun
from tasks.core.transform.reading import MOST_ROWS, in_blocks
from tasks.core.transform.working import Transform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from tasks.core.config.models import Config
    from tasks.core.llm.ledger import Ledger
    from tasks.core.transform.reading import Source


async def survey_rows(config: Config, source: Source, ledger: Ledger) -> Survey:
    """Do the work of a transform as far as it is paid for; nothing is asked, paid for or kept.

    Args:
        config: The configuration, with the settings of the mode.
        source: The input; its bad lines are passed over.
        ledger: The ledger.

    Returns:
        The counts. Rows that ask the same are one call, however far apart they stand; a call that follows
        from an answer that is not there yet is not counted. Keys are not handed out.

    Raises:
        UsageError: The input cannot be read.
        LedgerError: The ledger cannot be read.
    """
    with ExitStack() as stack:
        found = Survey(keys=stack.enter_context(KeysOnDisk()), unpaid=stack.enter_context(KeysOnDisk()))
        work = Transform(SurveyRun(config, ledger, found), source.mode)
        blocks = in_blocks(source.read(), MOST_ROWS, lambda _: None)
        while rows := await asyncio.to_thread(next, blocks, None):
            await work.work(rows)
            found.failures.clear()
    found.keys, found.unpaid = set(), set()
    return found


class KeysOnDisk(MutableSet[bytes]):
    """A set of keys in a temporary file of SQLite's: memory must not grow with the input.

    A context manager; the file has no name and is gone on leaving.
    """

    def __init__(self) -> None:
        # A file and not memory, for the name is empty; it is written to when SQLite's cache is full.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID")
        # One transaction for all of it.
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def __contains__(self, key: object) -> bool:
        return self._database.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone() is not None

    def __iter__(self) -> Iterator[bytes]:
        for (key,) in self._database.execute("SELECT key FROM keys"):
            yield key

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT count(*) FROM keys").fetchone()[0]
        return count

    def add(self, value: bytes) -> None:
        """Put a key in, if it is not there."""
        self._database.execute("INSERT OR IGNORE INTO keys VALUES (?)", (value,))

    def discard(self, value: bytes) -> None:
        """Take a key out, if it is there."""
        self._database.execute("DELETE FROM keys WHERE key = ?", (value,))

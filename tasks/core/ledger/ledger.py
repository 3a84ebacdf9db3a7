"""The ledger: every answer that was paid for, durable before anything is done with it.

One SQLAlchemy Core table, given by a URL: SQLite (WAL, `synchronous=FULL`) or PostgreSQL. Reads and
writes that wait at the same time share one statement and one transaction, so the cost of a commit is
divided among all calls that finished meanwhile. Several processes may share one ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import orjson
from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from tasks.core.errors import LedgerError
from tasks.core.ledger.claims import Claims
from tasks.core.ledger.schema import (
    calls,
    connect,
    failures,
    milestones,
    prepare,
    reason,
    shown,
    storable,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence
    from types import TracebackType

    from sqlalchemy import URL, Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tasks.core.exchange.request import Answer
    from tasks.core.ledger.schema import LedgerEntry
    from tasks.core.models import Failure

BATCH = 1000
"""Rows of one transaction, and keys of one look-up, at most: bounds memory and the wait of the first."""

_LOOK_UP = select(calls.c.key, calls.c.answer).where(calls.c.key.in_(bindparam("keys", expanding=True)))
"""Made once: a statement that holds its keys refers to itself, and stays in memory until the collector of
garbage comes by, which it does ever more rarely."""


_Item = TypeVar("_Item")


@dataclass(slots=True)
class _Read:
    keys: Sequence[bytes]
    found: asyncio.Future[dict[bytes, Answer]]


@dataclass(slots=True)
class _Write:
    table: Table
    row: dict[str, Any]
    stored: asyncio.Future[bool]


class Ledger:
    """The calls paid for. Made by `Ledger.open`; an async context manager that closes on leaving.

    Attributes:
        id: Its own id, made when it was.
        claims: What is being paid for, by this process and by others.
    """

    def __init__(self, engine: AsyncEngine, ledger_id: str) -> None:
        self.id = ledger_id
        self.claims = Claims(engine)
        self._engine = engine
        self._insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert
        self._reads: asyncio.Queue[_Read | None] = asyncio.Queue()
        self._writes: asyncio.Queue[_Write | None] = asyncio.Queue()
        self._broken: LedgerError | None = None
        self._workers = [
            asyncio.create_task(self._read_batches()),
            asyncio.create_task(self._write_batches()),
        ]

    @classmethod
    async def open(cls, url: str | URL) -> Self:
        """Open the ledger at `url`, and make it when there is none.

        Raises:
            LedgerError: It cannot be opened, is not a ledger, or was written by a newer version.
        """
        engine = connect(url)
        try:
            ledger_id = await prepare(engine)
        except BaseException:
            # Cancelled or failed, nobody else would close its connections.
            await engine.dispose()
            raise
        return cls(engine, ledger_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what is waiting and close the database."""
        self._reads.put_nowait(None)
        self._writes.put_nowait(None)
        await asyncio.gather(*self._workers)
        # When all is kept: whoever waits for a claim looks for its answer then.
        await self.claims.close()
        await self._engine.dispose()

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """The answers that are there, by key; a key that was never paid for is absent.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        self.check()
        found: asyncio.Future[dict[bytes, Answer]] = asyncio.get_running_loop().create_future()
        self._reads.put_nowait(_Read(keys, found))
        return await found

    async def get(self, key: bytes) -> Answer | None:
        """The answer under `key`, or None."""
        return (await self.get_many((key,))).get(key)

    async def put(self, entry: LedgerEntry) -> Answer:
        """Keep an answer; returns once its row is durable.

        Returns:
            The answer that the ledger now holds: another process may have paid for the same first, and
            everybody must go on with the same one.

        Raises:
            LedgerError: It could not be committed; no further call may be paid for.
        """
        row = entry.row()
        if await self._write(calls, row):
            return entry.answer
        stored = await self.get(row["key"])
        if stored is None:
            raise self._fail("written", LookupError("a row that was there is gone"))
        # Nobody asks for it under this key: it is kept for the accounts, for it was paid for.
        await self._write(calls, row | {"key": _key_of_duplicate(row)})
        return stored

    async def payer(self, key: bytes) -> str:
        """The id of the session that paid for a call; "" where nobody did, or nobody here.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        async with self.transaction("read") as connection:
            query = select(calls.c.session).where(calls.c.key == key)
            return (await connection.execute(query)).scalar_one_or_none() or ""

    async def add_failures(self, session: str, found: Iterable[Failure]) -> None:
        """List failures of a session; returns once they are durable."""
        now = time.time()
        await asyncio.gather(
            *(self._write(failures, {"session": session, "at": now, **_row_of(item)}) for item in found)
        )

    async def reached(self, question: bytes) -> list[int]:
        """The counts that the list of this question was grown to before, ascending.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        query = select(milestones.c.target).where(milestones.c.question == question)
        async with self.transaction("read") as connection:
            return sorted((await connection.execute(query)).scalars())

    async def add_reached(self, question: bytes, target: int) -> None:
        """Remember that the list of this question was grown to `target` items."""
        await self._write(milestones, {"question": question, "target": target})

    async def put_all(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep answers that came from elsewhere; those that are there already stay as they are."""
        await asyncio.gather(*(self._write(calls, entry.row()) for entry in entries))

    @asynccontextmanager
    async def transaction(self, verb: str) -> AsyncIterator[AsyncConnection]:
        """A transaction of its own, for what is rare; `verb` says what failed: "read" or "written".

        Raises:
            LedgerError: The database fails in the block.
        """
        self.check()
        try:
            async with self._engine.begin() as connection:
                yield connection
        except Exception as error:
            raise self._fail(verb, error) from error

    async def _write(self, table: Table, row: dict[str, Any]) -> bool:
        """Put a row in the next transaction; whether it was new."""
        self.check()
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._writes.put_nowait(_Write(table, row, stored))
        return await stored

    def check(self) -> None:
        """Raise the LedgerError that broke the ledger, if one did: asked before anything is paid for."""
        if self._broken is not None:
            raise self._broken

    def _fail(self, verb: str, error: Exception) -> LedgerError:
        """From the first failure on, everything fails: an answer that is not kept must be the last one."""
        self._broken = LedgerError(
            f"the ledger {shown(self._engine.url)} cannot be {verb}: {reason(error)}; "
            "nothing more was paid for, and a re-run goes on from here"
        )
        return self._broken

    async def _read_batches(self) -> None:
        while batch := await _collect(self._reads):
            try:
                found = await self._select({key for read in batch for key in read.keys})
            except Exception as error:  # noqa: BLE001 - a worker that died would leave its callers waiting
                _settle([read.found for read in batch], self._fail("read", error))
                continue
            for read in batch:
                if not read.found.done():
                    read.found.set_result({key: found[key] for key in read.keys if key in found})

    async def _select(self, keys: Collection[bytes]) -> dict[bytes, Answer]:
        wanted = list(keys)
        found: dict[bytes, Answer] = {}
        async with self._engine.connect() as connection:
            for start in range(0, len(wanted), BATCH):
                rows = await connection.execute(_LOOK_UP, {"keys": wanted[start : start + BATCH]})
                found.update((key, unpack(answer)) for key, answer in rows)
        return found

    async def _write_batches(self) -> None:
        while batch := await _collect(self._writes):
            try:
                fresh = await self._commit(batch)
            except Exception as error:  # noqa: BLE001 - a worker that died would leave its callers waiting
                _settle([write.stored for write in batch], self._fail("written", error))
                continue
            for write in batch:
                new = write.table is not calls or write.row["key"] in fresh
                if write.table is calls:
                    fresh.discard(write.row["key"])  # Of two alike in a batch, the first was stored.
                if not write.stored.done():
                    write.stored.set_result(new)

    async def _commit(self, batch: list[_Write]) -> set[bytes]:
        """Write the batch in one transaction; returns the keys of the calls that were new."""
        rows: dict[Table, list[dict[str, Any]]] = {}
        for write in batch:
            rows.setdefault(write.table, []).append(write.row)
        fresh: set[bytes] = set()
        async with self._engine.begin() as connection:
            for table, values in rows.items():
                statement = self._insert(table).on_conflict_do_nothing()
                if table is calls:
                    # In one order everywhere, or two processes wait for each other's rows (PostgreSQL).
                    values.sort(key=_key_of)
                    new = await connection.execute(statement.returning(calls.c.key), values)
                    fresh.update(new.scalars())
                else:
                    await connection.execute(statement, values)
        return fresh


async def _collect(queue: asyncio.Queue[_Item | None]) -> list[_Item]:
    """Wait for an item and take all that wait with it, up to a batch; empty once the queue was closed."""
    batch: list[_Item] = []
    while len(batch) < BATCH and (not batch or not queue.empty()):
        item = await queue.get()
        if item is None:
            # Seen again by the next round, which then finds nothing but the end.
            queue.put_nowait(None)
            break
        batch.append(item)
    return batch


def _key_of(row: dict[str, Any]) -> bytes:
    key: bytes = row["key"]
    return key


def _key_of_duplicate(row: dict[str, Any]) -> bytes:
    """A key of its own for an answer to a call that somebody else had answered first."""
    return hashlib.sha256(orjson.dumps([row["key"].hex(), row["session"], row["finished"]])).digest()


def _row_of(failure: Failure) -> dict[str, Any]:
    row = asdict(failure)
    return row | {"item": storable(failure.item), "message": storable(failure.message)}


def _settle(futures: Iterable[asyncio.Future[Any]], error: LedgerError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)

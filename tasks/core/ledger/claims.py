"""Which calls are being paid for, and by whom: of the processes that share a ledger, one pays for each call.

A process that is the only one to buy into a ledger notes its claims in memory alone. Another one that wants
to buy says so in the ledger and waits until the first has written down what it is paying for; from then on
each call is claimed in the ledger before it is sent. Who finds a call claimed waits for its answer.

A claim lives as long as its owner, which says every few seconds that it is there. One that was silent for
`LEASE` seconds is taken for dead, and on the same machine one whose process is gone: its claims are free.
All times are the database's own: the machines' clocks may differ.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    text,
    update,
)

from tasks.core.errors import LedgerError
from tasks.core.ledger.schema import calls, database_time, reason, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

log = logging.getLogger("vellumforge.claims")

LEASE = 20.0
"""Seconds of silence after which an owner of claims is taken for dead."""

RENEWAL = 5.0
"""Seconds between two times at which an owner says that it is there."""

LOOK = 0.5
"""Seconds between two looks at who else buys: that long a process that joins may have to wait."""

SHORTEST_LOOK = 0.05
"""The same, while a claim of somebody else has just been met; it grows to `LOOK` while nothing changes."""

AT_ONCE = 1000
"""Claims of one transaction, at most."""

OWNERS_LOCK = 0x636C61696D73
"""Number of the PostgreSQL advisory lock under which owners come and go: the letters of `claims`."""

metadata = MetaData()
"""Of its own: what stands in these tables is of no use to anybody once its process has ended."""

owners = Table(
    "owners",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("place", String(255), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("born", BigInteger, nullable=False),
    Column("seen", Float, nullable=False),
    Column("shares", Boolean, nullable=False),
    comment="The processes that pay for calls now, and whether their claims stand in the ledger.",
)

claims = Table(
    "claims",
    metadata,
    # As hex digits, so that a statement takes all keys as one JSON list.
    Column("key", String(64), primary_key=True),
    Column("owner", String(36), nullable=False),
    comment="The calls that are being paid for now.",
)

_LISTED = {
    "sqlite": "json_each(:keys)",
    "postgresql": "json_array_elements_text(CAST(:keys AS json)) AS listed(value)",
}
_TAKE = {
    # In one order everywhere, or two processes wait for each other's rows (PostgreSQL).
    name: text(
        f"INSERT INTO claims (key, owner) SELECT value, :owner FROM {listed} WHERE true ORDER BY value "  # noqa: S608 - ours
        "ON CONFLICT DO NOTHING RETURNING key"
    )
    for name, listed in _LISTED.items()
}
_GIVE_BACK = {
    name: text(f"DELETE FROM claims WHERE owner = :owner AND key IN (SELECT value FROM {listed})")  # noqa: S608 - ours
    for name, listed in _LISTED.items()
}
_ANSWERED = select(calls.c.key).where(calls.c.key.in_(bindparam("keys", expanding=True)))
_CLAIMED = select(claims.c.key).where(claims.c.key.in_(bindparam("keys", expanding=True)))


class Claim(Enum):
    """What came of claiming a call."""

    OURS = auto()
    """Nobody else pays for it now."""
    THEIRS = auto()
    """Somebody else is paying for it."""
    ANSWERED = auto()
    """Its answer is in the ledger."""


@dataclass(frozen=True, slots=True)
class _Owner:
    id: str
    place: str
    pid: int
    born: int
    shares: bool
    silent: float

    @property
    def lives(self) -> bool:
        if self.silent > LEASE:
            return False
        return self.place != _PLACE or _born(self.pid) in {self.born, 0}

    def __str__(self) -> str:
        return f"process {self.pid} on {self.place.partition(' ')[0]}"


class Claims:
    """The claims of one open ledger. Until `open` it takes itself to be the only one that buys."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._dialect = engine.dialect.name
        self._id = ""
        self._opening = asyncio.Lock()
        self._shared = False
        self._held: set[bytes] = set()
        self._listed: set[bytes] = set()
        """Those that stand in the ledger; where they are not held any more, they are to be removed."""
        self._wanted: asyncio.Queue[tuple[bytes, asyncio.Future[Claim]]] = asyncio.Queue()
        self._waited_for: dict[bytes, asyncio.Future[None]] = {}
        self._met = asyncio.Event()
        self._looked = self._renewed = 0.0
        self._told = False
        self._workers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Say that this process buys, and wait until all others that do have written down their claims.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        async with self._opening:
            if self._id:
                return
            self._id = str(uuid.uuid4())
            await self._register(shares=False)
            self._workers = [asyncio.create_task(self._watch()), asyncio.create_task(self._take_batches())]
            while not all(other.shares for other in await self._look()):  # noqa: ASYNC110 - it is elsewhere
                await asyncio.sleep(SHORTEST_LOOK)

    async def close(self) -> None:
        """Give everything back and leave."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._id:
            with suppress(LedgerError):  # Whoever looks for this process finds it dead.
                async with self._owners("written") as connection:
                    await _remove(connection, [self._id])
            self._id = ""

    async def take(self, key: bytes) -> Claim:
        """Claim the call with this key, before it is sent; what is ours is given back by `give_back`.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        if self._id and abs(time.time() - self._looked) > LEASE / 2:
            # It stood still: others may have taken it for dead.
            await self._look()
        if not self._shared:
            self._held.add(key)
            return Claim.OURS
        told: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
        self._wanted.put_nowait((key, told))
        return await told

    def give_back(self, key: bytes) -> None:
        """Somebody else may claim the call from now on; its answer, if there is one, is in the ledger."""
        self._held.discard(key)

    async def free(self, key: bytes) -> None:
        """Wait until a call that is somebody else's is answered, or nobody's any more."""
        waits = self._waited_for.get(key)
        if waits is None:
            waits = self._waited_for[key] = asyncio.get_running_loop().create_future()
        self._met.set()
        await asyncio.shield(waits)

    async def _take_batches(self) -> None:
        while True:
            batch = [await self._wanted.get()]
            while len(batch) < AT_ONCE and not self._wanted.empty():
                batch.append(self._wanted.get_nowait())
            keys = {key for key, _ in batch}
            try:
                ours, answered = await self._insert(keys)
            except LedgerError as error:
                # As with an answer that cannot be kept: nothing more is paid for.
                for _, told in batch:
                    if not told.done():
                        told.set_exception(error)
                continue
            for key, told in batch:
                if not told.done():
                    mine = Claim.OURS if key in ours else Claim.THEIRS
                    told.set_result(Claim.ANSWERED if key in answered else mine)
                    ours.discard(key)  # Of two alike in a batch, the first has it.
            for key in ours:
                self.give_back(key)  # Who wanted it was cancelled.

    async def _insert(self, keys: set[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Claim what is free; gives what is ours now, and what is answered."""
        # Given back and not yet removed: they are ours still, and now nobody removes them.
        ours = keys & self._listed - self._held
        self._held |= ours
        async with self._transaction("written") as connection:
            listed = {"owner": self._id, "keys": _json(keys)}
            taken = (await connection.execute(_TAKE[self._dialect], listed)).scalars()
            ours |= {bytes.fromhex(key) for key in taken}
            # After the claims: who gave one back before has its answer in the ledger.
            answered = set((await connection.execute(_ANSWERED, {"keys": list(keys)})).scalars())
            # Last, or two processes wait for each other's rows (PostgreSQL).
            await self._remove_those(connection, (self._listed - self._held - ours) | (answered & ours))
        # Both at once: what stands there and is not held is removed by whoever comes by.
        self._listed |= ours - answered
        self._held |= ours - answered
        return ours - answered, answered

    async def _remove_those(self, connection: AsyncConnection, keys: set[bytes]) -> None:
        if keys:
            self._listed -= keys
            await connection.execute(_GIVE_BACK[self._dialect], {"owner": self._id, "keys": _json(keys)})

    async def _watch(self) -> None:
        pause = LOOK
        while True:
            if self._waited_for:
                await asyncio.sleep(pause)
            else:
                self._met.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._met.wait()
                        pause = SHORTEST_LOOK
            waited_for = len(self._waited_for)
            try:
                others = await self._look()
                await self._end_waits(others)
            except LedgerError as error:
                log.debug("who else pays is not known: %s", error)
                # Those who wait find out, and say so, when they claim it again.
                self._wake(list(self._waited_for))
            unchanged = len(self._waited_for) == waited_for
            pause = min(1.5 * pause, LOOK) if unchanged else SHORTEST_LOOK

    async def _look(self) -> list[_Owner]:
        """The other processes that live; the dead are removed, and where some live, claims are shared."""
        found = await self._read_owners()
        there = any(owner.id == self._id for owner in found)
        others = [owner for owner in found if owner.id != self._id]
        lives = [owner for owner in others if owner.lives]
        if dead := [owner.id for owner in others if not owner.lives]:
            async with self._owners("written") as connection:
                again = {owner.id for owner in await _read(connection) if owner.lives}
                await _remove(connection, [owner for owner in dead if owner not in again])
        if not there or (lives and not self._shared):
            if not there:
                # It was taken for dead, and its claims from it.
                self._listed.clear()
            self._shared = True
            await self._register(shares=True)
        now = time.time()
        renews = abs(now - self._renewed) > RENEWAL
        if renews or self._listed - self._held:
            async with self._transaction("written") as connection:
                await self._remove_those(connection, self._listed - self._held)
                if renews:
                    here = {"seen": database_time(self._dialect)}
                    await connection.execute(update(owners).where(owners.c.id == self._id).values(here))
                    self._renewed = now
        self._looked = now
        return lives

    async def _end_waits(self, others: Sequence[_Owner]) -> None:
        """Wake who waits for calls that are answered, or that nobody claims any more."""
        if not self._waited_for:
            return
        if others and not self._told:
            self._told = True
            log.warning(
                "%s pays for some of the same calls: their answers are waited for, and paid for once",
                " and ".join(map(str, others)),
            )
        keys = list(self._waited_for)
        async with self._transaction("read") as connection:
            digits = [key.hex() for key in keys]
            claimed = set((await connection.execute(_CLAIMED, {"keys": digits})).scalars())
            answered = set((await connection.execute(_ANSWERED, {"keys": keys})).scalars())
        self._wake([key for key in keys if key in answered or key.hex() not in claimed])

    def _wake(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._waited_for.pop(key).set_result(None)

    async def _register(self, *, shares: bool) -> None:
        """Put this process into the list, with what it is paying for."""
        async with self._owners("written") as connection:
            await connection.run_sync(metadata.create_all)
            found = await _read(connection)
            dead = [owner.id for owner in found if not owner.lives and owner.id != self._id]
            await _remove(connection, dead)
            # Where there are others, they are to see from its first claim on what it pays for.
            self._shared = shares or any(owner.lives and owner.id != self._id for owner in found)
            values = {
                "id": self._id,
                "place": _PLACE,
                "pid": os.getpid(),
                "born": _born(os.getpid()),
                "seen": database_time(self._dialect),
                "shares": self._shared,
            }
            if any(owner.id == self._id for owner in found):
                await connection.execute(update(owners).where(owners.c.id == self._id).values(values))
            else:
                await connection.execute(insert(owners).values(values))
            if self._held:
                listed = {"owner": self._id, "keys": _json(self._held)}
                taken = (await connection.execute(_TAKE[self._dialect], listed)).scalars()
                self._listed |= {bytes.fromhex(key) for key in taken}
        self._looked = self._renewed = time.time()

    async def _read_owners(self) -> list[_Owner]:
        async with self._transaction("read") as connection:
            return await _read(connection)

    @asynccontextmanager
    async def _owners(self, verb: str) -> AsyncIterator[AsyncConnection]:
        """A transaction in which nobody else comes or goes."""
        async with self._transaction(verb) as connection:
            lock = "BEGIN IMMEDIATE"
            if self._dialect == "postgresql":
                lock = f"SELECT pg_advisory_xact_lock({OWNERS_LOCK})"
            await connection.exec_driver_sql(lock)
            yield connection

    @asynccontextmanager
    async def _transaction(self, verb: str) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except Exception as error:
            raise LedgerError(
                f"the ledger {shown(self._engine.url)} cannot be {verb}: {reason(error)}; "
                "nothing more was paid for, and a re-run goes on from here"
            ) from error


async def _read(connection: AsyncConnection) -> list[_Owner]:
    found = await connection.execute(_owners_query(connection.dialect.name))
    return [_Owner(*row) for row in found.tuples()]


@cache
def _owners_query(dialect: str) -> Select[Any]:
    """Made once: SQLAlchemy's expressions refer to themselves, and this one is asked twice a second."""
    silent = database_time(dialect) - owners.c.seen
    return select(*(owners.c[name] for name in ("id", "place", "pid", "born", "shares")), silent)


async def _remove(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """Remove owners and all claims of those who are not listed."""
    await connection.execute(delete(owners).where(owners.c.id.in_(ids)))
    await connection.execute(delete(claims).where(claims.c.owner.not_in(select(owners.c.id))))


def _json(keys: Iterable[bytes]) -> str:
    return orjson.dumps([key.hex() for key in keys]).decode()


def _born(pid: int) -> int:
    """When a process was started, in the system's ticks; 0 where nobody can know, -1 where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        # Not every system has it, and some hide the processes of others.
        return _exists(pid)
    except OSError:
        return 0
    state, *fields = stat.rpartition(")")[2].split()
    return -1 if state in "ZX" else int(fields[18])


def _exists(pid: int) -> int:
    """0 when there is a process with this number, else -1."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass
    return 0


def _place() -> str:
    """Names the machine, and where process numbers are counted: containers of one machine have their own."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - it is no path
    return " ".join(parts)[:255]


_PLACE = _place()

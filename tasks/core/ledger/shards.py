"""The shards of a session in the ledger: what each has to do, who works on it, and how far it is.

Shards and their parent know each other through these rows alone. A row is held by whoever wrote its name
into it and says so again every few seconds; one that was silent for `LOST` seconds has lost it. All times
are the database's own: the machines' clocks may differ.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from tasks.core.ledger.schema import database_time, storable
from tasks.core.traffic.quota import WINDOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tasks.core.ledger.ledger import Ledger


LOST = 20.0
"""Seconds of silence after which whoever held a shard is taken for dead."""

PARENT = 0
"""The number of the parent's own row: a session has one parent at a time. Shards are counted from 1."""

metadata = MetaData()
"""Of its own: most ledgers never see a shard, and get no such table."""

shards = Table(
    "shards",
    metadata,
    Column("session", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("plan", String(64), nullable=False),
    Column("token", String(36), nullable=False),
    Column("settings", Text, nullable=False, server_default=""),
    Column("jobs", LargeBinary, nullable=False, server_default=""),
    Column("holder", String(64), nullable=False, server_default=""),
    Column("seen", Float),
    Column("ended", Float),
    Column("waits_until", Float, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("called_off", Boolean, nullable=False, server_default="0"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("spent", Text, nullable=False, server_default=""),
    Column("note", Text, nullable=False, server_default=""),
    comment="Parts of sessions that several machines work on; gone when their session has come to its end.",
)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as its parent sees it.

    Attributes:
        number: 1 for the first one.
        token: Names this division of the work: another one of the same session has another.
        holder: Who works on it, "" while nobody does.
        silent: Seconds since the holder was heard of last; None before the first time.
        ended: Whether it has done what it can.
        attempts: How often somebody was asked to work on it.
        done: Jobs that are finished, whatever came of them.
        failed: Those of them that failed.
        note: Why it ended before its jobs were done, "" otherwise.
    """

    number: int
    token: str
    holder: str
    silent: float | None
    ended: bool
    attempts: int
    done: int
    failed: int
    note: str

    @property
    def lost(self) -> bool:
        """Whether somebody worked on it and was not heard of for too long."""
        return not self.ended and bool(self.holder) and self.silent is not None and self.silent > LOST


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a shard is to do.

    Attributes:
        settings: The configuration as JSON, with this shard's part of the budget; "" while the work is not
            known yet.
        jobs: The jobs as packed by `session.adoption`.
        waits: Seconds for which no limited model may be asked: until then somebody else's requests count.
        spent: What was spent on this shard before, as `beat` was given it; "" for nothing.
        parent_silent: Seconds since the parent was heard of.
    """

    settings: str
    jobs: bytes
    waits: float
    spent: str
    parent_silent: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What a shard learns when it says that it is alive.

    Attributes:
        called_off: Whether it is to stop.
        sharers: Shards that the limits are divided among, this one included.
    """

    called_off: bool
    sharers: int


LAYING_LOCK = 0x7368617264
"""Number of the PostgreSQL advisory lock under which the table is made: the letters of `shard`."""


async def prepare(ledger: Ledger, session: str) -> None:
    """Make the table where there is none, and the parent's row in it.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LAYING_LOCK})")
        await connection.run_sync(metadata.create_all)
        row = {"session": session, "number": PARENT, "plan": "", "token": ""}
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        await connection.execute(dialect.insert(shards).values(row).on_conflict_do_nothing())


async def lead(ledger: Ledger, session: str, holder: str) -> float | None:
    """Hold the session's work as its parent, or say again that one does; after `prepare`.

    Returns:
        None when it is held now; else the seconds since whoever holds it was heard of.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        if await _hold(connection, _row(session, PARENT), holder):
            return None
        query = select(_now(connection) - shards.c.seen).where(_row(session, PARENT))
        return float((await connection.execute(query)).scalar_one())


async def invite(ledger: Ledger, session: str, number: int) -> list[Shard]:
    """Lay out shards whose work is not known yet, where there are none; who takes one on waits for `divide`.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        mine = (shards.c.session == session) & (shards.c.number != PARENT)
        there = (await connection.execute(select(func.count()).where(mine))).scalar_one()
        if there != number:
            await connection.execute(delete(shards).where(mine))
            token = str(uuid.uuid4())
            rows = [
                {"session": session, "number": each, "plan": "", "token": token}
                for each in range(1, number + 1)
            ]
            await connection.execute(insert(shards), rows)
        await connection.execute(update(shards).where(mine).values(called_off=False))
    return await look(ledger, session)


async def divide(
    ledger: Ledger, session: str, plan: str, parts: Sequence[tuple[str, bytes]], *, resting: bool
) -> list[Shard]:
    """Lay the shards out; those of the same plan that are at work go on, those invited get their work.

    All others are replaced.

    Args:
        ledger: The ledger.
        session: The session's id; whoever calls leads it.
        plan: What identifies the work and how it is divided.
        parts: Settings and packed jobs of each shard.
        resting: Whether the parent has asked limited models lately.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        others = (shards.c.session == session) & (shards.c.number != PARENT)
        query = select(shards.c.plan, shards.c.ended).where(others)
        rows = list((await connection.execute(query)).tuples())
        plans = {found for found, _ in rows}
        # Those that have all ended left something undone, or nobody would divide it again.
        lives = len(rows) == len(parts) and any(ended is None for _, ended in rows)
        if not (lives and plans == {plan}):
            named = {
                "plan": plan,
                "waits_until": _now(connection) + WINDOW if resting else 0.0,
            }
            if not (lives and plans == {""}):
                await connection.execute(delete(shards).where(others))
                token = str(uuid.uuid4())
                for number in range(1, len(parts) + 1):
                    row = {"session": session, "number": number, "plan": plan, "token": token}
                    await connection.execute(insert(shards).values(row))
            for number, (settings, jobs) in enumerate(parts, 1):
                values = named | {"settings": settings, "jobs": jobs}
                await connection.execute(update(shards).where(_row(session, number)).values(values))
        # A parent before this one may have called them off.
        mine = (shards.c.session == session) & shards.c.ended.is_(None)
        await connection.execute(update(shards).where(mine).values(called_off=False))
    return await look(ledger, session)


async def look(ledger: Ledger, session: str) -> list[Shard]:
    """All shards of a session, in one query.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    columns = shards.c
    async with ledger.transaction("read") as connection:
        silent = _now(connection) - columns.seen
        query = select(
            columns.number,
            columns.token,
            columns.holder,
            silent,
            columns.ended.is_not(None),
            columns.attempts,
            columns.done,
            columns.failed,
            columns.note,
        )
        query = query.where(columns.session == session, columns.number != PARENT).order_by(columns.number)
        return [Shard(*row) for row in (await connection.execute(query)).tuples()]


async def ask_anew(ledger: Ledger, session: str, shard: Shard) -> int:
    """Note that somebody is asked to work on a shard; returns how often that was done so far.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        again: dict[str, Any] = {"attempts": shard.attempts + 1}
        if shard.attempts:
            # Whoever had it may have asked the models up to now.
            again |= {"holder": "", "waits_until": _now(connection) + WINDOW}
        await connection.execute(update(shards).where(_row(session, shard.number)).values(again))
    return shard.attempts + 1


async def claim(ledger: Ledger, session: str, number: int, holder: str) -> Assignment | None:
    """Take a shard on, or ask again what it is to do.

    Returns:
        None when there is no such shard, it has ended or was called off, or somebody else works on it.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        wanted = _row(session, number) & shards.c.called_off.is_(False)
        if not await _hold(connection, wanted, holder):
            return None
        columns = shards.c
        waits = columns.waits_until - _now(connection)
        seen = select(columns.seen).where(_row(session, PARENT)).scalar_subquery()
        query = select(
            columns.settings,
            columns.jobs,
            waits,
            columns.spent,
            _now(connection) - seen,
        )
        row = (await connection.execute(query.where(_row(session, number)))).one()
        settings, jobs, seconds, spent, silent = row
        return Assignment(settings, jobs, max(0.0, float(seconds)), spent, float(silent or 0.0))


async def beat(
    ledger: Ledger, session: str, number: int, holder: str, *, done: int, failed: int, spent: str
) -> Heard | None:
    """Say that one is alive and how far; None when the shard is no longer one's own.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        values = {
            "seen": _now(connection),
            "done": done,
            "failed": failed,
            "spent": spent,
        }
        mine = _row(session, number) & (shards.c.holder == holder) & shards.c.ended.is_(None)
        told = update(shards).where(mine).values(values).returning(shards.c.called_off)
        row = (await connection.execute(told)).first()
        if row is None:
            return None
        # What an ended one sent lately still counts where requests are counted by the minute.
        counts = shards.c.ended.is_(None) | (shards.c.ended > _now(connection) - WINDOW)
        query = select(func.count()).where(shards.c.session == session, shards.c.number != PARENT, counts)
        return Heard(bool(row[0]), int((await connection.execute(query)).scalar_one()))


async def end(ledger: Ledger, session: str, number: int, holder: str, note: str = "") -> None:
    """Note that a shard has done what it can, and why that is not all.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        values = {"ended": _now(connection), "note": storable(note)}
        mine = _row(session, number) & (shards.c.holder == holder)
        await connection.execute(update(shards).where(mine).values(values))


async def release(ledger: Ledger, session: str, number: int, holder: str) -> None:
    """Give a shard, or the parent's place, back: somebody else may take it on at once.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        mine = _row(session, number) & (shards.c.holder == holder)
        await connection.execute(update(shards).where(mine).values(holder=""))


async def call_off(ledger: Ledger, session: str) -> None:
    """Tell all shards of a session to stop.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        await connection.execute(update(shards).where(shards.c.session == session).values(called_off=True))


async def clear(ledger: Ledger, session: str) -> None:
    """Forget the shards of a session, and who leads it.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        await connection.execute(delete(shards).where(shards.c.session == session))


async def _hold(connection: AsyncConnection, wanted: ColumnElement[bool], holder: str) -> bool:
    now = _now(connection)
    free = shards.c.holder.in_(("", holder)) | (shards.c.seen < now - LOST)
    held = update(shards).where(wanted, free, shards.c.ended.is_(None))
    return (await connection.execute(held.values(holder=holder, seen=now))).rowcount == 1


def _row(session: str, number: int) -> ColumnElement[bool]:
    return (shards.c.session == session) & (shards.c.number == number)


def _now(connection: AsyncConnection) -> ColumnElement[float]:
    return database_time(connection.dialect.name)

"""What is rarely read or written in the ledger: its sessions, and calls as whole rows."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Float, case, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tasks.core.cost import Bill, Observed, Sums, Usage
from tasks.core.ledger.schema import calls, sessions, unpack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tasks.core.exchange.request import Answer
    from tasks.core.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as the ledger knows it.

    Attributes:
        id: Its UUID.
        name: Its folder's name.
        flow_run: The Prefect flow run that began it, "" when unknown.
        record: Its record as JSON.
        jobs: Its jobs as packed by `session.adoption`, when they were taken over; else None.
    """

    id: str
    name: str
    flow_run: str
    record: str
    jobs: bytes | None = None


async def put_session(ledger: Ledger, row: SessionRow) -> None:
    """Record a session, or what is new of it; jobs that are there stay when the row has none.

    A flow run has one session: an earlier one, whose folder is gone, is no longer found by it.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    values = asdict(row)
    changed = {key: value for key, value in values.items() if key != "id" and value is not None}
    async with ledger.transaction("written") as connection:
        if row.flow_run:
            others = (sessions.c.flow_run == row.flow_run) & (sessions.c.id != row.id)
            await connection.execute(update(sessions).where(others).values(flow_run=""))
        statement = _insert(connection, sessions).values(values)
        await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))


async def find_session_row(ledger: Ledger, session: str = "", *, flow_run: str = "") -> SessionRow | None:
    """The session with this id, or the one that this flow run began; None when there is none.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    condition = sessions.c.id == session if session else sessions.c.flow_run == flow_run
    async with ledger.transaction("read") as connection:
        found = (await connection.execute(select(sessions).where(condition))).mappings().first()
    return None if found is None else SessionRow(**found)


async def session_rows_named(ledger: Ledger, name: str) -> list[SessionRow]:
    """The sessions whose folder has this name: several, when output folders share the ledger.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    async with ledger.transaction("read") as connection:
        found = (await connection.execute(select(sessions).where(sessions.c.name == name))).mappings()
        return [SessionRow(**row) for row in found]


async def call_rows(ledger: Ledger, keys: Sequence[bytes]) -> list[dict[str, Any]]:
    """Calls as the table holds them, in the order of their keys; those that are not there are left out.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    async with ledger.transaction("read") as connection:
        query = select(calls).where(calls.c.key.in_(keys)).order_by(calls.c.key)
        found = (await connection.execute(query)).mappings()
        return [{str(name): value for name, value in row.items()} for row in found]


async def put_call_rows(ledger: Ledger, rows: Sequence[dict[str, Any]]) -> None:
    """Keep calls that came as whole rows; those that are there already stay as they are.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    if not rows:
        return
    async with ledger.transaction("written") as connection:
        ordered = sorted(rows, key=lambda row: bytes(row["key"]))
        await connection.execute(_insert(connection, calls).on_conflict_do_nothing(), ordered)


async def spent_by(ledger: Ledger, session: str) -> Bill:
    """What the session with this id paid for, over all its runs.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    unreported = calls.c.prompt_tokens.is_(None) | calls.c.completion_tokens.is_(None)
    query = (
        select(
            calls.c.model,
            calls.c.purpose,
            func.count(),
            func.coalesce(func.sum(calls.c.prompt_tokens), 0),
            func.coalesce(func.sum(calls.c.completion_tokens), 0),
            func.coalesce(func.sum(calls.c.cached_tokens), 0),
            func.coalesce(func.sum(case((unreported, 1))), 0),
            func.coalesce(func.sum(calls.c.estimated_tokens), 0),
        )
        .where(calls.c.session == session)
        .group_by(calls.c.model, calls.c.purpose)
    )
    bill = Bill()
    async with ledger.transaction("read") as connection:
        for model, purpose, *sums in await connection.execute(query):
            bill.add(model, purpose, Usage(*map(int, sums)))
    return bill


async def observed_calls(ledger: Ledger, but: Sequence[bytes] = ()) -> dict[tuple[str, str], Observed]:
    """The calls whose usage was reported, whoever paid for them, by model and purpose.

    Args:
        ledger: The ledger.
        but: Keys of calls that are left out, few.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    tokens = [cast(column, Float) for column in (calls.c.prompt_tokens, calls.c.completion_tokens)]
    query = (
        select(
            calls.c.model,
            calls.c.purpose,
            func.count(),
            *(func.sum(column) for column in tokens),
            *(func.sum(column * column) for column in tokens),
            func.coalesce(func.sum(calls.c.cached_tokens), 0),
        )
        .where(calls.c.prompt_tokens.is_not(None), calls.c.completion_tokens.is_not(None))
        .where(calls.c.key.not_in(but))
        .group_by(calls.c.model, calls.c.purpose)
    )
    async with ledger.transaction("read") as connection:
        return {
            (model, purpose): Observed(
                Sums(count, asked, asked_squares), Sums(count, said, said_squares), int(cached), count
            )
            for model, purpose, count, asked, said, asked_squares, said_squares, cached in (
                await connection.execute(query)
            )
        }


async def earlier_answers(
    ledger: Ledger, roles: Mapping[str, Sequence[str]], endpoint: str, model: str
) -> AsyncIterator[Answer]:
    """Some answers to calls of these purposes that a model gave at this address, the newest session's first.

    The ledger's rows do not say where a model was asked: the settings of their sessions do.

    Args:
        ledger: The ledger.
        roles: The sections under `[models]` that answer calls of a purpose, by purpose.
        endpoint: Base URL without a slash at the end.
        model: The model's name.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    query = select(sessions.c.id, sessions.c.record).where(
        sessions.c.record.contains(endpoint, autoescape=True)
    )
    async with ledger.transaction("read") as connection:
        found = (await connection.execute(query)).tuples().all()
    asked = []
    for session, packed in found:
        created, purposes = _asked(packed, roles, endpoint, model)
        if purposes:
            asked.append((created, session, purposes))
    for _, session, purposes in sorted(asked, reverse=True)[:FEW_SESSIONS]:
        of_them = calls.c.session == session, calls.c.model == model, calls.c.purpose.in_(purposes)
        async with ledger.transaction("read") as connection:
            some = select(calls.c.answer).where(*of_them).limit(FEW_ANSWERS)
            rows = (await connection.execute(some)).scalars().all()
        for row in rows:
            with suppress(ValueError):
                yield unpack(row)


def _asked(
    packed: str, roles: Mapping[str, Sequence[str]], endpoint: str, model: str
) -> tuple[float, list[str]]:
    """When a session was made, and the purposes for which it asks the model at this address."""
    try:
        record = orjson.loads(packed)
        models = record["settings"]["models"]
        places = {
            role: (given["base_url"].rstrip("/"), given["model_name"])
            for role, given in models.items()
            if given
        }
        created = float(record["created"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0.0, []  # Of another version, or from elsewhere and damaged: nothing is known of it.
    there = {role for role, place in places.items() if place == (endpoint, model)}
    return created, [purpose for purpose, answering in roles.items() if not there.isdisjoint(answering)]


async def count_calls(ledger: Ledger) -> int:
    """How many calls the ledger holds.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    async with ledger.transaction("read") as connection:
        return int((await connection.execute(select(func.count()).select_from(calls))).scalar_one())


@dataclass(frozen=True, slots=True)
class CallMark:
    """Whose call it is, and what for: a row without its answer."""

    key: bytes
    purpose: str
    model: str
    session: str


async def call_keys(ledger: Ledger) -> set[bytes]:
    """The keys of all calls that are there now.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    async with ledger.transaction("read") as connection:
        return set((await connection.execute(select(calls.c.key))).scalars())


async def call_marks(ledger: Ledger, keys: Container[bytes]) -> list[CallMark]:
    """What is known of these calls without their answers.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    columns = calls.c.key, calls.c.purpose, calls.c.model, calls.c.session
    async with ledger.transaction("read") as connection:
        found = (await connection.execute(select(*columns))).tuples()
        return [CallMark(*row) for row in found if row[0] in keys]


async def session_rows(ledger: Ledger) -> list[SessionRow]:
    """All sessions that used the ledger, without the jobs that they took over.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    async with ledger.transaction("read") as connection:
        return await _session_rows(connection)


async def _session_rows(connection: AsyncConnection) -> list[SessionRow]:
    columns = sessions.c.id, sessions.c.name, sessions.c.flow_run, sessions.c.record
    return [SessionRow(*row) for row in (await connection.execute(select(*columns))).tuples()]


async def remove_calls(
    ledger: Ledger,
    marks: Sequence[CallMark],
    spares: Callable[[Sequence[SessionRow]], Callable[[CallMark], bool]],
    *,
    dry_run: bool,
) -> int:
    """Remove calls, some at a time; returns how many there are, also when only counting.

    A session records itself in the ledger before it looks for an answer. While it is decided what goes, and
    until that is gone, nobody else writes: so whoever begins meanwhile looks afterwards.

    Args:
        ledger: The ledger.
        marks: The calls.
        spares: Made of all sessions as they are now: whether a call stays all the same.
        dry_run: Whether nothing is removed.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    gone = 0
    for start in range(0, len(marks), MARKS_AT_ONCE):
        async with ledger.transaction("written") as connection:
            await _write_alone(connection)
            stays = spares(await _session_rows(connection))
            keys = [mark.key for mark in marks[start : start + MARKS_AT_ONCE] if not stays(mark)]
            gone += len(keys)
            for place in range(0, 0 if dry_run else len(keys), KEYS_AT_ONCE):
                piece = keys[place : place + KEYS_AT_ONCE]
                await connection.execute(delete(calls).where(calls.c.key.in_(piece)))
    return gone


async def _write_alone(connection: AsyncConnection) -> None:
    """Let nobody else write to sessions and calls until the transaction ends."""
    await connection.exec_driver_sql(
        "BEGIN IMMEDIATE"
        if connection.dialect.name == "sqlite"
        else f"LOCK TABLE {sessions.name}, {calls.name} IN SHARE ROW EXCLUSIVE MODE"
    )


MARKS_AT_ONCE = 10_000
"""Calls that are removed in one transaction: runs wait for its end, and not for long."""

KEYS_AT_ONCE = 500
FEW_SESSIONS = 20
FEW_ANSWERS = 8


def _insert(connection: AsyncConnection, table: Any) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)

"""What is rarely read or written in the ledger: its sessions, and calls as whole rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, case, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tasks.core.cost import Bill, Observed, Sample, Usage
from tasks.core.llm.ledger_schema import calls, sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tasks.core.llm.ledger import Ledger


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


async def observed_calls(ledger: Ledger) -> dict[tuple[str, str], Observed]:
    """The calls whose usage was reported, whoever paid for them, by model and purpose.

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
        .group_by(calls.c.model, calls.c.purpose)
    )
    async with ledger.transaction("read") as connection:
        return {
            (model, purpose): Observed(
                Sample(count, asked, asked_squares), Sample(count, said, said_squares), int(cached), count
            )
            for model, purpose, count, asked, said, asked_squares, said_squares, cached in (
                await connection.execute(query)
            )
        }


async def count_calls(ledger: Ledger) -> int:
    """How many calls the ledger holds.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    async with ledger.transaction("read") as connection:
        return int((await connection.execute(select(func.count()).select_from(calls))).scalar_one())


async def remove_calls_but(ledger: Ledger, used: set[bytes], *, dry_run: bool) -> int:
    """Remove the calls whose keys are not in `used`; returns how many there are, also when only counting.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    async with ledger.transaction("written") as connection:
        unused = [key for key in (await connection.execute(select(calls.c.key))).scalars() if key not in used]
        if not dry_run:
            for start in range(0, len(unused), KEYS_AT_ONCE):
                piece = unused[start : start + KEYS_AT_ONCE]
                await connection.execute(delete(calls).where(calls.c.key.in_(piece)))
    return len(unused)


KEYS_AT_ONCE = 500


def _insert(connection: AsyncConnection, table: Any) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)

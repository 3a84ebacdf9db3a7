"""What the ledger lists of things that could not be done, session by session."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, or_, select

from tasks.core.ledger.schema import failures
from tasks.core.models import QUESTION_REFUSED, Failure, Phase, Purpose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select

    from tasks.core.ledger.ledger import Ledger


ONCE_FINAL = frozenset({400, 403, 413, 422, 451})
"""Statuses by which older versions took a question for refused for good, and replaced it."""

_IS_REFUSAL = or_(failures.c.cause == QUESTION_REFUSED, failures.c.status.in_(ONCE_FINAL))


async def failures_of(ledger: Ledger, session: str) -> dict[str, int]:
    """Failures that were listed for the session with this id, by cause.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    query = (
        select(failures.c.cause, func.count())
        .where(failures.c.session == session)
        .group_by(failures.c.cause)
        .order_by(failures.c.cause)
    )
    async with ledger.transaction("read") as connection:
        return {cause: int(count) for cause, count in (await connection.execute(query)).tuples()}


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures that are alike.

    Attributes:
        phase: Where they happened.
        purpose: The call that failed.
        cause: The stable word of `CallError.cause`.
        attempts: Attempts that each of them took.
        count: How many they are.
    """

    phase: Phase
    purpose: Purpose
    cause: str
    attempts: int
    count: int


async def failure_groups(ledger: Ledger, session: str) -> list[FailureGroup]:
    """Failures that were listed for the session with this id, by phase, call, cause and attempts.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    alike = [failures.c[name] for name in ("phase", "purpose", "cause", "attempts")]
    query = select(*alike, func.count()).where(failures.c.session == session).group_by(*alike)
    async with ledger.transaction("read") as connection:
        found = [
            FailureGroup(Phase(phase), Purpose(purpose), cause, attempts, count)
            for phase, purpose, cause, attempts, count in (await connection.execute(query)).tuples()
        ]
    order = list(Phase), list(Purpose)
    return sorted(
        found,
        key=lambda group: (
            order[0].index(group.phase),
            order[1].index(group.purpose),
            -group.count,
            group.cause,
            group.attempts,
        ),
    )


async def last_failures(ledger: Ledger, session: str, since: float, most: int) -> list[Failure]:
    """Failures that were listed for the session with this id, in the order in which they were listed.

    Args:
        ledger: The ledger.
        session: The session's id.
        since: Those from this time on, in seconds since 1970.
        most: So many at most.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    return await _listed(ledger, session, failures.c.at >= since, most=most)


async def failures_by_request(ledger: Ledger, session: str) -> dict[bytes, Failure]:
    """What failed in the session with this id, by the ledger key of its request, as last listed.

    Some of it may have been answered since: the ledger knows.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    listed = await _listed(ledger, session, failures.c.id.in_(_last(session)))
    return {bytes.fromhex(failure.request): failure for failure in listed}


async def refused_questions(ledger: Ledger, session: str) -> dict[bytes, Failure]:
    """The questions that a server refused, by their ledger key, as last listed; each with the same cause.

    Nothing of them is in the ledger, and yet a session that has other pairs in their place must leave them
    alone; see `session.resuming.settled_refusals`.

    Args:
        ledger: The ledger.
        session: The session's id.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    listed = await _listed(ledger, session, failures.c.id.in_(_last(session)) & _IS_REFUSAL)
    return {bytes.fromhex(item.request): replace(item, cause=QUESTION_REFUSED) for item in listed}


async def refusal_rows(ledger: Ledger, session: str) -> list[dict[str, Any]]:
    """What `refused_questions` gives as the table holds it, less its ids and the session, by request.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    columns = [column for column in failures.c if column.name not in {"id", "session"}]
    query = (
        select(*columns).where(failures.c.id.in_(_last(session)), _IS_REFUSAL).order_by(failures.c.request)
    )
    async with ledger.transaction("read") as connection:
        found = (await connection.execute(query)).mappings()
        return [{str(name): value for name, value in row.items()} for row in found]


async def put_refusal_rows(ledger: Ledger, session: str, rows: Sequence[dict[str, Any]]) -> None:
    """List the refusals of a session that came from elsewhere as `refusal_rows` gives them, each once.

    Where the ledger lists something of the same request that is as late or later, that stays the last.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    if not rows:
        return
    query = (
        select(failures.c.request, func.max(failures.c.at))
        .where(failures.c.session == session)
        .group_by(failures.c.request)
    )
    async with ledger.transaction("written") as connection:
        known = dict((await connection.execute(query)).tuples().all())
        fresh = [row | {"session": session} for row in rows if known.get(row["request"], -inf) < row["at"]]
        if fresh:
            await connection.execute(insert(failures), fresh)


def _last(session: str) -> Select[tuple[int]]:
    """The ids of what was listed last of each request of a session."""
    known = (failures.c.session == session) & (failures.c.request != "")
    return select(func.max(failures.c.id)).where(known).group_by(failures.c.request)


async def _listed(
    ledger: Ledger, session: str, which: ColumnElement[bool], *, most: int | None = None
) -> list[Failure]:
    wanted = [failures.c[field.name] for field in fields(Failure)]
    query = select(*wanted).where(failures.c.session == session, which).order_by(failures.c.id).limit(most)
    async with ledger.transaction("read") as connection:
        rows = (await connection.execute(query)).mappings()
        return [
            Failure(**{**row, "phase": Phase(row["phase"]), "purpose": Purpose(row["purpose"])})
            for row in rows
        ]

"""Looks behind the ledger's back: plain SQL on its database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tasks.core.ledger.schema import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row


async def sql(url: str, statement: str, **values: Any) -> Sequence[Row[Any]]:
    """Run one statement in a transaction and a connection of its own; the rows it gives, if it gives any."""
    engine = connect(url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []
    finally:
        await engine.dispose()


async def administer(server: str, statement: str) -> None:
    """Run what PostgreSQL allows only outside of transactions."""
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()

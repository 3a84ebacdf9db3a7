"""The ledger's database: which one, how it is opened, and how its errors read."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tasks.core.errors import LedgerError
from tasks.core.llm.ledger_schema import SCHEMA_VERSION, about

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tasks.core.config.models import Config

BUSY_TIMEOUT = 60.0
"""Seconds that a commit waits for another process which is writing to the same SQLite file."""

FILE_NAME = "ledger.db"


def ledger_url(config: Config) -> str:
    """The ledger's URL: `output.ledger`, or `ledger.db` in the output folder."""
    return config.output.ledger or f"sqlite:///{Path(config.output.folder) / FILE_NAME}"


def connect(url: str) -> AsyncEngine:
    """An engine for the database at `url`; the folder of an SQLite file is made.

    Raises:
        LedgerError: The folder cannot be made.
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return create_async_engine(address)
    if address.database:
        folder = Path(address.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"the ledger's folder {folder} cannot be made: {error.strerror}") from error
    engine = create_async_engine(address.set(drivername="sqlite+aiosqlite"))
    event.listen(engine.sync_engine, "connect", _make_durable)
    return engine


async def identify(connection: AsyncConnection) -> str:
    """The ledger's own id, made when it is new.

    Raises:
        LedgerError: The tables are those of a newer version.
    """
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(about)
    fresh = [{"name": "id", "value": str(uuid.uuid4())}, {"name": "version", "value": str(SCHEMA_VERSION)}]
    await connection.execute(insert.on_conflict_do_nothing(), fresh)
    rows = (await connection.execute(select(about.c.name, about.c.value))).tuples()
    values: dict[str, str] = {name: value for name, value in rows}  # noqa: C416 - typed as what it is
    if values["version"] != str(SCHEMA_VERSION):
        raise LedgerError(
            f"the ledger was written by another version (tables {values['version']}, here {SCHEMA_VERSION}); "
            "use that version, or another ledger"
        )
    return values["id"]


def _make_durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}")
    cursor.close()


def shown(url: str) -> str:
    """A URL as it may be shown: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """The driver's own words, without SQLAlchemy's statement and parameters."""
    return " ".join(str(getattr(error, "orig", None) or error).split())

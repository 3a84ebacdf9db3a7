"""The ledger's database: which one, how it is opened, and how its errors read."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, event, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from tasks.core.errors import LedgerError
from tasks.core.llm.ledger_schema import OLDER_VERSIONS, SCHEMA_VERSION, about, metadata, migrate

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tasks.core.config.models import Config

BUSY_TIMEOUT = 60.0
"""Seconds that a commit waits for another process which is writing to the same SQLite file."""

OPENING_LOCK = 0x76656C6C756D
"""Number of the PostgreSQL advisory lock under which tables are made: the letters of `vellum`."""

FILE_NAME = "ledger.db"

CARE = (
    "it was left as it is: `vellumforge2 ledger check` says what is damaged, "
    "and `vellumforge2 ledger salvage --into NEW` saves what can be read"
)
"""What helps when an SQLite file is damaged."""


def ledger_url(config: Config) -> URL:
    """The ledger's URL: `output.ledger`, or `ledger.db` in the output folder.

    Raises:
        LedgerError: `output.ledger` is no URL of a database.
    """
    if config.output.ledger:
        try:
            return make_url(config.output.ledger)
        except (SQLAlchemyError, ValueError):
            # Without its cause, which may show a password.
            raise LedgerError("output.ledger is not a valid database URL; check its port and path") from None
    # Not put together as a string: a `?` in the folder's name would begin a query.
    return URL.create("sqlite", database=str(Path(config.output.folder) / FILE_NAME))


def connect(url: str | URL) -> AsyncEngine:
    """An engine for the database at `url`; an SQLite file and its folder are made.

    Raises:
        LedgerError: The folder or the file cannot be made.
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        # Between two commits of a slow run, a server or a firewall may drop the connection.
        return create_async_engine(address, pool_pre_ping=True)
    if address.database:
        folder = Path(address.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"the ledger's folder {folder} cannot be made: {error.strerror}") from error
        try:
            # Tried here, because a failure of aiosqlite's leaves a thread that may outlive the event loop.
            sqlite3.connect(address.database).close()
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger {address.database} cannot be opened: {reason(error)}") from error
    engine = create_async_engine(address.set(drivername="sqlite+aiosqlite"))
    event.listen(engine.sync_engine, "connect", _make_durable)
    return engine


async def prepare(engine: AsyncEngine) -> str:
    """Make the tables where there are none, and those of older versions this one's.

    Returns:
        The ledger's own id, made when it is new.

    Raises:
        LedgerError: The database cannot be reached, is none, or was written by another version.
    """
    try:
        async with engine.begin() as connection:
            # One at a time: of two runs that make the same table at once, one would fail.
            await connection.exec_driver_sql(
                "BEGIN IMMEDIATE"
                if connection.dialect.name == "sqlite"
                else f"SELECT pg_advisory_xact_lock({OPENING_LOCK})"
            )
            await connection.run_sync(metadata.create_all)
            return await _identify(connection)
    except LedgerError:
        raise
    except Exception as error:  # While connecting, drivers raise errors that SQLAlchemy does not wrap.
        raise LedgerError(f"the ledger {shown(engine.url)} cannot be opened: {reason(error)}") from error


async def _identify(connection: AsyncConnection) -> str:
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(about)
    fresh = [{"name": "id", "value": str(uuid.uuid4())}, {"name": "version", "value": str(SCHEMA_VERSION)}]
    await connection.execute(insert.on_conflict_do_nothing(), fresh)
    rows = (await connection.execute(select(about.c.name, about.c.value))).tuples()
    values: dict[str, str] = {name: value for name, value in rows}  # noqa: C416 - typed as what it is
    if values["version"] in OLDER_VERSIONS:
        await connection.run_sync(migrate)
    elif values["version"] != str(SCHEMA_VERSION):
        raise LedgerError(
            f"the ledger was written by another version (tables {values['version']}, here {SCHEMA_VERSION}); "
            "use that version, or another ledger"
        )
    return values["id"]


def _make_durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def shown(url: str | URL) -> str:
    """A URL as it may be shown: without its password, and without its query, which may hold one too."""
    return make_url(url).set(query={}).render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """The driver's own words, without SQLAlchemy's statement and parameters; of damage, what helps."""
    cause = getattr(error, "orig", None) or error
    words = " ".join(str(cause).split())
    return f"{words}; {CARE}" if _is_damage(cause) else words


def _is_damage(error: BaseException) -> bool:
    """Whether SQLite found its file damaged, or to be no database at all."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    # Above the lowest byte, a code says more closely what is damaged.
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

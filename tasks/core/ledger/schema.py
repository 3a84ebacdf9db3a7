"""The ledger's tables, and its database: which one, how it is opened, and how its errors read."""

from __future__ import annotations

import os
import sqlite3
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    func,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from tasks.core.cost import Usage, tokens_for
from tasks.core.errors import LedgerError
from tasks.core.exchange.request import Answer
from tasks.core.printable import reason_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import ChatRequest


SCHEMA_VERSION = 2
"""2 added `cached_tokens` and `estimated_tokens` to `calls`."""

OLDER_VERSIONS = frozenset({"1"})
"""Versions whose tables `migrate` makes those of this one."""

COMPRESS_FROM = 1024
"""Bytes from which a packed answer is compressed; below, zlib saves less than it costs."""

metadata = MetaData()

about = Table(
    "about",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
    comment="The ledger's own id and the version of its tables.",
)

calls = Table(
    "calls",
    metadata,
    Column("key", LargeBinary(32), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("model", Text, nullable=False),
    Column("session", String(64), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("finished", Float, nullable=False),
    Column("cached_tokens", BigInteger),
    # By the length of question and answer, where the server reported no tokens; else NULL.
    Column("estimated_tokens", BigInteger),
    Index("calls_by_session", "session"),
    comment="One row for each answer that was paid for, under the key of its request.",
)

failures = Table(
    "failures",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("item", Text, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("cause", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("status", Integer),
    Column("attempts", Integer, nullable=False),
    Column("request", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Index("failures_by_session", "session"),
    comment="What could not be done; a failure never counts as done.",
)

milestones = Table(
    "milestones",
    metadata,
    Column("question", LargeBinary(32), primary_key=True),
    Column("target", Integer, primary_key=True),
    comment="Counts that a list was once grown to: a longer list is grown along the same path, for free.",
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("flow_run", String(36), nullable=False),
    Column("record", Text, nullable=False),
    Column("jobs", LargeBinary),
    Index("sessions_by_flow_run", "flow_run"),
    comment="The sessions that used this ledger; the jobs of those that took them over from elsewhere.",
)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A paid call on its way into the ledger: its request, its answer, and the session that paid."""

    request: ChatRequest
    answer: Answer
    session: str

    def row(self) -> dict[str, Any]:
        """The entry as a row of `calls`."""
        answer = self.answer
        usage = usage_of(self.request, answer)
        return {
            "key": self.request.key,
            "purpose": str(self.request.purpose),
            "model": self.request.model,
            "session": self.session,
            "answer": pack(answer),
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "finished": answer.finished,
            "cached_tokens": answer.cached_tokens,
            "estimated_tokens": usage.estimated_tokens if usage.unreported else None,
        }


def migrate(connection: Connection) -> None:
    """Make an older version's tables this one's, in the transaction under whose lock the ledger is opened.

    Who has the ledger open with that version goes on: it names the columns that it writes.
    """
    # Looked for, because a ledger that was salvaged has them already.
    there = {column["name"] for column in inspect(connection).get_columns(calls.name)}
    for column in (calls.c.cached_tokens, calls.c.estimated_tokens):
        if column.name not in there:
            connection.exec_driver_sql(f"ALTER TABLE {calls.name} ADD COLUMN {column.name} BIGINT")
    values = {"value": str(SCHEMA_VERSION)}
    connection.execute(update(about).where(about.c.name == "version").values(values))


def storable(text: str) -> str:
    """A text as every database takes it, with NUL and halves of surrogate pairs replaced."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def pack(answer: Answer) -> bytes:
    """An answer as bytes: JSON, compressed when long. The first byte tells which."""
    plain = orjson.dumps(answer)
    return zlib.compress(plain, 1) if len(plain) >= COMPRESS_FROM else plain


def unpack(packed: bytes) -> Answer:
    """The answer that `pack` packed.

    Raises:
        ValueError: The bytes are damaged.
    """
    try:
        plain = packed if packed[:1] == b"{" else zlib.decompress(packed)
        return Answer(**orjson.loads(plain))
    except (zlib.error, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"a damaged answer: {error}") from error


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
    return usual_url(Path(config.output.folder))


def usual_url(folder: Path) -> URL:
    """The URL of the ledger in an output folder, where no setting names another."""
    # Not put together as a string: a `?` in the folder's name would begin a query.
    return URL.create("sqlite", database=str(folder / FILE_NAME))


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
            # SQLite's own mode would be for its owner alone to write, whatever the umask allows.
            os.close(os.open(address.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise LedgerError(f"the ledger {address.database} cannot be opened: {error.strerror}") from error
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


def database_time(dialect: str) -> ColumnElement[float]:
    """Seconds since the epoch, by the clock of a database of this dialect: the machines' may differ."""
    if dialect == "postgresql":
        return func.extract("epoch", func.clock_timestamp()).cast(Float)
    # julianday counts in days, from noon of a day long ago.
    return (func.julianday("now") - 2440587.5) * 86400.0


def shown(url: str | URL) -> str:
    """A URL as it may be shown: without its password, and without its query, which may hold one too."""
    return make_url(url).set(query={}).render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """The driver's own words, without SQLAlchemy's statement and parameters; of damage, what helps."""
    cause = getattr(error, "orig", None) or error
    words = reason_of(cause)
    return f"{words}; {CARE}" if _is_damage(cause) else words


def _is_damage(error: BaseException) -> bool:
    """Whether SQLite found its file damaged, or to be no database at all."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    # Above the lowest byte, a code says more closely what is damaged.
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def usage_of(request: ChatRequest, answer: Answer) -> Usage:
    """The usage of a call that was answered."""
    missing = 0
    if answer.prompt_tokens is None:
        missing += tokens_for(sum(len(content) for _, content in request.messages))
    if answer.completion_tokens is None:
        missing += tokens_for(len(answer.content) + len(answer.reasoning))
    prompt_tokens = answer.prompt_tokens or 0
    return Usage(
        calls=1,
        prompt_tokens=prompt_tokens,
        completion_tokens=answer.completion_tokens or 0,
        cached_tokens=min(answer.cached_tokens or 0, prompt_tokens),
        unreported=int(answer.prompt_tokens is None or answer.completion_tokens is None),
        estimated_tokens=missing,
    )

"""The ledger's tables, and how an answer is packed into a row."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import (
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
    inspect,
    update,
)

from tasks.core.llm.types import Answer
from tasks.core.llm.usage import usage_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.core.llm.types import ChatRequest

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

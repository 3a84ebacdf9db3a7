"""The table of shards, and what its rows say to parents and to shards."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

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

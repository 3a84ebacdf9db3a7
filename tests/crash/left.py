"""What a killed run left behind: its sessions, and the answers in its ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tasks.core.session.record import FILE_NAME as RECORD
from tasks.core.session.record import read_record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import User


def sessions_of(user: User) -> list[Path]:
    """The session folders; one that was killed before it said what it is has nothing, and is none."""
    return [session for session in user.sessions() if (session / RECORD).exists()]


def is_complete(user: User) -> bool:
    """Whether one of the sessions says that it is complete."""
    return any((record := read_record(session)) and record.complete for session in sessions_of(user))


def opened_at(user: User) -> int:
    """When a session's record was last written: a run does it when it opens the session; 0 for never."""
    return max(((session / RECORD).stat().st_mtime_ns for session in sessions_of(user)), default=0)


def kept_calls(user: User) -> set[str]:
    """The keys of the calls whose answers are in the ledger."""
    path = user.folder / "output" / "ledger.db"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchall():
            return set()
        return {key.hex() for (key,) in database.execute("SELECT key FROM calls")}

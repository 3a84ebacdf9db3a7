"""The ledger opened for sessions that rely on it, pruned of what none uses, and their work and means divided.

A ledger that was emptied is damage, and never a new one. What is pruned was there before anybody looked who
uses it, and is used by none; of what a session at work may ask, nothing is pruned.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from tasks.core import files
from tasks.core.config.settings import Output, all_models
from tasks.core.cost import Bill, Usage
from tasks.core.errors import LedgerError, SessionError, UsageError
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.sessions import call_keys, call_marks, remove_calls, session_rows
from tasks.core.printable import printable_line
from tasks.core.rows.transformed import MODES
from tasks.core.session.adoption import pack_jobs
from tasks.core.session.folder import all_sessions, is_locked
from tasks.core.session.record import (
    FILE_NAME,
    read_record,
    record_of,
    restore_record,
    settings_of,
)
from tasks.core.session.resuming import find_resumption, survey_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import URL

    from tasks.core.chat.budget import SessionBudget
    from tasks.core.config.settings import Budget, Config
    from tasks.core.ledger.sessions import CallMark, SessionRow
    from tasks.core.models import Job
    from tasks.core.session.record import SessionRecord


async def open_ledger(url: str | URL, output: Path) -> Ledger:
    """Open the ledger at `url`, and make it when there is none.

    To SQLite an empty file is a new database. Here it is one only when nothing speaks of an older one.

    Args:
        url: The ledger's URL.
        output: The output folder, whose sessions have their answers in it.

    Raises:
        LedgerError: It was emptied, cannot be opened, or is not a ledger.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite" and address.database:
        _refuse_emptied(Path(address.database), output)
    return await Ledger.open(address)


def is_missing(url: URL) -> bool:
    """Whether there is no ledger yet, as far as that is seen without asking a server."""
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()


def _refuse_emptied(path: Path, output: Path) -> None:
    try:
        if path.stat().st_size:
            return
    except OSError:
        return  # There is none yet; whatever else is wrong, opening it says.
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        traces = f"its log {log.name} is still there"
    elif any((folder / FILE_NAME).exists() for folder in all_sessions(output)):
        traces = f"there are sessions in {output}"
    else:
        return
    raise LedgerError(
        f"the ledger {path} is damaged: it is empty, and {traces}; it was left as it is. "
        "Put a copy of it back, or move the empty file away to begin a new one"
    )


_ITEMS = TypeAdapter(list[tuple[str, str, Usage]])


def plan_of(config: Config, jobs: Sequence[Job], ledger: str) -> str:
    """What identifies the work on some jobs and its division, as hex.

    Args:
        config: The configuration.
        jobs: All jobs.
        ledger: The ledger's id.
    """
    return hashlib.sha256(orjson.dumps([config.model_dump(mode="json"), ledger, list(jobs)])).hexdigest()


def divided(config: Config, accounts: SessionBudget, jobs: Sequence[Job]) -> list[tuple[str, bytes]]:
    """Settings and packed jobs of each shard: consecutive jobs, and an equal part of what may still be spent.

    Args:
        config: The configuration; its limits stay whole, for how many share them changes as shards end.
        accounts: What the session has spent.
        jobs: All jobs, at least as many as there are shards.
    """
    shards = config.execution.shards
    part = config.model_copy(update={"budget": _allowance(config, accounts, shards)})
    settings = part.model_dump_json(exclude_unset=True)
    ends = [len(jobs) * number // shards for number in range(shards + 1)]
    return [(settings, pack_jobs((), jobs[a:b])) for a, b in pairwise(ends)]


def _allowance(config: Config, accounts: SessionBudget, shards: int) -> Budget:
    limits, spent = config.budget, accounts.session
    usage = spent.usage()
    left: dict[str, float | int] = {}
    if limits.max_usd is not None:
        left["max_usd"] = max(0.0, limits.max_usd - float(spent.assumed(accounts.prices))) / shards
    if limits.max_tokens is not None:
        left["max_tokens"] = max(0, limits.max_tokens - usage.tokens) // shards
    if limits.max_calls is not None:
        left["max_calls"] = max(0, limits.max_calls - usage.calls) // shards
    return limits.model_copy(update=left)


def write_bill(bill: Bill) -> str:
    """A bill as text; `read_bill` is the way back."""
    return orjson.dumps([(model, purpose, asdict(usage)) for model, purpose, usage in bill]).decode()


def read_bill(text: str) -> Bill:
    """The bill that `write_bill` wrote; an empty one for an empty text."""
    bill = Bill()
    for model, purpose, usage in _ITEMS.validate_json(text) if text else ():
        bill.add(model, purpose, usage)
    return bill


KEY_BYTES = 32
CALLS_FILE = ".calls"
"""The keys of the calls that a session used whose questions are known to its input alone."""


class UsedCalls:
    """Keeps the keys of the calls that a session uses in a hidden file of its folder, as they are used."""

    def __init__(self, folder: Path) -> None:
        """Begin the file.

        Raises:
            SessionError: It cannot be made.
        """
        self._path = folder / CALLS_FILE
        try:
            self._file = files.begun(self._path)
        except OSError as error:
            raise SessionError(f"{self._path} cannot be written: {error.strerror}") from error

    def note(self, key: bytes) -> None:
        """Note a call that is used; where that cannot be written, the disk is full, and its rows fail too."""
        with suppress(OSError, ValueError):
            self._file.write(key)
            self._file.flush()

    def close(self) -> None:
        """Let the file go."""
        with suppress(OSError):
            self._file.close()


def read_used_calls(folder: Path) -> set[bytes] | None:
    """The keys in a session's `CALLS_FILE`; None where there is none."""
    try:
        content = files.read(folder / CALLS_FILE)
    except OSError:
        return None
    return {content[place : place + KEY_BYTES] for place in range(0, len(content), KEY_BYTES)}


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of a ledger's calls.

    Attributes:
        unused: Calls that no session uses; they are gone, or in a dry run would be.
        total: How many there were.
        notes: Why more of them may be unused, a line each.
    """

    unused: int
    total: int
    notes: tuple[str, ...]


async def prune_ledger(ledger: Ledger, output: Path, *, dry_run: bool) -> Pruned:
    """Remove the calls that no session uses.

    Only calls go that were there when it began. What sessions at work may ask, or such as nobody can look
    into, stays: those of the same model and purpose, and all that they paid for.

    Args:
        ledger: The ledger, which lies in the output folder.
        output: The output folder.
        dry_run: Whether nothing is removed.

    Raises:
        UsageError: A session's settings are not known, so that what it uses is not either.
        SessionError: A session cannot be read.
        LedgerError: The ledger cannot be read or written.
    """
    keys = await call_keys(ledger)
    survey = _Usage(output)
    await survey.look(ledger)
    marks = await call_marks(ledger, keys - survey.used)
    gone = await remove_calls(ledger, marks, survey.spares, dry_run=dry_run)
    return Pruned(gone, len(keys), tuple(survey.notes))


_ALL = ""
"""In place of a purpose: all of them."""


class _Usage:
    """Who uses which calls.

    Attributes:
        used: Keys of the calls that are used, as far as that can be looked up.
        notes: What could not be looked up, a line each.
    """

    def __init__(self, output: Path) -> None:
        self.used: set[bytes] = set()
        self.notes: dict[str, None] = {}
        self._output = output
        self._seen: dict[str, object] = {}
        """The sessions here that were looked into, by name, with what they would not have after a change."""
        self._elsewhere: dict[str, str] = {}
        """The sessions elsewhere that were looked into, by id, with their records."""

    async def look(self, ledger: Ledger) -> None:
        """Look into every session that is at rest, here and in the ledger's own list."""
        for folder in all_sessions(self._output):
            if not is_locked(folder):
                await self._look_into(folder, ledger)
        here = self._ids_here()
        for row in await session_rows(ledger):
            record = record_of(row)
            settings = None if record is None else settings_of(record)
            if row.id in here or record is None or settings is None or record.transform:
                continue
            if record.complete and _may_be_elsewhere(record, self._output):
                self.used |= (await survey_session(record, settings, ledger)).keys
                self._elsewhere[row.id] = row.record

    async def _look_into(self, folder: Path, ledger: Ledger) -> None:
        try:
            await restore_record(folder, ledger)
            stamp, record = _stamp(folder), read_record(folder)
            if record is not None and record.transform:
                calls = read_used_calls(folder)
                if calls is None or not record.complete:
                    return
                self.used |= calls
            else:
                found = find_resumption(folder)
                # One of VellumForge2 has no calls here until it is taken over.
                if not found.foreign:
                    if found.before is None:
                        raise UsageError(
                            f"the settings of session {folder.name} are not known; nothing was removed"
                        )
                    self.used |= (await survey_session(found.record, found.before, ledger)).keys
        except SessionError:
            if await asyncio.to_thread(folder.exists):
                raise
            return  # It was removed meanwhile.
        self._seen[folder.name] = stamp

    def spares(self, rows: Sequence[SessionRow]) -> Callable[[CallMark], bool]:
        """Whether a call stays although nobody was seen to use it; made of the sessions as they are now."""
        wary = _Wary()
        here = self._ids_here()
        for folder in all_sessions(self._output):
            name = folder.name
            if is_locked(folder):
                why = f"session {name} is being written"
            elif name not in self._seen and (record := read_record(folder)) and record.transform:
                # What a transform that is not finished will ask stands in its input alone.
                why = f"session {name} is that of a transform which is not finished, or of an older version"
            elif self._seen.get(name, self) != _stamp(folder):
                why = f"session {name} was written meanwhile"
            else:
                continue
            wary.add(read_record(folder))
            self.notes[f"{why}: what it may ask its models stays"] = None
        others = []
        for row in rows:
            record = record_of(row)
            if row.id in here or self._elsewhere.get(row.id) == row.record:
                continue
            if record is None or _may_be_elsewhere(record, self._output):
                wary.add(record)
                others.append(row.name)
        if others:
            more = f" and {len(others) - 1:,} more" if others[1:] else ""
            self.notes[
                f"session {printable_line(others[0], 100)}{more} may be in another folder that shares the "
                "ledger: what it may ask its models stays"
            ] = None
        if files.is_being_made(self._output):
            wary.add(None)
            self.notes["a session is being brought in: everything stays until it is there"] = None
        return wary.spares

    def _ids_here(self) -> set[str]:
        records = (read_record(folder) for folder in all_sessions(self._output))
        return {record.id for record in records if record is not None}


class _Wary:
    """Which calls stay because somebody may use them."""

    def __init__(self) -> None:
        self._asked: set[tuple[str, str]] = set()
        self._sessions: set[str] = set()
        self._all = False

    def add(self, record: SessionRecord | None) -> None:
        """Keep all that a session may use; of one that is not known, everything."""
        config = None if record is None else settings_of(record)
        if record is None or config is None:
            self._all = True
            return
        self._sessions.add(record.id)
        names = {model.model_name for model in all_models(config).values()}
        mode = _MODE.search(record.transform)
        purpose = str(MODES[mode[1]].purpose) if mode and mode[1] in MODES else _ALL
        self._asked |= {(purpose, name) for name in names}

    def spares(self, mark: CallMark) -> bool:
        """Whether a call stays."""
        return (
            self._all
            or mark.session in self._sessions
            or (_ALL, mark.model) in self._asked
            or (mark.purpose, mark.model) in self._asked
        )


_MODE = re.compile(r"--mode[ =]([a-z-]+)")


def _stamp(folder: Path) -> object:
    """What a session's record would not have after it was written anew."""
    try:
        status = (folder / FILE_NAME).lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _may_be_elsewhere(record: SessionRecord, output: Path) -> bool:
    """Whether a session that is not here may be in another output folder, and was not just removed here."""
    place = record.settings.get("output", {})
    if not place.get("ledger"):
        return False  # It had its ledger in its own output folder: this one.
    folder = Path(place.get("folder", Output().folder))
    try:
        database = make_url(place["ledger"]).database or ""
    except (SQLAlchemyError, ValueError):
        return True
    beside = os.path.normpath(Path(database).parent) == os.path.normpath(folder)
    return not beside and folder.resolve() != output.resolve()

"""`session.json`: what a session is and which settings it began with.

It is written whole and in one step. Where it is missing or damaged, the ledger's own entry of the session
stands in, and below that the checkpoint and the backup of the configuration.

Without it our own session would look like one of VellumForge2, whose seed and settings nobody knows: its
answers would be asked for anew, and be paid for again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError

from tasks.core import files
from tasks.core.config.settings import Config
from tasks.core.errors import SessionError
from tasks.core.ledger.sessions import SessionRow, find_session_row, put_session, session_rows_named
from tasks.core.progress import pairs_in_words
from tasks.core.session.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.ledger.ledger import Ledger


FILE_NAME = "session.json"
BACKUP = "config.toml.bak"
LARGEST_RECORD = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a session's prompts, as far as its runs came.

    Attributes:
        wanted: Pairs that the session is to have.
        kept: Those that it has.
        tried: Prompts of which all was asked, whatever came of them.
        lost: Prompts that yielded no usable pair and are replaced, or were kept out, by cause.
        failed: What failed and may come about when it is asked again, by cause.
    """

    wanted: int
    kept: int
    tried: int
    lost: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the pairs that there are, 0 to 1."""
        return min(1.0, self.kept / self.wanted) if self.wanted else 0.0

    def in_words(self) -> str:
        """The numbers on one line, as `pairs_in_words` gives them."""
        causes = Counter(self.lost) + Counter(self.failed)
        return pairs_in_words(self.kept, self.wanted, self.tried, causes)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is recorded, in its folder and in the ledger.

    Attributes:
        id: Its UUID.
        created: Seconds since the epoch.
        settings: The whole configuration as plain data, seed included, secrets never.
        ledger: Id of the ledger that holds its answers.
        complete: Whether every job was done when it was last written.
        seconds: Wall time that its runs took so far, all together.
        flow_run: Id of the Prefect flow run that began it, "" when unknown: a retry finds it by this.
        adopted: Whether its subtopics and jobs were taken over from elsewhere, and stand in the ledger.
        spent: What its runs paid for so far as `Bill.document` gives it; for people, the ledger knows better.
        transform: The command of a transform; "" for a session that was generated.
        missing: Pairs that are wanted and for which there was no prompt when it last came to its end.
        counts: What became of its prompts; None before they are answered, and in records of older versions.
    """

    id: str
    created: float
    settings: dict[str, Any]
    ledger: str = ""
    complete: bool = False
    seconds: float = 0.0
    flow_run: str = ""
    adopted: bool = False
    spent: dict[str, Any] = field(default_factory=dict)
    transform: str = ""
    missing: int = 0
    counts: Counts | None = None


SESSION_RECORD = TypeAdapter(SessionRecord)
"""Validates a record that came from a file."""


def write_record(folder: Path, record: SessionRecord) -> None:
    """Write the record into the session's folder, durably.

    Raises:
        SessionError: The folder cannot be written to.
    """
    try:
        files.write(folder / FILE_NAME, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise SessionError(f"{folder / FILE_NAME} cannot be written: {error.strerror}") from error


def read_record(folder: Path) -> SessionRecord | None:
    """The record in a session's folder; None when it is missing or damaged."""
    path = folder / FILE_NAME
    try:
        with files.opened(path) as file:
            content = file.read(LARGEST_RECORD + 1)
        return None if len(content) > LARGEST_RECORD else SESSION_RECORD.validate_json(content)
    except (OSError, ValidationError):
        return None


def settings_of(record: SessionRecord) -> Config | None:
    """The configuration that a session began with; None when this version cannot read it."""
    try:
        return Config.model_validate(record.settings)
    except ValidationError:
        return None


async def record_session(ledger: Ledger, name: str, record: SessionRecord, jobs: bytes | None = None) -> None:
    """Put a session's record into the ledger too, with the jobs that it took over, if it did.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    packed = orjson.dumps(record).decode()
    await put_session(ledger, SessionRow(record.id, name, record.flow_run, packed, jobs))


async def restore_record(folder: Path, ledger: Ledger) -> None:
    """Write `session.json` as the ledger knows it, when it cannot be read and the ledger knows the session.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The record cannot be written.
    """
    if read_record(folder) is not None:
        return
    row = await _row(folder, ledger)
    # Another version's is none: what is left of the folder has to do.
    if row is not None and (record := record_of(row)) is not None:
        write_record(folder, record)


def record_of(row: SessionRow) -> SessionRecord | None:
    """The record of a session as the ledger has it; None when this version cannot read it."""
    try:
        return SESSION_RECORD.validate_json(row.record)
    except ValidationError:
        return None


async def _row(folder: Path, ledger: Ledger) -> SessionRow | None:
    """The ledger's entry of the session: by the checkpoint's id, else by a name that only one session has."""
    try:
        checkpoint = read_checkpoint(folder)
    except SessionError:
        checkpoint = None
    if checkpoint is not None and checkpoint.session_id:
        return await find_session_row(ledger, checkpoint.session_id)
    rows = await session_rows_named(ledger, folder.name)
    return rows[0] if len(rows) == 1 else None

"""A session's record put back from the ledger, where its file is missing or damaged.

Without it our own session would look like one of VellumForge2, whose seed and settings nobody knows: its
answers would be asked for anew, and be paid for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from tasks.core.errors import SessionError
from tasks.core.llm.ledger_records import find_session_row, session_rows_named
from tasks.core.session.reading import read_checkpoint
from tasks.core.session.record import SESSION_RECORD, read_record, write_record

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.llm.ledger import Ledger
    from tasks.core.llm.ledger_records import SessionRow


async def restore_record(folder: Path, ledger: Ledger) -> None:
    """Write `session.json` as the ledger knows it, when it cannot be read and the ledger knows the session.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The record cannot be written.
    """
    if read_record(folder) is not None:
        return
    row = await _row(folder, ledger)
    if row is None:
        return
    try:
        record = SESSION_RECORD.validate_json(row.record)
    except ValidationError:
        return  # Another version's: what is left of the folder has to do.
    write_record(folder, record)


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

"""The ledger opened for sessions that rely on it: one that was emptied is damage, and never a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from tasks.core.errors import LedgerError
from tasks.core.llm.ledger import Ledger
from tasks.core.session.find import all_sessions
from tasks.core.session.record import FILE_NAME

if TYPE_CHECKING:
    from sqlalchemy import URL


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

"""An empty file is a new ledger only where nothing speaks of an older one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import LedgerError
from tasks.core.session.ledger import open_ledger
from tests.core.session.exported import ledger_at, make_session

if TYPE_CHECKING:
    from pathlib import Path


async def _refused(output: Path) -> str:
    """Open the ledger in vain, and find all as it was; returns why."""
    ledger = output / "ledger.db"
    with pytest.raises(LedgerError) as raised:
        await open_ledger(ledger_at(output), output)
    assert ledger.stat().st_size == 0
    return str(raised.value)


async def test_an_emptied_ledger_beside_its_sessions_is_damaged(tmp_path: Path) -> None:
    await make_session(tmp_path)
    (tmp_path / "ledger.db").write_bytes(b"")
    reason = await _refused(tmp_path)
    assert "ledger.db is damaged: it is empty, and there are sessions in" in reason
    (tmp_path / "ledger.db").unlink()
    async with await open_ledger(ledger_at(tmp_path), tmp_path) as ledger:
        assert ledger.id


async def test_an_emptied_ledger_whose_log_is_there_is_damaged_and_keeps_its_log(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    (tmp_path / "ledger.db-wal").write_bytes(b"answers")
    assert "its log ledger.db-wal is still there" in await _refused(tmp_path)
    assert (tmp_path / "ledger.db-wal").read_bytes() == b"answers"


async def test_an_empty_file_that_nothing_refers_to_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    (tmp_path / "session_without_record").mkdir()
    async with await open_ledger(ledger_at(tmp_path), tmp_path) as ledger:
        assert await ledger.get(bytes(32)) is None
    assert (tmp_path / "ledger.db").stat().st_size > 0

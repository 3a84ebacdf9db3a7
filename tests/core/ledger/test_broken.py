"""A ledger that fails: one line that says so, and nothing more is read, written or paid for."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from tasks.core.errors import LedgerError
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import SCHEMA_VERSION, LedgerEntry
from tasks.core.ledger.sessions import SessionRow, find_session_row, put_session
from tasks.core.models import Failure, Phase, Purpose
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

FAILURE = Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, "timeout", "no answer")


def entry(text: str = "Why?", said: str = "Because.") -> LedgerEntry:
    return LedgerEntry(question(text), answer(said), "session_1")


async def fails(work: Awaitable[object]) -> str:
    with pytest.raises(LedgerError) as caught:
        await work
    message = str(caught.value)
    assert "\n" not in message
    return message


async def everything_fails(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.check()
    ended = await asyncio.gather(
        ledger.put(entry("another")),
        ledger.get(question().key),
        ledger.get_many([question().key]),
        ledger.add_failures("session_1", [FAILURE]),
        put_session(ledger, SessionRow("id", "session_1", "", "{}")),
        find_session_row(ledger, "id"),
        ledger.reached(question().key),
        ledger.add_reached(question().key, 1),
        return_exceptions=True,
    )
    assert [type(error) for error in ended] == [LedgerError] * 8


async def test_a_newer_ledger_is_refused(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger.put(entry())
    await sql(url, "UPDATE about SET value = :newer WHERE name = 'version'", newer=str(SCHEMA_VERSION + 1))
    assert "another version" in await fails(Ledger.open(url))
    # A connection that was left open is a warning when it is collected, and that is an error here.
    gc.collect()
    await sql(url, "UPDATE about SET value = :same WHERE name = 'version'", same=str(SCHEMA_VERSION))
    async with await Ledger.open(url) as ledger:
        assert await ledger.get(question().key) == answer()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are my notes\n" * 1000)
    message = await fails(Ledger.open(f"sqlite:///{path}"))
    assert "notes.db" in message
    assert "not a database" in message
    assert path.read_text() == "these are my notes\n" * 1000


async def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    threads = threading.active_count()
    assert "ledger.db" in await fails(Ledger.open(f"sqlite:///{tmp_path}/ledger.db"))
    assert threading.active_count() == threads


async def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    await sql(url, "CREATE TABLE calls (number TEXT)")
    async with await Ledger.open(url) as ledger:
        await fails(ledger.put(entry()))
        await everything_fails(ledger)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"content": "a", "other": 1}', b"{}", b"x\x9c\x01"])
async def test_a_damaged_answer_stops_everything(url: str, damage: bytes) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger.put(entry())
        await sql(url, "UPDATE calls SET answer = :damage", damage=damage)
        message = await fails(ledger.get(question().key))
        assert "damaged" in message
        await everything_fails(ledger)


async def test_a_lost_table_stops_everything(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger.put(entry())
        await sql(url, "DROP TABLE calls")
        message = await fails(ledger.put(entry("another")))
        assert "cannot be written" in message
        # Neither the statement nor what was to be kept is shown.
        assert "INSERT" not in message
        assert "Because" not in message
        await everything_fails(ledger)


async def test_a_full_disk_stops_everything_and_harms_nothing_that_was_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    noise = "".join(chr(0x4E00 + (number * 8919) % 20_000) for number in range(60_000))
    async with await Ledger.open(url) as ledger:
        await ledger.put(entry("before"))
        event.listen(
            ledger._engine.sync_engine,
            "begin",
            lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"),
        )
        message = await fails(ledger.put(entry("too much", noise)))
        assert "full" in message
        await everything_fails(ledger)
    async with await Ledger.open(url) as ledger:
        assert await ledger.get(question("before").key) == answer()
        assert await ledger.get(question("too much").key) is None


async def test_all_of_a_batch_that_fails_hear_of_it(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await sql(url, "DROP TABLE milestones")
        told = await asyncio.gather(
            *(ledger.put(entry(str(number))) for number in range(50)),
            ledger.add_reached(question().key, 1),
            return_exceptions=True,
        )
        assert {type(error) for error in told} == {LedgerError}
    # Nobody was told of an answer that is kept, and none is: all of it or nothing.
    assert [tuple(row) for row in await sql(url, "SELECT count(*) FROM calls")] == [(0,)]


async def test_a_row_that_vanished_is_not_taken_for_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with await Ledger.open(url) as ledger:
        # The row is neither written nor there: as if it had been deleted between the two questions.
        await sql(url, "CREATE TRIGGER gone BEFORE INSERT ON calls BEGIN SELECT RAISE(IGNORE); END")
        assert "gone" in await fails(ledger.put(entry()))
        await everything_fails(ledger)


async def test_a_ledger_can_be_read_by_any_sqlite(tmp_path: Path) -> None:
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        await ledger.put(entry())
        with sqlite3.connect(tmp_path / "ledger.db") as connection:
            rows = connection.execute("SELECT key FROM calls").fetchall()
        connection.close()
    assert rows == [(question().key,)]

"""Pruning a ledger: what no session uses goes, and nothing that one at work has used or may ask."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete

from tasks.core import files
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry, calls
from tasks.core.ledger.sessions import call_keys
from tasks.core.models import Purpose
from tasks.core.session.folder import locked
from tasks.core.session.ledger import UsedCalls, prune_ledger
from tasks.core.session.record import record_session, write_record
from tests.core.chat.scripted import answer, question
from tests.core.running import PATIENCE, ChatServer, configured
from tests.core.session.exported import ledger_at, make_session, run_session, writing

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.session.ledger import Pruned
    from tests.core.running import Chat


async def prune(output: Path, *, dry_run: bool = False) -> Pruned:
    async with await Ledger.open(ledger_at(output)) as ledger:
        return await prune_ledger(ledger, output, dry_run=dry_run)


async def buy(output: Path, number: int, session: str = "gone", model: str = "strong") -> set[bytes]:
    """Calls that no session asks for, of a session that is gone; returns their keys."""
    asked = [
        replace(question(f"{session} {place}"), model=model, purpose=Purpose.CHOSEN)
        for place in range(number)
    ]
    async with await Ledger.open(ledger_at(output)) as ledger:
        await ledger.put_all([LedgerEntry(each, answer("no more"), session) for each in asked])
    return {each.key for each in asked}


async def kept(output: Path) -> set[bytes]:
    async with await Ledger.open(ledger_at(output)) as ledger:
        return await call_keys(ledger)


async def test_what_a_removed_session_used_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    made = await make_session(tmp_path)
    used = await kept(tmp_path)
    await buy(tmp_path, 3)
    would = await prune(tmp_path, dry_run=True)
    assert (would.unused, would.total, would.notes) == (3, len(used) + 3, ())
    assert len(await kept(tmp_path)) == len(used) + 3
    assert (await prune(tmp_path)).unused == 3
    assert await kept(tmp_path) == used
    shutil.rmtree(made.folder)
    assert (await prune(tmp_path)).unused == len(used)


async def test_a_session_at_work_loses_no_answer_that_it_has_yet_to_ask_for(tmp_path: Path) -> None:
    """It waits for its subtopics: whoever walks it over the ledger finds none of what it will ask then."""
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    may_go_on.set()

    async def slow(chat: Chat) -> str | list[str]:
        asked.set()
        await may_go_on.wait()
        return await writing(chat)

    async with ChatServer(slow) as server:
        config = configured(server.base_url, output__folder=str(tmp_path))
        before, _ = await run_session(config, slice(None))
        shutil.rmtree(before)
        async with await Ledger.open(ledger_at(tmp_path)) as ledger, ledger.transaction("written") as sql:
            await sql.execute(delete(calls).where(calls.c.purpose == "subtopics"))
        paid, strangers = await kept(tmp_path), await buy(tmp_path, 2, model="another")
        asked.clear()
        may_go_on.clear()
        running = asyncio.create_task(run_session(config, slice(None)))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        found = await prune(tmp_path)
        assert found.notes[0].endswith("is being written: what it may ask its models stays")
        assert found.unused == len(strangers)
        assert await kept(tmp_path) == paid
        may_go_on.set()
        await running
        assert len(server.asked) == len(paid) + 2
        assert (await prune(tmp_path)).unused == 0


async def test_a_session_that_is_locked_keeps_all_that_it_paid_for(tmp_path: Path) -> None:
    made = await make_session(tmp_path)
    # Paid for under other settings, which hold no more.
    await buy(tmp_path, 2, made.record.id, "another")
    with locked(made.folder):
        assert (await prune(tmp_path)).unused == 0
    assert (await prune(tmp_path)).unused == 2


async def test_a_session_in_another_folder_that_shares_the_ledger_keeps_what_it_uses(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    await make_session(here)
    async with ChatServer(writing) as server:
        config = configured(
            server.base_url,
            output__folder=str(there),
            output__ledger=ledger_at(here),
            generation__main_topic="The moon",
        )
        folder, record = await run_session(config, slice(None))
        total, _ = len(await kept(here)), await buy(here, 2)
        assert (await prune(here)).unused == 2
        assert len(await kept(here)) == total
        # What goes on there may ask for anything of its models.
        async with await Ledger.open(ledger_at(here)) as ledger:
            await record_session(ledger, folder.name, replace(record, complete=False))
        await buy(here, 2)
        found = await prune(here)
        assert found.unused == 0
        assert "may be in another folder that shares the ledger" in found.notes[0]
        # One that had the ledger beside it was removed here.
        beside = {"output": {"folder": str(here), "ledger": ledger_at(here)}}
        async with await Ledger.open(ledger_at(here)) as ledger:
            moved = replace(record, complete=False, settings={**record.settings, **beside})
            await record_session(ledger, folder.name, moved)
        assert (await prune(here)).unused == total // 2 + 2


@pytest.mark.parametrize("state", ["finished", "unfinished", "of an older version"])
async def test_a_transform_blocks_nothing_but_what_it_may_ask(tmp_path: Path, state: str) -> None:
    made = await make_session(tmp_path)
    used = await kept(tmp_path)
    command = "vellumforge2 transform --mode regen-chosen --input rows.jsonl --output new.jsonl"
    write_record(made.folder, replace(made.record, transform=command, complete=state != "unfinished"))
    if state != "of an older version":
        noted = UsedCalls(made.folder)
        for key in sorted(used)[:5]:
            noted.note(key)
        noted.close()
    alike, others = await buy(tmp_path, 2), await buy(tmp_path, 3, "other", "another")
    found = await prune(tmp_path)
    left = await kept(tmp_path)
    assert not left & others
    if state == "finished":
        assert (left, found.notes) == (set(sorted(used)[:5]), ())
    else:
        assert left == used | alike
        assert "is that of a transform which is not finished" in found.notes[0]


async def test_while_a_session_is_brought_in_everything_stays(tmp_path: Path) -> None:
    await make_session(tmp_path)
    await buy(tmp_path, 2)
    with files.folder_beside(tmp_path, ".import-"):
        found = await prune(tmp_path)
    assert found.unused == 0
    assert found.notes == ("a session is being brought in: everything stays until it is there",)
    (tmp_path / ".import-dead").mkdir()
    assert (await prune(tmp_path)).unused == 2

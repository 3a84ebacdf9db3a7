"""Ledgers of older versions: brought up to date where they are, also by several processes at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tasks.core.cost import Usage
from tasks.core.ledger.care import check_ledger, salvage_ledger
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import SCHEMA_VERSION, LedgerEntry, pack
from tasks.core.ledger.sessions import spent_by
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql
from tests.core.programs import Program, together

if TYPE_CHECKING:
    from pathlib import Path

CALLS = 50
OLD = LedgerEntry(question("old"), answer("paid before", prompt_tokens=7, completion_tokens=3), "s")
NEW = LedgerEntry(
    question("new"), answer("paid now", prompt_tokens=70, completion_tokens=30, cached_tokens=64), "s"
)
INSERT = """INSERT INTO calls
(key, purpose, model, session, answer, prompt_tokens, completion_tokens, finished)
VALUES (:key, 'chosen', 'demo-strong', 's', :answer, NULL, NULL, 0.0)"""
"""What version 1 wrote, for a server that reports no usage."""

OPEN = """
import asyncio, sys
from tasks.core.ledger.ledger import Ledger

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with await Ledger.open(sys.argv[1]) as ledger:
        print(ledger.id)

asyncio.run(main())
"""


async def make_version_1(url: str) -> str:
    """A ledger as version 1 left it, with answers; returns its id."""
    async with await Ledger.open(url) as ledger:
        await ledger.put_all(
            [OLD, *(LedgerEntry(question(str(n)), answer(str(n)), "others") for n in range(CALLS - 1))]
        )
        made = ledger.id
    for column in ("cached_tokens", "estimated_tokens"):
        await sql(url, f"ALTER TABLE calls DROP COLUMN {column}")
    await sql(url, "UPDATE about SET value = '1' WHERE name = 'version'")
    return made


async def version_of(url: str) -> str:
    ((version,),) = await sql(url, "SELECT value FROM about WHERE name = 'version'")
    return str(version)


async def test_an_older_ledger_is_brought_up_to_date_and_keeps_what_was_paid_for(url: str) -> None:
    made = await make_version_1(url)
    async with await Ledger.open(url) as ledger:
        assert ledger.id == made
        assert await ledger.get(OLD.request.key) == OLD.answer
        await ledger.put(NEW)
        expected = Usage(2, 77, 33, cached_tokens=64)
        assert (await spent_by(ledger, "s")).usage() == expected
    assert await version_of(url) == str(SCHEMA_VERSION)
    async with await Ledger.open(url) as ledger:
        assert (await spent_by(ledger, "s")).usage() == expected
        assert await ledger.get_many([OLD.request.key, NEW.request.key]) == {
            OLD.request.key: OLD.answer,
            NEW.request.key: NEW.answer,
        }


async def test_several_processes_may_find_an_older_ledger_at_once(url: str) -> None:
    made = await make_version_1(url)
    with ExitStack() as running:
        ended = together([running.enter_context(Program(OPEN, url)) for _ in range(4)])
    assert [(out.strip(), err) for out, err in ended] == [(made, "")] * 4
    assert await version_of(url) == str(SCHEMA_VERSION)
    ((calls,),) = await sql(url, "SELECT count(*) FROM calls WHERE cached_tokens IS NULL")
    assert calls == CALLS


async def test_who_writes_with_the_older_version_meanwhile_goes_on(url: str) -> None:
    await make_version_1(url)
    async with await Ledger.open(url) as ledger:
        late = question("late")
        await sql(url, INSERT, key=late.key, answer=pack(answer("late")))
        assert await ledger.get(late.key) == answer("late")
        usage = (await spent_by(ledger, "s")).usage()
    assert (usage.calls, usage.unreported, usage.estimated_tokens) == (2, 1, 0)


async def test_an_older_ledger_is_checked_and_salvaged_as_it_is(tmp_path: Path) -> None:
    path, saved = tmp_path / "ledger.db", tmp_path / "saved.db"
    made = await make_version_1(f"sqlite:///{path}")
    before = path.read_bytes()
    health = check_ledger(path)
    assert (health.sound, health.calls) == (True, CALLS)
    salvage = salvage_ledger(path, saved)
    assert (salvage.saved["calls"], salvage.damaged) == (CALLS, 0)
    assert path.read_bytes() == before
    async with await Ledger.open(f"sqlite:///{saved}") as ledger:
        assert ledger.id == made
        assert await ledger.get(OLD.request.key) == OLD.answer
    assert await version_of(f"sqlite:///{saved}") == str(SCHEMA_VERSION)

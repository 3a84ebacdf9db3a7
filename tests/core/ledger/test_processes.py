"""The ledger between processes: killed in the middle, opened and written by several at once."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from tasks.core.ledger.ledger import Ledger
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql
from tests.core.programs import Program, together

PUT_AND_WAIT = """
import asyncio, sys
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tests.core.chat.scripted import answer, question

async def main():
    ledger = await Ledger.open(sys.argv[1])
    for number in range(3):
        entry = LedgerEntry(question(str(number)), answer("paid for"), "session_1")
        await ledger.put(entry)
        print(entry.request.key.hex(), flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

PUT_ALL = """
import asyncio, json, sys
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tests.core.chat.scripted import answer, question

async def main(url, name):
    print("ready", flush=True)
    sys.stdin.readline()
    async with await Ledger.open(url) as ledger:
        async def put(number):
            entry = LedgerEntry(question(str(number)), answer(name), name)
            return (await ledger.put(entry)).content
        given = []
        for start in range(0, 200, 20):
            order = range(start, start + 20)
            given += await asyncio.gather(*(put(n) for n in order))
        print(json.dumps([ledger.id, given]))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_kill_right_after_put_returned_loses_nothing(url: str) -> None:
    with Program(PUT_AND_WAIT, url) as program:
        keys = [bytes.fromhex(program.stdout.readline()) for _ in range(3)]
        assert program.kill() == -9
    async with await Ledger.open(url) as ledger:
        assert await ledger.get_many(keys) == dict.fromkeys(keys, answer("paid for"))


async def test_several_processes_make_and_write_one_ledger_at_once(url: str) -> None:
    with ExitStack() as running:
        programs = [running.enter_context(Program(PUT_ALL, url, f"writer {number}")) for number in range(3)]
        ended = together(programs)
    assert [stderr for _, stderr in ended] == [""] * 3
    results: list[Any] = [json.loads(stdout) for stdout, _ in ended]
    ids, given = {ledger_id for ledger_id, _ in results}, [texts for _, texts in results]
    async with await Ledger.open(url) as ledger:
        assert ids == {ledger.id}
        keys = [question(str(number)).key for number in range(200)]
        found = await ledger.get_many(keys)
    assert given == [[found[key].content for key in keys]] * 3
    assert [tuple(row) for row in await sql(url, "SELECT count(*) FROM about")] == [(2,)]

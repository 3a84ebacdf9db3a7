"""Claims on a real database: of all who share a ledger, one pays for a call, and the dead hold up nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from tasks.core.ledger.claims import LEASE, Claim, claims, owners
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql
from tests.flows.command import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY, OTHER = question("Why?").key, question("How?").key
SOON = LEASE / 2
"""Seconds, less than a lease: a process that was killed on this machine is looked for."""

HOLDER = """
import asyncio, sys
from tasks.core.ledger.ledger import Ledger
async def hold():
    async with await Ledger.open(sys.argv[1]) as ledger:
        await ledger.claims.open()
        for key in sys.argv[2:]:
            await ledger.claims.take(bytes.fromhex(key))
        print("held", flush=True)
        await asyncio.sleep(600)
asyncio.run(hold())
"""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def opened(stack: AsyncExitStack, url: str) -> Ledger:
    ledger = await stack.enter_async_context(await Ledger.open(url))
    await ledger.claims.open()
    return ledger


async def rows(ledger: Ledger) -> set[tuple[str, str]]:
    async with ledger.transaction("read") as connection:
        return set((await connection.execute(select(claims.c.key, claims.c.owner))).tuples())


async def test_alone_nothing_is_written(url: str, stack: AsyncExitStack) -> None:
    ledger = await opened(stack, url)
    assert [await ledger.claims.take(key) for key in (KEY, OTHER)] == [Claim.OURS] * 2
    ledger.claims.give_back(OTHER)
    assert not await rows(ledger)


async def test_what_was_claimed_alone_is_seen_by_who_comes_later(url: str, stack: AsyncExitStack) -> None:
    first = await opened(stack, url)
    assert await first.claims.take(KEY) is Claim.OURS
    second = await opened(stack, url)
    assert await second.claims.take(KEY) is Claim.THEIRS
    assert await second.claims.take(OTHER) is Claim.OURS
    assert await first.claims.take(OTHER) is Claim.THEIRS

    waits = asyncio.create_task(second.claims.free(KEY))
    put = await first.put(LedgerEntry(question("Why?"), answer("Because."), "one"))
    first.claims.give_back(KEY)
    await waits
    assert await second.claims.take(KEY) is Claim.ANSWERED
    assert await second.get(KEY) == put

    second.claims.give_back(OTHER)
    await first.claims.free(OTHER)
    assert await first.claims.take(OTHER) is Claim.OURS


async def test_of_many_who_claim_at_once_each_call_has_one_payer(url: str, stack: AsyncExitStack) -> None:
    everybody = await asyncio.gather(*(opened(stack, url) for _ in range(4)))
    keys = [question(str(number)).key for number in range(200)]
    found = await asyncio.gather(*(each.claims.take(key) for key in keys for each in everybody))
    for place, key in enumerate(keys):
        of_key = found[place * len(everybody) : (place + 1) * len(everybody)]
        assert sorted(claim.name for claim in of_key) == ["OURS", "THEIRS", "THEIRS", "THEIRS"], key.hex()


async def test_who_answered_before_it_left_is_not_paid_for_again(url: str, stack: AsyncExitStack) -> None:
    second = await opened(stack, url)
    assert await second.get(KEY) is None
    async with await Ledger.open(url) as first:
        await first.claims.open()
        assert await first.claims.take(KEY) is Claim.OURS
        await first.put(LedgerEntry(question("Why?"), answer("Because."), "one"))
        first.claims.give_back(KEY)
    assert await second.claims.take(KEY) is Claim.ANSWERED


async def test_what_a_killed_process_claimed_is_free_at_once(url: str, stack: AsyncExitStack) -> None:
    ledger = await opened(stack, url)
    command = (sys.executable, "-c", HOLDER, url, KEY.hex(), OTHER.hex())
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    await process.stdout.readline()
    assert await ledger.claims.take(KEY) is Claim.THEIRS
    process.kill()
    killed = time.monotonic()
    await ledger.claims.free(KEY)
    assert await ledger.claims.take(KEY) is Claim.OURS
    taken = time.monotonic() - killed
    await process.wait()
    assert await ledger.claims.take(OTHER) is Claim.OURS
    assert taken < SOON, "it was found by its lease"


async def test_what_was_claimed_elsewhere_is_free_after_its_lease(url: str, stack: AsyncExitStack) -> None:
    here, there = await opened(stack, url), await opened(stack, url)
    of_there = update(owners).where(owners.c.id == there.claims._id)
    async with here.transaction("written") as connection:
        await connection.execute(of_there.values(place="elsewhere"))
    assert await there.claims.take(KEY) is Claim.OURS
    assert await here.claims.take(KEY) is Claim.THEIRS
    while True:
        async with here.transaction("written") as connection:
            await connection.execute(of_there.values(seen=owners.c.seen - LEASE - 1))
        await here.claims.free(KEY)
        # It may have said that it lives just then.
        if await here.claims.take(KEY) is Claim.OURS:
            break
    # It lives after all: what it claims from now on counts again, and what it lost is somebody else's.
    there.claims.give_back(KEY)
    there.claims._looked = 0.0
    assert await there.claims.take(OTHER) is Claim.OURS
    assert await here.claims.take(OTHER) is Claim.THEIRS
    assert await there.claims.take(KEY) is Claim.THEIRS


async def test_who_is_cancelled_while_claiming_holds_nothing(url: str, stack: AsyncExitStack) -> None:
    first, second = await opened(stack, url), await opened(stack, url)
    claiming = asyncio.create_task(second.claims.take(KEY))
    await asyncio.sleep(0)
    claiming.cancel()
    while (claim := await first.claims.take(KEY)) is Claim.THEIRS:
        await first.claims.free(KEY)
    assert claim is Claim.OURS


async def test_who_leaves_takes_its_claims_along(url: str, stack: AsyncExitStack) -> None:
    first = await opened(stack, url)
    async with await Ledger.open(url) as second:
        await second.claims.open()
        assert await second.claims.take(KEY) is Claim.OURS
        assert await first.claims.take(KEY) is Claim.THEIRS
    await first.claims.free(KEY)
    assert await first.claims.take(KEY) is Claim.OURS
    assert len(await sql(url, "SELECT id FROM owners")) == 1


async def test_an_answer_that_came_twice_is_on_both_accounts(url: str) -> None:
    async with await Ledger.open(url) as first, await Ledger.open(url) as second:
        one, other = answer("Because."), answer("For a reason.")
        assert await first.put(LedgerEntry(question("Why?"), one, "one")) == one
        assert await second.put(LedgerEntry(question("Why?"), other, "other")) == one
        assert [row[0] for row in await sql(url, "SELECT session FROM calls ORDER BY session")] == [
            "one",
            "other",
        ]
        assert await first.payer(KEY) == "one"

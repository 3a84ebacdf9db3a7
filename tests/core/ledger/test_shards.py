"""Shards in the ledger: who holds one, who may take it, what is learned by being heard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tasks.core.ledger import shards as ledger_shards
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.shards import LOST, Heard
from tasks.core.traffic.quota import WINDOW
from tests.core.ledger.databases import sql

if TYPE_CHECKING:
    from tasks.core.ledger.shards import Shard

PARTS = [("{}", b"first"), ("{}", b"second")]


async def laid_out(ledger: Ledger, plan: str = "plan", *, resting: bool = False) -> list[Shard]:
    await ledger_shards.prepare(ledger, "s")
    return await ledger_shards.divide(ledger, "s", plan, PARTS, resting=resting)


async def heard(ledger: Ledger, number: int, holder: str) -> Heard | None:
    return await ledger_shards.beat(ledger, "s", number, holder, done=1, failed=0, spent="")


async def silence(url: str, number: int, seconds: float) -> None:
    """Have whoever holds a shard be silent for so long."""
    statement = "UPDATE shards SET seen = seen - :seconds WHERE number = :number"
    await sql(url, statement, seconds=seconds, number=number)


async def test_a_session_has_one_parent_until_it_is_silent(url: str) -> None:
    async with await Ledger.open(url) as ledger, await Ledger.open(url) as other:
        for one in (ledger, other):
            await ledger_shards.prepare(one, "s")
        assert await ledger_shards.lead(ledger, "s", "first") is None
        silent = await ledger_shards.lead(other, "s", "second")
        assert silent is not None
        assert silent < LOST
        assert await ledger_shards.lead(ledger, "s", "first") is None
        await silence(url, 0, LOST + 1)
        assert await ledger_shards.lead(other, "s", "second") is None
        assert await ledger_shards.lead(ledger, "s", "first") is not None
        await ledger_shards.release(other, "s", 0, "second")
        assert await ledger_shards.lead(ledger, "s", "first") is None


async def test_of_many_that_claim_a_shard_at_once_one_has_it(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await laid_out(ledger)
        claims = await asyncio.gather(*(ledger_shards.claim(ledger, "s", 1, f"{n}") for n in range(8)))
        (claim,) = [claim for claim in claims if claim]
        assert (claim.settings, claim.jobs, claim.waits, claim.spent) == ("{}", b"first", 0.0, "")
        assert await ledger_shards.claim(ledger, "s", 3, "x") is None, "there is no third"


async def test_a_shard_that_was_given_away_is_no_longer_ones_own(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        (first, _) = await laid_out(ledger)
        assert await ledger_shards.ask_anew(ledger, "s", first) == 1
        assert await ledger_shards.claim(ledger, "s", 1, "slow")
        assert await heard(ledger, 1, "slow")
        await silence(url, 1, LOST + 1)
        (first, _) = await ledger_shards.look(ledger, "s")
        assert first.lost
        assert await ledger_shards.ask_anew(ledger, "s", first) == 2
        claim = await ledger_shards.claim(ledger, "s", 1, "quick")
        assert claim
        # Whoever had it may have asked until now.
        assert WINDOW - 5 < claim.waits <= WINDOW
        assert await heard(ledger, 1, "slow") is None
        await ledger_shards.end(ledger, "s", 1, "slow")
        await ledger_shards.release(ledger, "s", 1, "slow")
        (first, _) = await ledger_shards.look(ledger, "s")
        assert (first.holder, first.ended, first.done, first.attempts) == ("quick", False, 1, 2)


async def test_limits_are_given_back_a_minute_after_a_shard_has_ended(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await laid_out(ledger)
        for number in (1, 2):
            assert await ledger_shards.claim(ledger, "s", number, "x")
        told = await heard(ledger, 1, "x")
        assert told == Heard(called_off=False, sharers=2)
        await ledger_shards.end(ledger, "s", 2, "x", "why")
        told = await heard(ledger, 1, "x")
        assert told
        assert told.sharers == 2, "what it sent in the last minute still counts"
        await sql(url, "UPDATE shards SET ended = ended - :window WHERE number = 2", window=WINDOW)
        told = await heard(ledger, 1, "x")
        assert told
        assert told.sharers == 1
        assert [shard.note for shard in await ledger_shards.look(ledger, "s")] == ["", "why"]


async def test_the_same_plan_finds_its_shards_and_another_replaces_them(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        before = await laid_out(ledger)
        assert await ledger_shards.claim(ledger, "s", 1, "x")
        await ledger_shards.call_off(ledger, "s")
        told = await heard(ledger, 1, "x")
        assert told
        assert told.called_off
        again = await laid_out(ledger)
        assert [shard.token for shard in again] == [shard.token for shard in before]
        assert again[0].holder == "x"
        told = await heard(ledger, 1, "x")
        assert told
        assert not told.called_off
        other = await laid_out(ledger, "another plan")
        assert {shard.token for shard in other}.isdisjoint(shard.token for shard in before)
        assert await heard(ledger, 1, "x") is None, "it has nothing to do any more"


async def test_shards_that_have_all_ended_are_divided_anew(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        before = await laid_out(ledger)
        for shard in before:
            assert await ledger_shards.claim(ledger, "s", shard.number, "x")
            await ledger_shards.end(ledger, "s", shard.number, "x")
        assert await ledger_shards.claim(ledger, "s", 1, "x") is None, "it has ended"
        again = await laid_out(ledger)
        assert not any(shard.ended for shard in again)
        assert again[0].token != before[0].token


async def test_after_the_parents_own_requests_shards_wait_and_in_the_end_they_are_forgotten(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await laid_out(ledger, resting=True)
        claim = await ledger_shards.claim(ledger, "s", 2, "x")
        assert claim
        assert WINDOW - 5 < claim.waits <= WINDOW
        await ledger_shards.prepare(ledger, "other")
        await ledger_shards.clear(ledger, "s")
        assert await ledger_shards.look(ledger, "s") == []
        assert await heard(ledger, 2, "x") is None
        assert await ledger_shards.lead(ledger, "other", "me") is None


async def test_who_was_invited_waits_for_the_work_and_gets_it(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger_shards.prepare(ledger, "s")
        assert await ledger_shards.lead(ledger, "s", "parent") is None
        invited = await ledger_shards.invite(ledger, "s", len(PARTS))
        assert await ledger_shards.invite(ledger, "s", len(PARTS)) == invited
        early = await ledger_shards.claim(ledger, "s", 1, "x")
        assert early is not None
        assert early.settings == ""
        await silence(url, 0, LOST)
        early = await ledger_shards.claim(ledger, "s", 1, "x")
        assert early is not None
        assert LOST <= early.parent_silent < 2 * LOST

        divided = await laid_out(ledger)
        assert [shard.token for shard in divided] == [shard.token for shard in invited], "they are the same"
        assert [shard.holder for shard in divided] == ["x", ""]
        claim = await ledger_shards.claim(ledger, "s", 1, "x")
        assert claim is not None
        assert (claim.settings, claim.jobs) == PARTS[0]


async def test_who_was_invited_in_vain_finds_nothing(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger_shards.prepare(ledger, "s")
        await ledger_shards.invite(ledger, "s", 2)
        await ledger_shards.call_off(ledger, "s")
        assert await ledger_shards.claim(ledger, "s", 1, "x") is None
        await ledger_shards.invite(ledger, "s", 2)
        assert await ledger_shards.claim(ledger, "s", 1, "x") is not None
        (first, _) = await ledger_shards.invite(ledger, "s", 2)
        assert first.holder == "x", "another parent finds those that wait"
        assert len(await ledger_shards.invite(ledger, "s", 3)) == 3
        await ledger_shards.clear(ledger, "s")
        assert await ledger_shards.claim(ledger, "s", 1, "x") is None

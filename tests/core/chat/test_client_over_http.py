"""The client against demo servers that are broken or busy, judged by the servers' own records."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tasks.core.demo.chat import Behaviour
from tasks.core.demo.server import DemoServer
from tasks.core.models import Purpose
from tests.core.chat.scripted import question
from tests.core.running import PATIENCE, kind, running
from tests.core.traffic.limiting import CrowdedServer, QueueingServer, RateLimitedServer
from tests.core.traffic.virtual import Bucket

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.exchange.request import ChatRequest

RETRY_AFTER = 0.2
BURST = 6


def many(
    url: str, number: int, purpose: Purpose = Purpose.CHOSEN, model: str = "strong"
) -> list[ChatRequest]:
    section = kind(purpose).section
    return [
        replace(question(f"Of {place}.", url, purpose=purpose, model=model), section=section)
        for place in range(number)
    ]


@pytest.mark.parametrize("streaming", [False, True])
async def test_calls_of_a_server_with_every_trouble_are_all_answered_and_none_is_sent_too_early(
    tmp_path: Path, *, streaming: bool
) -> None:
    trouble = Behaviour(
        latency_ms=5, error=0.1, rate_limited=0.1, retry_after=RETRY_AFTER, truncate=0.1, unfinished=0.05
    )
    async with (
        DemoServer(trouble) as server,
        running(
            tmp_path,
            server.base_url,
            generation__concurrency=16,
            models__main__use_streaming=streaming,
            models__main__max_retries=-1,
        ) as run,
    ):
        answers = await asyncio.gather(*map(run.client.ask, many(server.base_url, 300)))
        assert len({answer.content for answer in answers}) == 300
        assert all(answer.completion_tokens and answer.finish_reason for answer in answers)
        stats = server.stats
        failed = run.progress.attempts_failed
        assert run.progress.paid.total() == 300
        assert stats.requests == 300 + failed
        # A stream without an end was sent in full, as the server sees it.
        assert (stats.duplicates > 0) == streaming
        attempts = defaultdict(list)
        for record in server.records:
            attempts[record.key].append(record)
        refused = [
            (before, after)
            for tries in attempts.values()
            for before, after in pairwise(tries)
            if before.status == 429
        ]
        assert len(refused) >= 10
        assert all(after.arrived >= before.ended + RETRY_AFTER for before, after in refused)


async def test_connections_are_kept_and_reused(tmp_path: Path) -> None:
    async with (
        DemoServer(Behaviour(latency_ms=2)) as one,
        DemoServer(Behaviour(latency_ms=2)) as other,
        running(
            tmp_path,
            one.base_url,
            models__rejected__base_url=other.base_url,
            generation__concurrency=4,
            execution__adaptive_concurrency=False,
        ) as run,
    ):
        asked = many(one.base_url, 400) + many(other.base_url, 400, Purpose.REJECTED, "weak")
        await asyncio.gather(*map(run.client.ask, asked))
        for server in (one, other):
            assert server.stats.requests == 400
            assert server.stats.connections <= 16


async def test_two_models_on_one_provider_share_its_limit(tmp_path: Path) -> None:
    async with DemoServer() as server:
        limits = {server.base_url: 60 * 20}
        async with running(
            tmp_path, server.base_url, provider_rate_limits=limits, provider_burst_percent=1
        ) as run:
            asked = many(server.base_url, 15) + many(server.base_url, 15, Purpose.REJECTED, "weak")
            await asyncio.gather(*map(run.client.ask, asked))
    assert sorted({record.model for record in server.records}) == ["strong", "weak"]
    # Twelve at once, and twenty a second: the last cannot come before 0.9 s, whatever the machine does.
    assert server.records[-1].arrived - server.records[0].arrived >= (30 - 12) / 20 - 0.1


async def test_who_runs_into_a_limit_nobody_told_of_gets_everything(tmp_path: Path) -> None:
    # Refusals are at most what was under way when the bucket was empty, and a few more.
    async with (
        RateLimitedServer(Bucket(50.0, BURST, 1.0), Behaviour(latency_ms=5)) as server,
        running(tmp_path, server.base_url, generation__concurrency=4) as run,
    ):
        await asyncio.gather(*map(run.client.ask, many(server.base_url, 60)))
        statuses = server.stats.statuses
    assert statuses["200"] == 60
    assert statuses["429"] <= 60


MINUTE = "Retry-After: 60\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 60s\r\n"
LITELLM = "Crossed TPM / RPM / Max Parallel Request Limit"


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize(
    ("words", "headers"), [("Max parallel request limit reached", MINUTE), (LITELLM, MINUTE), ("No.", "")]
)
async def test_a_server_that_takes_so_many_at_once_is_sent_as_many_without_pauses_of_a_minute(
    tmp_path: Path, places: int, words: str, headers: str
) -> None:
    async with (
        CrowdedServer(places, 5, words, headers) as server,
        running(tmp_path, server.base_url, generation__concurrency=16) as run,
        asyncio.timeout(PATIENCE),
    ):
        await asyncio.gather(*map(run.client.ask, many(server.base_url, 80)))
        refused = server.stats.statuses["429"]
    # Those that it begins with are refused once, and after them nobody until it is time to try one more.
    assert refused <= 16 + 8
    assert run.progress.attempts_failed == refused
    assert all(record.status == 200 for record in server.records[24:60])


async def test_so_is_one_who_may_not_find_out_how_many(tmp_path: Path) -> None:
    async with (
        CrowdedServer(2, 5, LITELLM, MINUTE) as server,
        running(
            tmp_path,
            server.base_url,
            generation__concurrency=1,
            execution__adaptive_concurrency=False,
        ) as run,
        asyncio.timeout(PATIENCE),
    ):
        await asyncio.gather(*map(run.client.ask, many(server.base_url, 8)))
        assert server.stats.statuses["200"] == 8


async def test_a_server_that_queues_is_not_sent_more_than_it_works_on(tmp_path: Path) -> None:
    async with (
        QueueingServer(4, latency_ms=10) as server,
        running(tmp_path, server.base_url, generation__concurrency=64) as run,
    ):
        await asyncio.gather(*map(run.client.ask, many(server.base_url, 400)))
    # A limit of 256 was allowed; at the end of the run few were waiting in the server's queue.
    late = server.records[200:350]
    waiting = [sum(other.arrived <= each.arrived < other.ended for other in late) for each in late]
    assert sorted(waiting)[len(waiting) // 2] <= 16

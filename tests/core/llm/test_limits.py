"""Requests a minute: the places in the queue as a pure function of time, and who shares a limiter."""

from __future__ import annotations

import asyncio
import signal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config.models import Config
from tasks.core.errors import RunInterrupted
from tasks.core.llm.limits import Limits, RateLimiter
from tasks.core.llm.stop import Stop

NEARLY = 1e-6
"""Seconds, or requests, by which floating point may be off."""


def starts(limiter: RateLimiter, arrivals: list[float]) -> list[float]:
    """When requests that arrive at these times may start."""
    return [now + limiter.reserve(now) for now in arrivals]


@pytest.mark.parametrize(
    ("per_minute", "burst_percent", "at_once"),
    [(60, 15, 9), (60, 50, 30), (60, 1, 1), (1, 1, 1), (1, 50, 1), (10, 15, 1), (600, 15, 90), (100, 1, 1)],
)
def test_so_many_start_at_once(per_minute: int, burst_percent: int, at_once: int) -> None:
    begun = starts(RateLimiter(per_minute, burst_percent), [1000.0] * (at_once + 1))
    assert begun[:at_once] == pytest.approx([1000.0] * at_once, abs=NEARLY)
    assert begun[at_once] > 1000.0 + NEARLY


def test_after_the_burst_comes_one_each_interval() -> None:
    begun = starts(RateLimiter(60, 15), [0.0] * 14)
    assert begun == pytest.approx([0.0] * 9 + [1.0, 2.0, 3.0, 4.0, 5.0])


def test_an_hour_of_idling_gives_no_more_than_the_burst() -> None:
    limiter = RateLimiter(60, 15)
    starts(limiter, [0.0] * 20)
    assert starts(limiter, [3600.0] * 11) == pytest.approx([3600.0] * 9 + [3601.0, 3602.0])


def test_idling_refills_one_place_each_interval() -> None:
    limiter = RateLimiter(60, 15)
    starts(limiter, [0.0] * 9)
    assert starts(limiter, [3.0] * 4) == pytest.approx([3.0, 3.0, 3.0, 4.0])


@pytest.mark.parametrize("burst_percent", [1, 15, 50])
def test_zero_is_no_limit(burst_percent: int) -> None:
    assert starts(RateLimiter(0, burst_percent), [5.0] * 1000) == [5.0] * 1000


gaps = st.lists(st.floats(0, 30) | st.just(0.0), min_size=1, max_size=120)


@given(st.integers(1, 6000), st.integers(1, 50), gaps)
def test_no_window_holds_more_than_rate_and_burst(
    per_minute: int, burst_percent: int, between: list[float]
) -> None:
    limiter = RateLimiter(per_minute, burst_percent)
    now, arrivals = 0.0, []
    for gap in between:
        now += gap
        arrivals.append(now)
    begun = starts(limiter, arrivals)
    burst = max(1.0, per_minute * burst_percent / 100)
    for first, since in enumerate(begun):
        for last in range(first, len(begun)):
            seconds = begun[last] - since
            assert last - first + 1 <= seconds * per_minute / 60 + burst + NEARLY


@given(st.integers(1, 6000), st.integers(1, 50), gaps)
def test_who_came_first_starts_first(per_minute: int, burst_percent: int, between: list[float]) -> None:
    now, arrivals = 0.0, []
    for gap in between:
        now += gap
        arrivals.append(now)
    begun = starts(RateLimiter(per_minute, burst_percent), arrivals)
    assert all(start >= now for start, now in zip(begun, arrivals, strict=True))
    assert all(later >= earlier - NEARLY for earlier, later in pairwise(begun))


async def test_requests_pass_in_the_order_in_which_they_came() -> None:
    limiter, stop, passed = RateLimiter(60_000, 1), Stop(), []

    async def go(number: int) -> None:
        await limiter.acquire(stop)
        passed.append(number)

    # 600 at once, and the rest one each millisecond.
    await asyncio.gather(*(go(number) for number in range(620)))
    assert passed == list(range(620))


async def test_a_stop_ends_the_wait_for_a_place() -> None:
    limiter, stop = RateLimiter(1, 1), Stop()
    await limiter.acquire(stop)
    waiting = [asyncio.create_task(limiter.acquire(stop)) for _ in range(3)]
    await asyncio.sleep(0)
    stop.request(signal.SIGTERM)
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in ended} == {RunInterrupted}


def model(base_url: str, name: str, per_minute: int) -> dict[str, Any]:
    return {"base_url": base_url, "model_name": name, "rate_limit_per_minute": per_minute}


def config(main: dict[str, Any], rejected: dict[str, Any], limits: dict[str, int]) -> Config:
    return Config.model_validate(
        {
            "generation": {"main_topic": "Tea", "num_subtopics": 1, "num_prompts_per_subtopic": 1},
            "models": {"main": main, "rejected": rejected},
            "provider_rate_limits": limits,
        }
    )


def limiters(settings: Config) -> tuple[RateLimiter, RateLimiter]:
    limits = Limits(settings)
    assert settings.models.rejected is not None
    return limits.of(settings.models.main), limits.of(settings.models.rejected)


def test_each_model_has_its_own_limit() -> None:
    url = "https://api.openai.com/v1"
    main, rejected = limiters(config(model(url, "a", 60), model(url, "b", 600), {}))
    assert main is not rejected
    assert starts(main, [0.0] * 10)[-1] == pytest.approx(1.0)
    assert starts(rejected, [0.0] * 91)[-1] == pytest.approx(0.1)


def test_two_roles_of_one_model_share_its_limit() -> None:
    url = "https://api.openai.com/v1"
    main, rejected = limiters(config(model(url, "a", 60), model(url, "a", 60), {}))
    assert main is rejected


def test_a_limit_of_the_provider_stands_in_for_those_of_its_models() -> None:
    main, rejected = limiters(
        config(
            model("https://api.openai.com/v1", "a", 6),
            model("https://eu.api.openai.com/v1/", "b", 0),
            {"openai": 60},
        )
    )
    assert main is rejected
    assert starts(main, [0.0] * 10) == pytest.approx([0.0] * 9 + [1.0])


def test_a_limit_of_one_provider_leaves_another_alone() -> None:
    main, rejected = limiters(
        config(
            model("https://api.openai.com/v1", "a", 60),
            model("http://127.0.0.1:8000/v1", "b", 0),
            {"openai": 600},
        )
    )
    assert starts(main, [0.0] * 90) == [0.0] * 90
    assert starts(rejected, [0.0] * 100) == [0.0] * 100


def test_a_provider_limit_of_zero_lifts_the_limits_of_its_models() -> None:
    url = "http://127.0.0.1:8000/v1"
    main, rejected = limiters(config(model(url, "a", 1), model(url + "/", "b", 1), {url: 0}))
    assert main is rejected
    assert starts(main, [0.0] * 100) == [0.0] * 100

"""The pace learned from refusals: minutes of traffic in virtual time, against servers that limit a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.core.traffic.quota import IDLE, IN_A_ROW, LONGEST_PAUSE, Allowance, Pace, Quota
from tests.core.traffic.virtual import LATENCY, Bucket, Crowd, FixedWindow, Moody, SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.traffic.virtual import RateServer, Traffic

BEGUN = 10.0
"""Seconds after which a pace is to be known."""


def traffic(server: RateServer, seconds: float = 180.0, *, per_minute: int = 0) -> Traffic:
    return Crowd(server, Allowance(Quota(per_minute, 15))).ask_for(seconds)


@pytest.mark.parametrize("retry_after", [1.0, 0.1, None])
@pytest.mark.parametrize("burst", [10, 60])
def test_a_buckets_rate_is_used_and_hardly_anything_refused(burst: float, retry_after: float | None) -> None:
    seen = traffic(Bucket(10.0, burst, retry_after))
    assert seen.rate(0.0, 60.0) >= 0.95 * 10
    assert seen.rate(BEGUN, 180.0) >= 0.95 * 10
    assert seen.share_refused(BEGUN) < 0.01


@pytest.mark.parametrize("window", [SlidingWindow, FixedWindow])
def test_a_windows_rate_is_used_and_hardly_anything_refused(window: Callable[[int], RateServer]) -> None:
    seen = traffic(window(600))
    assert len(seen.taken) >= 0.95 * 3 * 600
    assert seen.share_refused(BEGUN) < 0.01
    # One crowd runs into the first window's end; no other one does.
    assert len(seen.refused) < 64 + 20


@pytest.mark.parametrize("window", [SlidingWindow, FixedWindow])
def test_who_is_told_the_limit_of_a_window_is_never_refused(window: Callable[[int], RateServer]) -> None:
    seen = traffic(window(600), per_minute=600)
    assert seen.refused == []
    assert len(seen.taken) >= 0.95 * 3 * 600


def test_a_pace_follows_a_rate_that_rises_and_falls() -> None:
    bucket = Bucket(10.0, 10.0, 1.0)
    crowd = Crowd(bucket, Allowance())
    crowd.ask_for(60.0)
    bucket.rate = 40.0
    crowd.ask_for(360.0)
    assert crowd.traffic.rate(300.0, 360.0) >= 0.95 * 40
    bucket.rate = 5.0
    crowd.ask_for(480.0)
    assert crowd.traffic.rate(420.0, 480.0) >= 0.95 * 5
    assert crowd.traffic.share_refused(420.0) < 0.02


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_refusals_that_no_pace_helps_against_slow_nothing_down_for_long(share: float) -> None:
    seen = traffic(Moody(share), 300.0)
    # Each of 64 asks, and where it is refused waits its second: nothing else holds it back.
    undisturbed = 64 / (LATENCY + share / (1 - share) * (1.0 + LATENCY))
    assert seen.rate(150.0, 300.0) >= 0.95 * undisturbed


def test_nothing_is_held_back_before_a_refusal() -> None:
    pace = Pace()
    for number in range(10_000):
        now = number / 10_000
        assert pace.wait(now) == (0.0, "")
        pace.take(now)
        pace.accepted(now)
    assert pace.per_second == 0.0


def test_one_refusal_holds_nobody_back_and_several_in_a_row_do_for_as_long_as_was_asked() -> None:
    pace = Pace()
    for _ in range(IN_A_ROW - 1):
        pace.refused(1.0, 7.0)
        assert pace.wait(1.0) == (0.0, "")
    pace.accepted(1.0)
    for _ in range(IN_A_ROW - 1):
        pace.refused(2.0, 7.0)
        assert pace.wait(2.0) == (0.0, "")
    pace.refused(2.0, 7.0)
    assert pace.wait(2.0) == (7.0, "backoff")
    # Of those that were under way, the last word counts.
    pace.refused(3.0, 9.0)
    assert pace.wait(3.0) == (9.0, "backoff")
    pace.refused(3.5, 1.0)
    assert pace.wait(3.5) == (8.5, "backoff")
    assert pace.wait(12.0)[0] == 0.0


def test_pauses_that_the_server_does_not_name_double_up_to_a_minute() -> None:
    pace, now, pauses = Pace(), 0.0, []
    for _ in range(9):
        for _ in range(IN_A_ROW):
            pace.refused(now, None)
        wait, why = pace.wait(now)
        assert why == "backoff"
        pauses.append(wait)
        now += wait
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, LONGEST_PAUSE, LONGEST_PAUSE])


def test_a_rest_that_the_server_names_is_kept_and_does_not_end_early() -> None:
    pace = Pace()
    pace.rest(0.0, 30.0)
    pace.rest(1.0, 2.0)
    assert pace.wait(1.0) == (29.0, "backoff")
    assert pace.wait(30.0) == (0.0, "")


def test_idling_saves_nothing_up() -> None:
    bucket = Bucket(10.0, 10.0, 1.0)
    allowance = Allowance()
    Crowd(bucket, allowance).ask_for(60.0)
    later, gone = 60.0 + 100 * IDLE, 0
    while allowance.wait(later, 0.0)[0] == 0.0:
        allowance.take(later, 0.0)
        gone += 1
    assert gone <= 3

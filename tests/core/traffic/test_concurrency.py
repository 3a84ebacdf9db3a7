"""The adaptive limit: settles near what a server works on, in virtual time; bounded whatever comes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.traffic.concurrency import CALM, FIRST, IN_A_ROW, AdaptiveLimit
from tests.core.traffic.virtual import SlotServer, fixed, work_through

MOST = 1024


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("slots", [4, 8, 20, 64])
def test_it_settles_near_the_slots_of_a_server_that_queues(slots: int, spread: float) -> None:
    limits = work_through(SlotServer(slots, spread=spread), AdaptiveLimit(MOST), 3000).limits
    settled = sorted(limits[len(limits) // 2 :])
    assert 0.75 * slots <= settled[len(settled) // 2] <= 1.5 * slots
    assert settled[-1] <= 2 * slots


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("slots", [8, 20])
def test_throughput_is_that_of_the_best_fixed_limit(slots: int, spread: float) -> None:
    best = min(
        work_through(SlotServer(slots, spread=spread), fixed(limit), 3000).seconds
        for limit in (slots // 2, slots, 2 * slots, 4 * slots)
    )
    assert work_through(SlotServer(slots, spread=spread), AdaptiveLimit(MOST), 3000).seconds <= 1.05 * best


def test_a_server_without_a_limit_is_sent_as_many_as_there_are() -> None:
    server = SlotServer(10**6, spread=0.3)
    settled = work_through(server, AdaptiveLimit(512), 20_000, demand=MOST)
    assert sum(limit == 512 for limit in settled.limits) >= len(settled.limits) // 2
    assert min(settled.limits) >= 0.75 * 512


def test_a_run_that_asks_for_little_does_not_lower_the_limit() -> None:
    # Five at once say nothing of what the server could do.
    assert min(work_through(SlotServer(10**6), AdaptiveLimit(64), 2000, demand=5).limits) >= FIRST


def test_answers_of_another_kind_may_take_longer() -> None:
    server = SlotServer(16, service=0.1)
    limit = AdaptiveLimit(MOST)
    work_through(server, limit, 2400)
    before = limit.limit
    server._service = 1.0
    work_through(server, limit, 2400, kind="judge")
    assert limit.limit >= 0.75 * before


def test_it_is_halved_when_answers_take_longer_without_becoming_more() -> None:
    server = SlotServer(32)
    limit = AdaptiveLimit(MOST)
    work_through(server, limit, 3000)
    settled = limit.limit
    server._free -= 28  # Others use the server now.
    assert limit.in_flight == 0
    work_through(server, limit, 600)
    assert limit.limit <= settled // 2


def refuse_in_a_row(limit: AdaptiveLimit, now: float) -> None:
    for _ in range(IN_A_ROW):
        limit.refused(now)


def test_refusals_in_a_row_halve_it_once_whatever_follows_at_once() -> None:
    limit = AdaptiveLimit(MOST)
    assert limit.limit == FIRST
    for now in (10.0, 10.1, 10.9):
        refuse_in_a_row(limit, now)
    assert limit.limit == FIRST // 2
    refuse_in_a_row(limit, 10.0 + CALM)
    assert limit.limit == FIRST // 4


def test_refusals_now_and_then_halve_nothing() -> None:
    limit = AdaptiveLimit(MOST)
    for second in range(100):
        limit.refused(10.0 + second)
        limit.refused(10.1 + second)
        limit.answered(10.2 + second, 0.1, "chosen")
    assert limit.limit >= FIRST


def test_it_never_falls_below_one() -> None:
    limit = AdaptiveLimit(MOST)
    for second in range(1, 100):
        refuse_in_a_row(limit, 2.0 * second)
    assert limit.limit == 1
    assert not limit.full


def test_refusals_for_too_many_at_once_leave_as_many_as_are_under_way_beside_them() -> None:
    limit, places = AdaptiveLimit(MOST), 3
    for _ in range(FIRST):
        limit.enter()
    for left in range(FIRST - 1, places - 1, -1):
        assert limit.crowded(10.0) == left
        limit.leave()
        assert limit.limit == left
    assert limit.full


def crowd(limit: AdaptiveLimit, places: int, answers: int) -> int:
    """Refusals of a server with so many places, while so many answers come one after the other."""
    refused = 0
    for number in range(answers):
        now = float(number)
        while not limit.full:
            limit.enter()
            if limit.in_flight > places:
                limit.crowded(now)
                limit.leave()
                refused += 1
        limit.answered(now, 0.001, "chosen")
        limit.leave()
    return refused


@pytest.mark.parametrize("places", [1, 2, 5])
def test_what_a_server_takes_at_once_is_kept_to_and_more_is_tried_ever_more_seldom(places: int) -> None:
    limit = AdaptiveLimit(MOST)
    assert crowd(limit, places, 1000) <= FIRST - places + 5
    assert crowd(limit, places, 10_000) <= 20


def test_places_that_become_free_are_found() -> None:
    limit = AdaptiveLimit(MOST)
    crowd(limit, 2, 500)
    crowd(limit, 8, 3000)
    assert limit.limit >= 6


def test_where_it_was_no_matter_of_how_many_the_limit_is_what_it_was() -> None:
    limit = AdaptiveLimit(MOST)
    for _ in range(FIRST):
        limit.enter()
    for _ in range(FIRST):
        limit.crowded(10.0)
        limit.leave()
    assert limit.limit == 1
    limit.not_crowded(11.0)
    assert limit.limit == FIRST
    assert limit.ceiling == 0


def test_a_fixed_limit_stays_what_it_is() -> None:
    limit = AdaptiveLimit(10, adaptive=False)
    work_through(SlotServer(2), limit, 600)
    limit.refused(1e6)
    assert limit.limit == 10


@given(
    st.integers(1, 300),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["enter", "enter", "enter", "answer", "answer", "leave", "refuse", "crowd", "clear"]
            ),
            st.floats(0, 3),
            st.floats(0, 100),
            st.sampled_from(["chosen", "chosen", "chosen", "judge"]),
            st.integers(1, 60),
        ),
        max_size=60,
    ),
)
def test_whatever_happens_it_stays_between_one_and_the_most(
    most: int, events: list[tuple[str, float, float, str, int]]
) -> None:
    limit, now = AdaptiveLimit(most), 0.0
    for event, gap, seconds, kind, times in events:
        for _ in range(times):
            now += gap
            step: dict[str, Any] = {"enter": not limit.full, "refuse": True, "clear": True}
            if not step.get(event, limit.in_flight):
                break
            if event == "enter":
                limit.enter()
            elif event == "refuse":
                limit.refused(now)
            elif event == "clear":
                limit.not_crowded(now)
            else:
                if event == "answer":
                    limit.answered(now, seconds, kind)
                if event == "crowd":
                    limit.crowded(now)
                limit.leave()
            assert 1 <= limit.limit <= most
            assert limit.in_flight >= 0
    assert limit.in_flight <= most

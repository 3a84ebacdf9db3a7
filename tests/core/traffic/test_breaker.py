"""The circuit breaker: opens after failures in a row, probes with one request, waits longer each time."""

from __future__ import annotations

import math

from tasks.core.traffic.lane import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert not breaker.open
        assert breaker.wait(now) == 0.0
        breaker.take()
        breaker.failed(now)
    assert breaker.open
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    assert opened(5.0).wait(5.0) == FIRST_PAUSE


def test_an_answer_or_a_refusal_between_them_begins_the_count_anew() -> None:
    breaker = Breaker()
    for heard in (breaker.succeeded, breaker.responded):
        for _ in range(FAILURES - 1):
            breaker.failed(0.0)
        heard()
    assert not breaker.open


def test_only_one_request_probes() -> None:
    breaker = opened()
    assert breaker.wait(FIRST_PAUSE) == 0.0
    breaker.take()
    assert breaker.wait(FIRST_PAUSE) == breaker.wait(1e9) == math.inf


def test_a_probe_that_succeeds_closes_the_circuit_and_one_that_is_refused_does_too() -> None:
    for heard in ("succeeded", "responded"):
        breaker = opened()
        breaker.take()
        getattr(breaker, heard)()
        assert not breaker.open
        assert breaker.wait(0.0) == 0.0


def test_each_probe_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(9):
        wait = breaker.wait(now)
        pauses.append(wait)
        now += wait
        breaker.take()
        breaker.failed(now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, LONGEST_PAUSE, LONGEST_PAUSE]


def test_after_an_answer_the_pauses_begin_anew() -> None:
    breaker = opened()
    for _ in range(4):
        breaker.take()
        breaker.failed(100.0)
    breaker.take()
    breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed(200.0)
    assert breaker.wait(200.0) == FIRST_PAUSE


def test_failures_of_those_that_were_under_way_prolong_nothing() -> None:
    breaker = opened(0.0)
    for now in (0.2, 0.5, 0.9):
        breaker.failed(now)
    assert breaker.wait(0.9) == FIRST_PAUSE - 0.9


def test_another_request_probes_when_the_first_was_cancelled() -> None:
    breaker = opened()
    breaker.take()
    breaker.idle()
    assert breaker.wait(FIRST_PAUSE) == 0.0


def test_it_knows_since_when_nothing_came() -> None:
    breaker = Breaker()
    since = [breaker.failing_since]
    assert breaker.suffered(3.0) == breaker.suffered(4.0) == 3.0
    breaker.responded()
    breaker.failed(9.0)
    since.append(breaker.failing_since)
    breaker.succeeded()
    since.append(breaker.failing_since)
    breaker.suffered(10.0)
    since.append(breaker.failing_since)
    assert since == [None, 3.0, None, 10.0]

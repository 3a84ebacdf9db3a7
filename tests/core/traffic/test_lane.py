"""Lanes on a real event loop: order, places that never leak, stops, shared allowances, patience."""

from __future__ import annotations

import asyncio
import math
import signal
from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import EndpointError, RunInterrupted
from tasks.core.exchange.attempt import AttemptError, Verdict
from tasks.core.exchange.limit_headers import NO_ADVICE, Advice
from tasks.core.progress import Progress
from tasks.core.traffic import lane as lanes
from tasks.core.traffic.concurrency import (
    ALONE,
    ALONE_IN_SILENCE,
    DOUBTS,
    IN_A_ROW,
    LONGEST_POLL,
    SILENT,
    UNSUSPECTED,
    AdaptiveLimit,
)
from tasks.core.traffic.lane import FAILURES, FIRST_PAUSE, MOST_UNUSABLE, Lane
from tasks.core.traffic.quota import Allowance, Quota
from tasks.core.traffic.stop import Stop, standstills
from tests.core.traffic.test_quota import waited

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS = 10
"""Turns of the loop in which whoever may go has gone."""


class Way:
    """A lane with everything that it was given, and those that have entered it."""

    def __init__(
        self,
        places: int = 1000,
        *,
        allowance: Allowance | None = None,
        stop: Stop | None = None,
        patience: float = math.inf,
        longest_wait: float = math.inf,
    ) -> None:
        self.limit = AdaptiveLimit(places, adaptive=False)
        self.allowance = allowance or Allowance()
        self.stop = stop or Stop()
        self.progress = Progress()
        self.lane = Lane(
            "strong at here",
            self.allowance,
            self.limit,
            stop=self.stop,
            progress=self.progress,
            patience=patience,
            longest_wait=longest_wait,
        )
        self.entered: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}

    def send(self, number: int, tokens: float = 0.0) -> asyncio.Task[None]:
        """Begin an attempt, which ends when its gate is opened."""
        self.gates[number] = gate = asyncio.Event()

        async def attempt() -> None:
            await self.lane.enter(tokens)
            with self.lane.passage():
                self.entered.append(number)
                await gate.wait()

        return asyncio.create_task(attempt())

    def free(self) -> bool:
        """Whether nobody holds a place and nobody waits for one."""
        return self.limit.in_flight == self.progress.in_flight == 0 and not self.lane._queue


async def settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time that lanes read; timers run by the loop's own."""
    passed = 0.0
    monkeypatch.setattr(Lane, "_now", lambda _: 1000.0 + passed)

    def move(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    return move


async def test_who_came_first_goes_first() -> None:
    way = Way(places=3)
    tasks = [way.send(number) for number in range(10)]
    await settle()
    assert way.entered == [0, 1, 2]
    assert way.progress.held == {"strong at here": "server"}
    for number in (1, 0, 2, 3, 4, 5, 6, 7, 8, 9):
        way.gates[number].set()
        await settle()
    assert way.entered == list(range(10))
    await asyncio.gather(*tasks)
    assert way.free()
    assert way.progress.held == {}


async def test_who_waits_for_an_allowance_holds_no_place() -> None:
    way = Way(places=4, allowance=Allowance(Quota(1, 1)))
    tasks = [way.send(number) for number in range(4)]
    await settle()
    assert way.entered == [0]
    assert way.limit.in_flight == way.progress.in_flight == 1
    assert way.progress.held == {"strong at here": "limit"}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert way.free()


async def test_a_large_request_waits_for_its_tokens_and_those_behind_it_wait_too() -> None:
    way = Way(allowance=Allowance(tokens=Quota(1000)))
    tasks = [way.send(0, tokens=600.0), way.send(1, tokens=600.0), way.send(2, tokens=1.0)]
    await settle()
    assert way.entered == [0]
    # It cost less than was thought.
    way.lane.answered_in(0.1, "chosen", expected=600.0, spent=100.0)
    way.gates[0].set()
    await settle()
    assert way.entered == [0, 1, 2]
    for gate in way.gates.values():
        gate.set()
    await asyncio.gather(*tasks)


async def test_no_place_is_lost_when_those_that_wait_are_cancelled() -> None:
    way = Way(places=2)
    tasks = [way.send(number) for number in range(6)]
    await settle()
    for number in (2, 3):
        tasks[number].cancel()
    await settle()
    for gate in way.gates.values():
        gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert way.entered == [0, 1, 4, 5]
    assert way.free()


async def test_no_place_is_lost_when_one_is_cancelled_that_was_let_in_and_has_not_gone_on() -> None:
    way = Way(places=1)
    await way.lane.enter(0.0)
    second, third = way.send(2), way.send(3)
    await settle()
    with way.lane.passage():
        pass
    # The second has its place now, and does not know it yet.
    assert way.limit.in_flight == 1
    second.cancel()
    way.gates[3].set()
    await third
    assert way.entered == [3]
    assert way.free()


@pytest.mark.parametrize("turns", range(6))
async def test_no_place_is_lost_whenever_a_waiting_one_is_cancelled(turns: int) -> None:
    way = Way(places=1)
    first, second, third = (way.send(number) for number in range(3))
    await settle()
    way.gates[0].set()
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    for gate in way.gates.values():
        gate.set()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert 2 in way.entered
    assert way.free()


async def test_a_stop_releases_everybody_at_once_and_lets_nobody_in() -> None:
    way = Way(places=2)
    tasks = [way.send(number) for number in range(50)]
    await settle()
    way.stop.request(RunInterrupted(signal.SIGTERM))
    await settle()
    assert sum(task.done() for task in tasks) == 48
    for number in (0, 1):
        way.gates[number].set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in ended[2:]] == [RunInterrupted] * 48
    assert way.entered == [0, 1]
    assert way.free()
    with pytest.raises(RunInterrupted):
        await way.lane.enter(0.0)
    assert way.free()


async def test_an_exception_in_an_attempt_frees_its_place() -> None:
    way = Way(places=1)
    for _ in range(3):
        await way.lane.enter(0.0)
        with pytest.raises(ZeroDivisionError), way.lane.passage():
            raise ZeroDivisionError
    assert way.free()


async def test_two_lanes_share_an_allowance() -> None:
    quota = Quota(600, 1)
    one, other = (Way(allowance=Allowance(quota)) for _ in range(2))
    tasks = [way.send(number) for number in range(10) for way in (one, other)]
    await settle()
    assert len(one.entered) + len(other.entered) == 6
    # The rest go one each tenth of a second, whichever lane they are in: both lanes go on by themselves.
    for way in (one, other):
        for gate in way.gates.values():
            gate.set()
    await asyncio.gather(*tasks)
    assert one.entered == other.entered == list(range(10))


async def test_two_lanes_share_what_refusals_teach(clock: Callable[[float], None]) -> None:
    shared = Allowance()
    one, other = (Way(allowance=Allowance(pace=shared.pace)) for _ in range(2))
    for _ in range(3):
        one.lane.refused(5.0)
    task = other.send(0)
    await settle()
    assert other.entered == []
    assert other.progress.held == {"strong at here": "backoff"}
    clock(5.0)
    other.lane._pump()
    await settle()
    assert other.entered == [0]
    other.gates[0].set()
    await task


async def test_an_endpoint_that_only_fails_is_left_alone_then_tried_with_one(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    way = Way()
    for _ in range(FAILURES):
        way.lane.failed()
    assert "strong at here only fails" in caplog.text
    tasks = [way.send(number) for number in range(5)]
    await settle()
    assert way.entered == []
    assert way.progress.held == {"strong at here": "backoff"}
    clock(FIRST_PAUSE)
    way.lane._pump()
    await settle()
    assert way.entered == [0]
    # The one that probes fails: twice the pause.
    way.lane.failed()
    way.gates[0].set()
    clock(FIRST_PAUSE)
    way.lane._pump()
    await settle()
    assert way.entered == [0]
    clock(FIRST_PAUSE)
    way.lane._pump()
    await settle()
    assert way.entered == [0, 1]
    way.lane.answered_in(0.1, "chosen", 0.0, 0.0)
    way.gates[1].set()
    await settle()
    assert way.entered == [0, 1, 2, 3, 4]
    for gate in way.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert caplog.text.count("only fails") == 1


async def test_a_probe_that_is_cancelled_blocks_nobody(clock: Callable[[float], None]) -> None:
    way = Way()
    for _ in range(FAILURES):
        way.lane.failed()
    clock(FIRST_PAUSE)
    probe, next_one = way.send(0), way.send(1)
    await settle()
    assert way.entered == [0]
    probe.cancel()
    await settle()
    assert way.entered == [0, 1]
    way.gates[1].set()
    await next_one


@pytest.mark.parametrize("what", ["failed", "refused"])
async def test_a_model_that_brings_nothing_for_too_long_stops_the_run(
    clock: Callable[[float], None], what: str
) -> None:
    way = Way(patience=600.0)

    def suffer() -> None:
        way.lane.failed() if what == "failed" else way.lane.refused(1.0)

    suffer()
    clock(500.0)
    suffer()
    way.lane.answered_in(0.1, "chosen", 0.0, 0.0)
    for seconds in (0.0, 300.0, 299.0):
        clock(seconds)
        suffer()
        assert not way.stop.requested
    clock(2.0)
    suffer()
    with pytest.raises(EndpointError, match="strong at here has brought no answer for 10 minutes"):
        way.stop.check()


async def test_a_stop_and_a_warning_end_with_the_last_words_of_the_server(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    way = Way(patience=600.0)
    for number in range(FAILURES):
        way.lane.note(AttemptError("http_503", f"HTTP 503: try {number}"))
        way.lane.failed()
    assert caplog.text.strip().endswith("then tried again; last: HTTP 503: try 9")
    clock(601.0)
    way.lane.note(AttemptError("rate_limited", "HTTP 429: come back"))
    way.lane.refused(1.0)
    with pytest.raises(EndpointError, match=r"for 10 minutes; .*; last: HTTP 429: come back$"):
        way.stop.check()


async def test_a_server_is_waited_for_no_longer_than_patience_lasts(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    way = Way(patience=600.0)
    waits = []
    for seconds in (0.0, 400.0, 199.5):
        clock(seconds)
        error = AttemptError("rate_limited", "HTTP 429: no", advice=Advice(3600.0, words="Retry-After: 3600"))
        way.lane.note(error)
        way.lane.refused(error.retry_after)
        waits.append(error.retry_after)
    assert waits == [600.0, 200.0, FIRST_PAUSE]
    # Said once: what it asks for, and what is done.
    assert caplog.text.count("asked again in 600 s; last: HTTP 429: no (Retry-After: 3600)") == 1
    assert caplog.text.count("longer than execution.patience_minutes") == 1
    assert not way.stop.requested
    clock(1.0)
    way.lane.refused(None)
    with pytest.raises(EndpointError, match=r"last: HTTP 429: no \(Retry-After: 3600\)$"):
        way.stop.check()


async def test_a_model_of_endless_retries_is_asked_again_in_the_end(clock: Callable[[float], None]) -> None:
    way = Way(longest_wait=600.0)
    clock(10_000.0)
    error = AttemptError("http_503", "HTTP 503: no", advice=Advice(1e20))
    way.lane.note(error)
    assert error.retry_after == 600.0


async def test_a_standstill_takes_nothing_of_the_patience(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(patience=600.0)
    way.lane.failed()
    with standstills() as found:
        monkeypatch.setattr(found, "lost", 3000.0)
        clock(3500.0)
        way.lane.failed()
        assert not way.stop.requested
        clock(200.0)
        way.lane.failed()
    with pytest.raises(EndpointError, match="no answer for 12 minutes"):
        way.stop.check()


@pytest.mark.parametrize("adaptive", [False, True])
async def test_without_descriptors_fewer_are_under_way_for_good(
    caplog: pytest.LogCaptureFixture, *, adaptive: bool
) -> None:
    way = Way(places=16)
    way.limit.adaptive = adaptive
    tasks = [way.send(number) for number in range(16)]
    await settle()
    error = AttemptError("connection", "no file descriptor", verdict=Verdict.THROTTLED, starved=True)
    for number in range(15):
        way.lane.note(error)
        assert way.lane.crowded(error) == 0.0
        way.gates[number].set()
        await settle()
    assert way.limit.limit == 1
    way.lane.note(error)
    assert way.lane.crowded(error) == LONGEST_POLL
    assert (
        caplog.text.count("strong at here is asked less at a time: no file descriptor; raise the limit") == 1
    )
    way.gates[15].set()
    await asyncio.gather(*tasks)
    for _ in range(1000):
        way.limit.answered(1.0, 0.001, "chosen")
    assert way.limit.limit == 1


async def test_ten_responses_in_a_row_that_are_no_answer_stop_the_run_and_an_answer_begins_anew() -> None:
    way = Way()
    unusable = AttemptError("malformed_response", "not a chat completion: {}")
    for _ in range(2):
        for _ in range(MOST_UNUSABLE - 1):
            way.lane.note(unusable)
            way.lane.note(AttemptError("http_503", "HTTP 503: not now"))
        assert not way.stop.requested
        way.lane.answered_in(0.1, "chosen", 0.0, 0.0)
    for _ in range(MOST_UNUSABLE):
        way.lane.note(unusable)
    with pytest.raises(EndpointError, match=r"10 requests in a row .*; last: not a chat completion: {}$"):
        way.stop.check()


def refusal(*, crowded: bool = False, advice: Advice = NO_ADVICE) -> AttemptError:
    return AttemptError("rate_limited", "no", verdict=Verdict.THROTTLED, crowded=crowded, advice=advice)


async def full_way() -> tuple[Way, AdaptiveLimit]:
    """A way whose adaptive limit is reached."""
    way = Way()
    way.lane._limit = way.limit = limit = AdaptiveLimit(64)
    for _ in range(limit.limit):
        await way.lane.enter(0.0)
    return way, limit


async def test_who_is_refused_for_too_many_at_once_waits_for_a_place_and_not_for_a_minute() -> None:
    way, limit = await full_way()
    before = limit.limit
    minute = Advice(retry_after=60.0)
    assert way.lane.crowded(refusal(crowded=True, advice=minute)) == 0.0
    assert limit.limit == before - 1
    assert way.allowance.wait(way.lane._now(), 0.0) == (0.0, "")


async def test_a_refusal_that_speaks_of_rates_is_one_of_a_rate() -> None:
    for advice in (Advice(retry_after=1.0), Advice(reset_requests=1.0), Advice(limit_tokens=5)):
        way, limit = await full_way()
        before = limit.limit
        assert [way.lane.crowded(refusal(advice=advice)) for _ in range(9)] == [None] * 9
        assert limit.limit == before


async def test_silent_refusals_are_tried_as_too_many_at_once_when_they_are_no_accident() -> None:
    way, limit = await full_way()
    before = limit.limit
    assert [way.lane.crowded(refusal()) for _ in range(SILENT)] == [None] * (SILENT - 1) + [0.0]
    assert limit.limit == before - 1


@pytest.mark.parametrize(("crowded", "polls"), [(True, ALONE), (False, ALONE_IN_SILENCE)])
async def test_who_is_refused_alone_is_not_refused_for_too_many_at_once(
    clock: Callable[[float], None], polls: int, *, crowded: bool
) -> None:
    way, limit = await full_way()
    before = limit.limit
    while limit.in_flight > 1:
        way.lane.crowded(refusal(crowded=crowded))
        with way.lane.passage():
            way.progress.in_flight = 1
    delays = [way.lane.crowded(refusal(crowded=crowded)) for _ in range(polls + 1)]
    assert delays == [min(LONGEST_POLL, 0.25 * 2**number) for number in range(polls)] + [None]
    assert limit.limit == before
    # From then on it is taken for a rate, for a while.
    assert [way.lane.crowded(refusal(crowded=crowded)) for _ in range(9)] == [None] * 9
    clock(UNSUSPECTED)
    assert way.lane.crowded(refusal(crowded=True)) == 0.25


async def test_single_refusals_at_ever_fewer_at_once_show_that_their_number_is_not_the_reason() -> None:
    way, limit = await full_way()
    before = limit.limit
    for _ in range(SILENT):
        way.lane.crowded(refusal())
    delays = []
    for _ in range(DOUBTS + 1):
        way.lane.answered_in(0.1, "chosen", 0.0, 0.0)
        way.lane._leave()
        delays.append(way.lane.crowded(refusal()))
    assert delays == [0.0] * DOUBTS + [None]
    assert limit.limit == before


async def test_what_the_server_says_is_left_is_heeded(clock: Callable[[float], None]) -> None:
    for advice in (
        Advice(remaining_requests=0, reset_requests=20.0),
        Advice(remaining_tokens=0, reset_tokens=20.0),
    ):
        way = Way()
        way.lane.heed(Advice(remaining_requests=1, reset_requests=20.0, remaining_tokens=5, reset_tokens=9.0))
        way.lane.heed(Advice(remaining_requests=0))
        assert way.allowance.wait(way.lane._now(), 0.0) == (0.0, "")
        way.lane.heed(advice)
        task = way.send(0)
        await settle()
        assert way.entered == []
        assert waited(way.allowance, way.lane._now(), 0.0) == (20.0, "backoff")
        clock(20.0)
        way.lane._pump()
        way.gates[0].set()
        await task


async def test_a_days_limit_is_believed_only_when_it_refuses() -> None:
    way = Way()
    way.lane.heed(Advice(remaining_requests=0, reset_requests=lanes.TOLD_TO_WAIT + 1))
    assert way.allowance.wait(way.lane._now(), 0.0) == (0.0, "")


async def test_a_limit_that_the_server_names_is_kept_when_it_is_lower(clock: Callable[[float], None]) -> None:
    clock(0.0)
    way = Way(allowance=Allowance(Quota(600, 100), Quota(0)))
    way.lane.heed(Advice(limit_requests=3, limit_tokens=1000))
    tasks = [way.send(number, tokens=10.0) for number in range(5)]
    await settle()
    assert way.entered == [0, 1, 2]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_tokens_are_expected_from_the_text_at_first_and_then_from_what_was_reported() -> None:
    lane = Way().lane
    assert lane.expected_tokens("chosen", 4000, 400) == 1100.0
    lane.answered_in(0.1, "chosen", expected=1100.0, spent=300.0)
    assert lane.expected_tokens("chosen", 4000, 400) == 300.0
    for _ in range(200):
        lane.answered_in(0.1, "chosen", expected=300.0, spent=500.0)
    assert lane.expected_tokens("chosen", 4000, 400) == pytest.approx(500.0, abs=1)
    assert lane.expected_tokens("judge", 4000, 400) == 1100.0


async def test_a_refusal_lowers_the_limit_only_where_the_limit_held_back() -> None:
    way = Way()
    way.lane._limit = limit = AdaptiveLimit(64)
    before = limit.limit
    way.lane.refused(0.0)
    assert limit.limit == before
    tasks = [way.send(number) for number in range(before + 1)]
    await settle()
    assert limit.full
    for _ in range(IN_A_ROW):
        way.lane.refused(0.0)
    assert limit.limit == before // 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

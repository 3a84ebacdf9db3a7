"""The switch that stops a run, and deadlines: what ends a wait, and what a standstill does not."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tasks.core.errors import RunInterrupted
from tasks.core.traffic import stop as stops
from tasks.core.traffic.stop import ROUNDS, Deadline, Standstills, Stop, awake

A_DAY = 86_400.0


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_exit_code_is_that_of_the_signal(number: signal.Signals, exit_code: int) -> None:
    stop = Stop()
    stop.check()
    stop.request(RunInterrupted(number))
    assert stop.requested
    with pytest.raises(RunInterrupted, match=number.name) as caught:
        stop.check()
    assert caught.value.exit_code == exit_code


async def test_the_first_signal_counts() -> None:
    stop = Stop()
    assert not stop.requested
    stop.request(RunInterrupted(signal.SIGTERM))
    stop.request(RunInterrupted(signal.SIGINT))
    with pytest.raises(RunInterrupted) as caught:
        stop.check()
    assert caught.value.exit_code == 143


async def test_every_pause_is_woken_at_once() -> None:
    stop = Stop()
    pauses = [asyncio.create_task(stop.sleep(A_DAY)) for _ in range(100)]
    await asyncio.sleep(0)
    stop.request(RunInterrupted(signal.SIGINT))
    woken = await asyncio.gather(*pauses, return_exceptions=True)
    assert {type(error) for error in woken} == {RunInterrupted}


async def test_no_pause_begins_after_the_stop() -> None:
    stop = Stop()
    stop.request(RunInterrupted(signal.SIGINT))
    for seconds in (0.0, A_DAY):
        with pytest.raises(RunInterrupted):
            await stop.sleep(seconds)


@pytest.mark.parametrize("seconds", [0.0, 0.001])
async def test_a_pause_ends_by_itself(seconds: float) -> None:
    await Stop().sleep(seconds)


async def test_a_stop_in_the_moment_a_pause_ends_is_not_missed() -> None:
    stop = Stop()
    pause = asyncio.create_task(stop.sleep(0.0))
    loop = asyncio.get_running_loop()
    # Runs after the pause's own timer and before the pause itself goes on.
    loop.call_soon(loop.call_soon, stop.request, RunInterrupted(signal.SIGINT))
    with pytest.raises(RunInterrupted):
        await pause


async def test_being_cancelled_is_not_taken_for_the_end_of_a_pause() -> None:
    stop = Stop()
    pause = asyncio.create_task(stop.sleep(A_DAY))
    await asyncio.sleep(0)
    pause.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pause


class Clocks:
    """The clocks of a machine on which a process can be stopped, and which can sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop, self.slept = asyncio.get_running_loop(), 0.0
        self.stopped = 0.0
        real = self.loop.time
        monkeypatch.setattr(self.loop, "time", lambda: real() + self.stopped)
        monkeypatch.setitem(stops._standstills, self.loop, Standstills(self.elapsed))

    def elapsed(self) -> float:
        return self.loop.time() + self.slept


async def ended(deadline: float) -> bool:
    """Whether what takes no time at all, but several turns of the loop, is done before a deadline."""
    try:
        async with Deadline(deadline):
            await asyncio.Event().wait()
    except TimeoutError:
        return True
    return False


async def test_a_deadline_ends_what_takes_too_long() -> None:
    began = time.monotonic()
    assert await ended(0.05)
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("sleeps", [False, True])
async def test_a_deadline_that_passed_in_a_standstill_leaves_a_grace(
    monkeypatch: pytest.MonkeyPatch, *, sleeps: bool
) -> None:
    monkeypatch.setattr(stops, "GRACE", 0.3)
    clocks = Clocks(monkeypatch)
    waiting = asyncio.create_task(ended(0.05))
    await asyncio.sleep(0)
    if sleeps:
        # The loop's clock stood still as well: the deadline is still to come, and comes too soon.
        clocks.slept += 1000.0
    else:
        clocks.stopped += 1000.0
    began = time.monotonic()
    assert await waiting
    assert time.monotonic() - began >= 0.3


async def test_time_in_which_the_process_stood_still_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    with stops.standstills():
        before = awake()
        clocks.stopped += 600.0
        assert 0.0 <= awake() - before < 300.0


async def test_a_deadline_lets_through_what_comes_at_the_last_moment() -> None:
    async with Deadline(0.0):
        for _ in range(ROUNDS):
            await asyncio.sleep(0)

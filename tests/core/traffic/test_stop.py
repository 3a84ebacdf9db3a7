"""The switch that stops a run: it wakes every pause, and the exit code names the signal."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tasks.core.errors import RunInterrupted
from tasks.core.traffic.stop import Stop

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

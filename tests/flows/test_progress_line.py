"""The line that says how far a run is and what it waits for."""

from __future__ import annotations

import time

from flows.process.progress import describe, waited_for
from tasks.core.progress import Progress


def test_calls_that_wait_are_said_with_the_longest_time_and_why() -> None:
    waits = [(101.5, True), (158.0, True), (100.5, True), (130.0, False)]
    assert waited_for(waits, 100.0) == [
        "2 calls wait up to 58s as asked by the server",
        "1 call waits up to 30s to be tried again",
    ]
    assert waited_for(waits, 200.0) == []


def test_a_wait_is_on_the_line_as_long_as_it_lasts() -> None:
    progress = Progress()
    with progress.waiting(90.0, asked=True), progress.waiting(0.2, asked=False):
        assert "1 call waits up to 1m" in describe(progress, 0.0)
        assert max(until for until, _ in progress.waits.values()) > time.monotonic()
    assert "wait" not in describe(progress, 0.0)

"""What connects a run to the terminal that started it: its counters, its stop switch, its signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tasks.core.llm.stop import Stop
from tasks.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.core.summary import Summary

GRACE_SECONDS = 10.0
"""How long calls in flight may take to finish after the first signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Console:
    """The counters and the stop switch of one run, and how its work began and ended.

    Whether Prefect then takes note of the end is another matter, which the work must not wait for.

    Attributes:
        progress: The counters.
        stop: The switch.
        session: The name of the run's session, once it is open.
        summary: The run's summary, once it went through.
        begun: Whether the work began.
        error: What ended the work, if not its last line.
        over: Set when the work has ended and its files are closed.
    """

    def __init__(self) -> None:
        self.session = ""
        self.summary: Summary | None = None
        self.progress = Progress()
        self.stop = Stop()
        self.begun = False
        self.error: BaseException | None = None
        self.over = asyncio.Event()

    @contextmanager
    def work(self) -> Iterator[None]:
        """The work of the run: what happens in the block is noted, and signals stop it in order."""
        self.begun = True
        try:
            with self.signals():
                yield
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.over.set()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Stop in order on the first SIGINT or SIGTERM, leave at once on the second.

        The first lets calls in flight finish for `GRACE_SECONDS`, then cancels the current task.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Signals reach the main thread alone; whoever runs there decides.
            return
        loop = asyncio.get_running_loop()
        work = asyncio.current_task()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        ends: list[asyncio.TimerHandle] = []

        def receive(number: signal.Signals) -> None:
            if self.stop.requested:
                os._exit(128 + number)
            self.stop.request(number)
            print(  # noqa: T201 - the terminal's own line
                f"\nstopping: no new calls; up to {GRACE_SECONDS:g} s for those in flight "
                f"({self.progress.in_flight}); once more to leave at once",
                file=sys.stderr,
            )
            if work is not None:
                ends.append(loop.call_later(GRACE_SECONDS, work.cancel))

        for number in SIGNALS:
            loop.add_signal_handler(number, receive, number)
        try:
            yield
        except asyncio.CancelledError:
            self.stop.check()
            raise
        finally:
            for end in ends:
                end.cancel()
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])


current: ContextVar[Console] = ContextVar("console")
"""The console of the run that was started here; a worker's run has none and makes its own."""

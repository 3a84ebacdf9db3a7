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

from tasks.core.errors import RunInterrupted
from tasks.core.llm.stop import Stop
from tasks.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.terminal import Shown

IN_WORKER = "PREFECT__FLOW_RUN_ID"
"""Set by a Prefect worker for the processes that it starts."""

WORKER_GRACE_SECONDS = 20.0
"""A worker kills 30 s after it sent SIGTERM: what is left is for the files and Prefect's last word."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Console:
    """The counters and the stop switch of one run, and how its work began and ended.

    Whether Prefect then takes note of the end is another matter, which the work must not wait for.

    Attributes:
        progress: The counters.
        stop: The switch.
        grace_seconds: How long calls in flight may take after the first signal; none before the settings are
            read, for there is no call then.
        session: The name of the run's session, once it is open.
        summary: The run's summary, once it went through.
        begun: Whether the work began.
        interrupted: Whether a signal came.
        error: What ended the work, if not its last line.
        over: Set when the work has ended and its files are closed.
    """

    def __init__(self) -> None:
        self.grace_seconds = 0.0
        self.session = ""
        self.summary: Shown | None = None
        self.progress = Progress()
        self.stop = Stop()
        self.begun = False
        self.interrupted = False
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

        The first lets calls in flight finish for `grace_seconds`, then cancels the current task.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Signals reach the main thread alone; whoever runs there decides.
            return
        loop = asyncio.get_running_loop()
        work = asyncio.current_task()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        ends: list[asyncio.TimerHandle] = []

        def receive(number: signal.Signals) -> None:
            if self.interrupted:
                os._exit(128 + number)
            self.interrupted = True
            self.stop.request(RunInterrupted(number))
            grace = self.grace_seconds
            if IN_WORKER in os.environ:
                grace = min(grace, WORKER_GRACE_SECONDS)
            print(  # noqa: T201 - the terminal's own line
                f"\nstopping: no new calls; up to {grace:g} s for those in flight "
                f"({self.progress.in_flight}); once more to leave at once",
                file=sys.stderr,
            )
            if work is not None:
                ends.append(loop.call_later(grace, work.cancel))

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

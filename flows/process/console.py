"""A run and its terminal: what is shown, what is said, and the signals that stop it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import rich.console
from rich.logging import RichHandler
from rich.segment import Segment
from rich.text import Text

from flows.process.end import IN_WORKER
from flows.process.terminal import note
from tasks.core.errors import RunInterrupted
from tasks.core.printable import shown, shown_line
from tasks.core.progress import Progress
from tasks.core.session.dataset import ROOT
from tasks.core.traffic.stop import Alarm, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flows.process.terminal import (
        Shown,
    )


WORKER_GRACE_SECONDS = 20.0
"""A worker kills 30 s after it sent SIGTERM: what is left is for the files and Prefect's last word."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Console:
    """The counters and the stop switch of one run, and how its work began and ended.

    Whether Prefect then takes note of the end is another matter, which the work must not wait for.

    Args:
        checked: What was asked for, where it is checked already.
        takes_signals: Whether SIGINT and SIGTERM are for the run; in a process of somebody else they are not.

    Attributes:
        checked: What was asked for, as it was checked; None where the flow checks it.
        progress: The counters.
        stop: The switch.
        grace_seconds: How long calls in flight may take after the first signal; none before the settings are
            read, for there is no call then.
        folder: The folder of the run's session, once it is open.
        summary: The run's summary, once it went through.
        begun: Whether the work began.
        interrupted: Whether a signal came.
        error: What ended the work, if not its last line.
        over: Set when the work has ended and its files are closed.
    """

    def __init__(self, checked: Any = None, *, takes_signals: bool = True) -> None:
        self._takes_signals = takes_signals
        self.checked = checked
        self.grace_seconds = 0.0
        self.folder: Path | None = None
        self.summary: Shown | None = None
        self.progress = Progress()
        self.stop = Stop()
        self.begun = False
        self.interrupted = False
        self.error: BaseException | None = None
        self.over = asyncio.Event()

    @property
    def session(self) -> str:
        """The name of the run's session, "" before it is open."""
        return self.folder.name if self.folder else ""

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

        The first lets calls in flight finish for `grace_seconds`, then cancels the current task. Below a
        worker the second is the first once more: worker, service manager and shield may each send it.
        """
        if not self._takes_signals or threading.current_thread() is not threading.main_thread():
            yield  # Signals reach the main thread alone; whoever runs there decides.
            return
        loop = asyncio.get_running_loop()
        work = asyncio.current_task()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        ends: list[Alarm] = []

        def receive(number: signal.Signals) -> None:
            below_worker = IN_WORKER in os.environ
            if self.interrupted:
                if below_worker:
                    return
                os._exit(128 + number)
            self.interrupted = True
            self.stop.request(RunInterrupted(number))
            grace = min(self.grace_seconds, WORKER_GRACE_SECONDS) if below_worker else self.grace_seconds
            if work is not None:
                ends.append(Alarm(grace, work.cancel))
            note(
                "",
                f"stopping: no new calls; up to {grace:g} s for those in flight "
                f"({self.progress.in_flight}){'' if below_worker else '; once more to leave at once'}",
            )

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


class Screen(rich.console.Console):
    """A console of rich's on which every text stands as it is: no markup, and nothing that is hidden."""

    def print_line(self, text: str) -> None:
        """Print one line, whatever its text."""
        self.print(Text(shown_line(text)), soft_wrap=True)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """What is to be printed, on its way there; rich renders the parts of a whole through this, too."""
        if isinstance(renderable, Text) and (plain := shown(renderable.plain)) != renderable.plain:
            # Before it is laid out: a number is as wide as it is.
            renderable = renderable.copy()
            renderable.plain = plain
        for segment in super().render(renderable, options):
            # What moves the cursor is rich's own.
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


stderr = Screen(stderr=True)
"""The one console on standard error: records and the live progress must not overwrite each other."""


class ShownRecord(logging.Formatter):
    """A record of the log as it may be shown: its message on one line, then a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        line = shown_line(record.getMessage())
        return f"{line}\n{shown(self.formatException(record.exc_info))}" if record.exc_info else line


def show_records(*, verbose: bool) -> None:
    """Show the project's log records from level WARNING, or INFO when verbose, on standard error."""
    handler = RichHandler(console=stderr, show_time=False, show_path=False, rich_tracebacks=False)
    handler.setFormatter(ShownRecord())
    handler.setLevel(logging.INFO if verbose else logging.WARNING)
    logger = logging.getLogger(ROOT)
    # A process that runs several commands shows each record once.
    for earlier in [each for each in logger.handlers if isinstance(each, RichHandler)]:
        logger.removeHandler(earlier)
    logger.addHandler(handler)

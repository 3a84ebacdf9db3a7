"""The progress of a run on standard error: a live line in a terminal, else a line every few seconds."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.process.console import stderr
from tasks.core.models import Phase
from tasks.core.printable import shown_line
from tasks.core.progress import pairs_in_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from tasks.core.progress import Progress

LIVE_SECONDS = 0.25
LINE_SECONDS = 5.0
BAR_WIDTH = 24
RATE_WINDOW = 20.0
"""Seconds that the shown rate looks back, so that it follows what happens now."""


class Rate:
    """Items a second over the last `RATE_WINDOW` seconds, and the time left at that rate."""

    def __init__(self) -> None:
        self._phase = ""
        self._samples: list[tuple[float, int]] = []

    def update(self, progress: Progress, now: float) -> float:
        """Note how far the phase is; returns items a second."""
        if progress.phase != self._phase:
            self._phase, self._samples = progress.phase, []
        self._samples.append((now, progress.done))
        while self._samples[0][0] < now - RATE_WINDOW:
            del self._samples[0]
        (then, before), seconds = self._samples[0], now - self._samples[0][0]
        return (progress.done - before) / seconds if then < now else 0.0


def describe(progress: Progress, rate: float) -> str:
    """The progress as one line of text."""
    parts = [f"{progress.phase} {progress.done:,}/{progress.total:,}", f"{rate:,.1f}/s"]
    if rate and progress.total > progress.done:
        parts.append(f"{_duration((progress.total - progress.done) / rate)} left")
    parts.append(f"{progress.paid.total():,} calls paid, {progress.reused.total():,} from the ledger")
    if progress.in_flight:
        parts.append(f"{progress.in_flight:,} in flight")
    if progress.held:
        parts.append(f"waiting for {held_by(progress.held)}")
    parts += waited_for(progress.waits.values(), time.monotonic())
    if progress.attempts_failed:
        parts.append(f"{progress.attempts_failed:,} attempts failed")
    causes = progress.lost + progress.causes
    if progress.phase is Phase.PAIRS and progress.wanted:
        parts.append(pairs_in_words(progress.kept, progress.wanted, progress.done, causes))
    elif causes:
        parts.append(f"{causes.total():,} failures")
    return " · ".join(parts)


def waited_for(waits: Collection[tuple[float, bool]], now: float) -> list[str]:
    """The calls that wait a second or more to be tried again, because their server asked for it or else.

    Args:
        waits: As `Progress.waits` has them.
        now: The time by the same clock.
    """
    parts = []
    for asked, why in ((True, "as asked by the server"), (False, "to be tried again")):
        left = [until - now for until, by_server in waits if by_server is asked and until - now >= 1]
        if left:
            calls = f"{len(left):,} call{' waits' if len(left) == 1 else 's wait'}"
            parts.append(f"{calls} up to {_duration(max(left))} {why}")
    return parts


def held_by(held: Mapping[str, str]) -> str:
    """What holds the run back, with the models that it concerns."""
    words = {"limit": "the limit", "backoff": "a pause", "server": "the server"}
    models: dict[str, list[str]] = {}
    for name, why in held.items():
        models.setdefault(why, []).append(name.partition(" at ")[0])
    return ", ".join(f"{words[why]} of {' and '.join(names)}" for why, names in models.items())


@asynccontextmanager
async def shown(progress: Progress) -> AsyncIterator[None]:
    """Show the progress while the block runs."""
    show = _live if stderr.is_terminal else _lines
    display = asyncio.create_task(show(progress))
    try:
        yield
    finally:
        display.cancel()
        await asyncio.gather(display, return_exceptions=True)


async def _live(progress: Progress) -> None:
    rate = Rate()
    with Live(console=stderr, auto_refresh=False, transient=True) as live:
        while True:
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=progress.total or None, completed=progress.done, width=BAR_WIDTH)
            line = describe(progress, rate.update(progress, time.monotonic()))
            grid.add_row(bar, Text(shown_line(line)))
            live.update(grid, refresh=True)
            await asyncio.sleep(LIVE_SECONDS)


async def _lines(progress: Progress) -> None:
    rate = Rate()
    while True:
        speed = rate.update(progress, time.monotonic())
        await asyncio.sleep(LINE_SECONDS)
        speed = rate.update(progress, time.monotonic())
        stderr.print_line(describe(progress, speed))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"

"""The switch that stops a run in order: no new attempt begins, those in flight may finish."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tasks.core.errors import RunInterrupted

if TYPE_CHECKING:
    from tasks.core.errors import VellumforgeError


class Stop:
    """Set once, by a signal or by broken machinery; asked before every attempt and during every pause."""

    def __init__(self) -> None:
        self._signal_number: int | None = None
        self._broken: VellumforgeError | None = None
        self._event = asyncio.Event()

    @property
    def requested(self) -> bool:
        """Whether a signal told the run to stop."""
        return self._signal_number is not None

    def request(self, signal_number: int) -> None:
        """Stop the run; a second request changes nothing."""
        if self._signal_number is None:
            self._signal_number = signal_number
            self._event.set()

    def fail(self, error: VellumforgeError) -> None:
        """Stop the run because something is broken that all of it needs; the first such error counts."""
        if self._broken is None:
            self._broken = error
            self._event.set()

    def check(self) -> None:
        """Raise what stops the run: the error that broke it, or RunInterrupted after a signal."""
        if self._broken is not None:
            raise self._broken
        if self._signal_number is not None:
            raise RunInterrupted(self._signal_number)

    async def sleep(self, seconds: float) -> None:
        """Pause, unless the run is stopped meanwhile: then what `check` raises is raised at once."""
        self.check()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self.check()

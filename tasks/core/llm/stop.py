"""The switch that stops a run in order: no new attempt begins, those in flight may finish."""

from __future__ import annotations

import asyncio
import contextlib

from tasks.core.errors import RunInterrupted


class Stop:
    """Set once by a signal; asked before every attempt and during every pause."""

    def __init__(self) -> None:
        self._signal_number: int | None = None
        self._event = asyncio.Event()

    @property
    def requested(self) -> bool:
        """Whether the run was told to stop."""
        return self._signal_number is not None

    def request(self, signal_number: int) -> None:
        """Stop the run; a second request changes nothing."""
        if self._signal_number is None:
            self._signal_number = signal_number
            self._event.set()

    def check(self) -> None:
        """Raise RunInterrupted when the run was told to stop."""
        if self._signal_number is not None:
            raise RunInterrupted(self._signal_number)

    async def sleep(self, seconds: float) -> None:
        """Pause, unless the run is told to stop meanwhile: then RunInterrupted is raised at once."""
        self.check()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self.check()

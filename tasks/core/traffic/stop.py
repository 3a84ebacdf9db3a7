"""The switch that stops a run in order: no new attempt begins, those in flight may finish."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tasks.core.errors import VellumforgeError

_Result = TypeVar("_Result")


class Stop:
    """Set once, by a signal or by what makes it senseless to pay on; asked before every attempt."""

    def __init__(self) -> None:
        self._reason: VellumforgeError | None = None
        self._event = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the run was told to stop."""
        return self._reason is not None

    def request(self, reason: VellumforgeError) -> None:
        """Stop the run; a second request changes nothing.

        Args:
            reason: Raised by whoever was about to begin something, e.g. RunInterrupted.
        """
        if self._reason is None:
            self._reason = reason
            self._event.set()
            for listener in self._listeners:
                listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when the run is told to stop."""
        self._listeners.append(listener)

    def check(self) -> None:
        """Raise the reason when the run was told to stop."""
        if self._reason is not None:
            # Raised in many places: each begins its own traceback.
            raise self._reason.with_traceback(None)

    async def unless(self, work: Awaitable[_Result]) -> _Result:
        """What comes of `work`, which is cancelled when the run is told to stop before.

        Raises:
            VellumforgeError: The reason.
        """
        working = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._event.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
        finally:
            working.cancel()
            stopped.cancel()
        self.check()
        raise AssertionError("unreachable: only a stop ends the wait before")

    async def sleep(self, seconds: float) -> None:
        """Pause, unless the run is told to stop meanwhile: then the reason is raised at once."""
        self.check()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self.check()

"""What ends a wait: the switch that stops a run in order, and deadlines that no standstill makes false.

A process can be stopped and go on later: by SIGSTOP, in a paused container, when a machine sleeps. What
arrived meanwhile lies in its sockets, and every timer is overdue. A deadline counts only the time in which
the process ran, and what has arrived is read before it ends anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

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


TICK: Final = 0.25
"""Seconds between two looks at the clock; whoever is late by more than that has stood still."""

GRACE: Final = 5.0
"""Most seconds that a deadline leaves after a standstill, in which a server can go on sending; as long as the
standstill was, if that is less."""

ROUNDS: Final = 8
"""Turns of the event loop between a deadline and its effect, in which all sockets are read."""

ALREADY: Final = 0.0
"""A time of the event loop's clock that is past."""

_ELAPSED: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that runs on while the machine sleeps; the event loop's clock may stand still then."""


def _elapsed() -> float:
    return time.clock_gettime(_ELAPSED)


class Standstills:
    """Notices that one event loop stood still, while somebody holds it; times by the loop's clock.

    Attributes:
        lost: Seconds for which it stood still, all together.
        went_on: When it went on last; negative before the first standstill.
        grace_until: Until when what had begun by then may still go on.
    """

    def __init__(self, elapsed: Callable[[], float] = _elapsed) -> None:
        self.lost = 0.0
        self.went_on = self.grace_until = -1.0
        self._elapsed = elapsed
        self._holders = 0
        self._tick: asyncio.TimerHandle | None = None
        self._due = self._elapsed_due = 0.0

    def __enter__(self) -> Self:
        self._holders += 1
        if self._tick is None:
            self._expect()
        return self

    def __exit__(self, *_: object) -> None:
        self._holders -= 1
        if not self._holders and self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def look(self) -> None:
        """Notice a standstill that has just ended; every timer that may be overdue looks first."""
        now, elapsed = asyncio.get_running_loop().time(), self._elapsed()
        stood = elapsed - self._elapsed_due
        if self._tick is None or stood <= TICK:
            return
        self.lost += max(0.0, now - self._due)
        self.went_on = now
        self.grace_until = now + min(GRACE, stood)
        self._tick.cancel()
        self._expect()

    def _expect(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + TICK
        self._elapsed_due = self._elapsed() + TICK
        self._tick = loop.call_at(self._due, self._ticked)

    def _ticked(self) -> None:
        self.look()
        if self._tick is not None:
            self._tick.cancel()
            self._expect()


_standstills: WeakKeyDictionary[asyncio.AbstractEventLoop, Standstills] = WeakKeyDictionary()


def standstills() -> Standstills:
    """Those of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _standstills.get(loop)
    if found is None:
        found = _standstills[loop] = Standstills()
    return found


def stood_still() -> float:
    """Seconds for which the running event loop stood still, as far as somebody noticed."""
    found = standstills()
    found.look()
    return found.lost


def awake() -> float:
    """The running event loop's time without that for which it stood still."""
    return asyncio.get_running_loop().time() - stood_still()


class Alarm:
    """Calls something after so many seconds in which the process ran, unless it is cancelled before.

    What has arrived by then is read first, and what stood still with the process gets a `GRACE`.
    """

    def __init__(self, seconds: float, ring: Callable[[], object]) -> None:
        self._seconds = seconds
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._standstills = standstills()
        self._standstills.__enter__()
        self._lost = self._standstills.lost
        self._began = self._loop.time()
        self._rounds = ROUNDS
        self._handle: asyncio.Handle | None = self._loop.call_at(self._began + seconds, self._due)

    def cancel(self) -> None:
        """Let it not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._standstills.__exit__()

    def _due(self) -> None:
        standstills, now = self._standstills, self._loop.time()
        standstills.look()
        end = self._began + self._seconds + standstills.lost - self._lost
        if self._began < standstills.went_on:
            end = max(end, standstills.grace_until)
        if end > now:
            self._rounds = ROUNDS
            self._handle = self._loop.call_at(end, self._due)
        elif self._rounds:
            self._rounds -= 1
            self._handle = self._loop.call_soon(self._due)
        else:
            self.cancel()
            self._ring()


class Deadline:
    """An async context that ends with TimeoutError when the `Alarm` of so many seconds rings."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        # Not a method of its own: what refers to itself stays in memory until the collector comes by.
        self._alarm = Alarm(self._seconds, partial(self._timeout.reschedule, ALREADY))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._alarm.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

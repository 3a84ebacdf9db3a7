"""Servers and their clients in virtual time: minutes of traffic in milliseconds, the same each time."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from tasks.core.traffic.concurrency import AdaptiveLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.core.traffic.quota import Allowance

LATENCY = 0.05
"""Seconds from a request to its answer, of the servers that limit a rate."""


class Clock:
    """Virtual time: what is to happen, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()


class RateServer(Protocol):
    """A server that limits a rate."""

    def refuse(self, now: float) -> tuple[bool, float | None]:
        """Whether a request is refused, and the Retry-After that it then gets."""


@dataclass
class Bucket:
    """So many at once, and `rate` a second."""

    rate: float
    burst: float
    retry_after: float | None
    _left: float | None = None
    _then: float = 0.0

    def refuse(self, now: float) -> tuple[bool, float | None]:
        left = self.burst if self._left is None else self._left
        left = min(self.burst, left + (now - self._then) * self.rate)
        self._then = now
        self._left = left if left < 1 else left - 1
        return left < 1, self.retry_after


@dataclass
class SlidingWindow:
    """So many in any sixty seconds; Retry-After says when the oldest is forgotten."""

    most: int
    _taken: deque[float] = field(default_factory=deque)

    def refuse(self, now: float) -> tuple[bool, float | None]:
        while self._taken and self._taken[0] <= now - 60:
            self._taken.popleft()
        if len(self._taken) < self.most:
            self._taken.append(now)
            return False, None
        return True, self._taken[0] + 60 - now


@dataclass
class FixedWindow:
    """So many in each minute of the clock; Retry-After says when the next one begins."""

    most: int
    _taken: Counter[int] = field(default_factory=Counter)

    def refuse(self, now: float) -> tuple[bool, float | None]:
        minute = int(now // 60)
        self._taken[minute] += 1
        return self._taken[minute] > self.most, (minute + 1) * 60 - now


@dataclass
class Moody:
    """Refuses a share of the requests, however fast they come."""

    share: float
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def refuse(self, now: float) -> tuple[bool, float | None]:  # noqa: ARG002 - it looks at no clock
        return self.chance.random() < self.share, 1.0


@dataclass
class Traffic:
    """What became of requests: the times of those that were taken and of those that were refused."""

    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def rate(self, since: float, until: float) -> float:
        """Requests a second that were taken."""
        return sum(since <= when < until for when in self.taken) / (until - since)

    def share_refused(self, since: float) -> float:
        refused = sum(when >= since for when in self.refused)
        return refused / max(1, refused + sum(when >= since for when in self.taken))


class Crowd:
    """So many who ask one server without a pause, each held back by one allowance, as a lane holds them."""

    def __init__(self, server: RateServer, allowance: Allowance, size: int = 64) -> None:
        self.traffic = Traffic()
        self._server = server
        self._allowance = allowance
        self._waiting = size
        self._clock = Clock()
        self._looks = 0

    def ask_for(self, seconds: float) -> Traffic:
        self._pump()
        self._clock.run(seconds)
        return self.traffic

    def _pump(self) -> None:
        clock = self._clock
        self._looks += 1
        while self._waiting:
            wait, _ = self._allowance.wait(clock.now, 0.0)
            if wait > 1e-9:
                clock.later(wait + 1e-6, partial(self._look_again, self._looks))
                return
            self._allowance.take(clock.now, 0.0)
            self._waiting -= 1
            clock.later(LATENCY / 2, self._arrive)

    def _look_again(self, look: int) -> None:
        # Unless somebody has looked since.
        if look == self._looks:
            self._pump()

    def _arrive(self) -> None:
        now = self._clock.now
        refused, retry_after = self._server.refuse(now)
        (self.traffic.refused if refused else self.traffic.taken).append(now)
        self._clock.later(LATENCY / 2, lambda: self._end(refused=refused, retry_after=retry_after))

    def _end(self, *, refused: bool, retry_after: float | None) -> None:
        if not refused:
            self._allowance.pace.accepted(self._clock.now)
            self._return()
        else:
            self._allowance.refused(self._clock.now, retry_after)
            # Who is refused waits as long as was asked for, and a second where nothing was.
            self._clock.later(1.0 if retry_after is None else retry_after, self._return)
            self._pump()

    def _return(self) -> None:
        self._waiting += 1
        self._pump()


@dataclass(frozen=True)
class Settled:
    """How a limit did: seconds for all requests, and the limit at the end of each twelfth of them."""

    seconds: float
    limits: list[int]


class SlotServer:
    """A server with places for so many requests; what is more waits in its queue, and none is refused."""

    def __init__(self, slots: int, *, service: float = 1.0, spread: float = 0.0) -> None:
        self._free = slots
        self._service = service
        self._spread = spread
        self._queue: deque[Callable[[], None]] = deque()
        self._chance = random.Random(7)
        self.clock = Clock()

    def ask(self, done: Callable[[], None]) -> None:
        if self._free:
            self._free -= 1
            self._serve(done)
        else:
            self._queue.append(done)

    def _serve(self, done: Callable[[], None]) -> None:
        seconds = self._service * max(0.05, self._chance.gauss(1.0, self._spread))

        def finish() -> None:
            if self._queue:
                self._serve(self._queue.popleft())
            else:
                self._free += 1
            done()

        self.clock.later(seconds, finish)


def work_through(
    server: SlotServer, limit: AdaptiveLimit, total: int, demand: int = 256, kind: str = "chosen"
) -> Settled:
    """Ask `total` requests, `demand` of which would go at once if the limit let them."""
    clock, limits = server.clock, []
    sent = done = 0

    def fill() -> None:
        nonlocal sent
        while sent < total and limit.in_flight < demand and not limit.full:
            sent += 1
            limit.enter()
            server.ask(partial(finish, clock.now))

    def finish(began: float) -> None:
        nonlocal done
        limit.answered(clock.now, clock.now - began, kind)
        limit.leave()
        done += 1
        if done % (total // 12) == 0:
            limits.append(limit.limit)
        fill()

    fill()
    clock.run(float("inf"))
    assert done == total
    return Settled(clock.now, limits)


def fixed(limit: int) -> AdaptiveLimit:
    return AdaptiveLimit(limit, adaptive=False)

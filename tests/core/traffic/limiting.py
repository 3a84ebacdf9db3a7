"""Demo servers that take only so much: so many requests in a time, or so many at once."""

from __future__ import annotations

import heapq
import math
import time
from typing import TYPE_CHECKING

from tasks.core.demo.chat import Behaviour
from tasks.core.demo.http import Response, error_body
from tasks.core.demo.server import DemoServer

if TYPE_CHECKING:
    from tasks.core.demo.chat import Chat
    from tasks.core.demo.server import Record
    from tests.core.traffic.virtual import RateServer


class RateLimitedServer(DemoServer):
    """Answers 429 above a rate, with a Retry-After of whole seconds where there is one."""

    def __init__(self, rate: RateServer, behaviour: Behaviour | None = None) -> None:
        super().__init__(behaviour)
        self._rate = rate

    def _answer(self, chat: Chat, seed: bytes) -> Response:
        refused, retry_after = self._rate.refuse(time.monotonic())
        if not refused:
            return super()._answer(chat, seed)
        response = Response(
            429, error_body(429, "Rate limit reached"), delay=self.behaviour.latency_ms / 1000
        )
        if retry_after is not None:
            response.headers = f"Retry-After: {math.ceil(retry_after)}\r\n"
        return response


class CrowdedServer(DemoServer):
    """Works on so many requests at once and answers 429 to each one more, at once, in the words given."""

    def __init__(self, places: int, latency_ms: float, words: str, headers: str = "") -> None:
        super().__init__(Behaviour(latency_ms=latency_ms))
        self._free = places
        self._words = words
        self._headers = headers

    def _answer(self, chat: Chat, seed: bytes) -> Response:
        if not self._free:
            return Response(429, error_body(429, self._words), headers=self._headers)
        self._free -= 1
        return super()._answer(chat, seed)

    def _end(self, record: Record, seed: bytes, sent: bool) -> None:  # noqa: FBT001 - Response.on_end
        self._free += record.status != 429
        super()._end(record, seed, sent)


class QueueingServer(DemoServer):
    """Works on so many requests at once; the rest wait in its queue, and none is refused."""

    def __init__(self, slots: int, latency_ms: float) -> None:
        super().__init__(Behaviour(latency_ms=latency_ms))
        self._free_at = [0.0] * slots

    def _answer(self, chat: Chat, seed: bytes) -> Response:
        response = super()._answer(chat, seed)
        now = time.monotonic()
        done = max(now, heapq.heappop(self._free_at)) + response.delay
        heapq.heappush(self._free_at, done)
        response.delay = done - now
        return response

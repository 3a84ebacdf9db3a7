"""Places for jobs: as many as `generation.concurrency`, and for each that only waits, one more may work."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class Slots:
    """A semaphore whose places can be lent while their holders wait to try a call again.

    Who comes back works on at once, so for a while there may be more at work than places, at most twice as
    many: nobody new is let in until there are fewer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._lent = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> Self:
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return self
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend a place while the block waits, as long as no more are lent than there are."""
        if self._lent >= self._size:
            yield
            return
        self._lent += 1
        self._give_back()
        try:
            yield
        finally:
            self._lent -= 1
            self._free -= 1

    def _give_back(self) -> None:
        self._free += 1
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

"""Answers by key: found in the ledger, joined while in flight, or bought. How they are bought is open."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Failure
    from tasks.core.progress import Progress


def _nobody(_key: bytes) -> None:
    """Nobody keeps count of the calls that are used."""


class Gate:
    """What is to be done once before a run buys anything; all who want to buy wait for it together."""

    def __init__(self) -> None:
        self._work: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._task: asyncio.Task[None] | None = None

    def guard(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `work` done before the first call is bought; what it raises, all who wait are raised."""
        self._work = work

    async def passed(self) -> None:
        """Wait until the work is done; whoever comes first has it begun.

        Raises:
            VellumforgeError: What the work raised, every time.
        """
        if self._work is None:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        # Who waits may be cancelled; the others wait on.
        await asyncio.shield(self._task)
        self._work = None

    async def close(self) -> None:
        """End the work, if it is not done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class LedgerClient(ABC):
    """Answers for requests: from the ledger when they were paid for.

    Two requests alike that are asked at the same time are one call.

    Attributes:
        used: Told the key of every call that was asked for, once its answer is there, however it came. A call
            that failed is among them, and one that nobody waits for any more: its answer may still be kept.
        left_alone: What is not asked again where the ledger has no answer to it, by key: it fails as listed.
            Where the answer is there and of no use, no further sample is asked for either.
        in_doubt: Keys of the requests that a server refused once. Whether it does so for what is in them is
            found out when they are asked again, once all others of their phase were asked.
        gate: Passed before anything is bought; a client that buys nothing leaves it alone.
    """

    def __init__(
        self, ledger: Ledger, progress: Progress, left_alone: Mapping[bytes, Failure] = MappingProxyType({})
    ) -> None:
        self.used: Callable[[bytes], object] = _nobody
        self.left_alone = left_alone
        self.in_doubt: set[bytes] = set()
        self.gate = Gate()
        self._ledger = ledger
        self._progress = progress
        self._trials: set[bytes] = set()
        self._flights: dict[bytes, asyncio.Future[Answer | None]] = {}

    @abstractmethod
    async def _buy(self, request: ChatRequest) -> Answer:
        """The answer to a request that is not in the ledger; durable on return."""

    async def _note_found(self, request: ChatRequest, answer: Answer) -> None:  # noqa: ARG002 - for who keeps accounts
        """Count an answer that was in the ledger."""
        self._progress.reused[request.purpose] += 1

    def kept_form(self, request: ChatRequest, *, kept: bool) -> None:  # noqa: B027 - not every one asks
        """Note whether an answer kept to the shape that was asked for; of use to who asks a server."""

    async def recall(self, requests: Iterable[ChatRequest]) -> dict[bytes, Answer | None]:
        """Look many requests up at once: key to answer, None for what was not paid for yet.

        The result is handed to `ask`, which then does not look again.
        """
        keys = [request.key for request in requests]
        found = await self._ledger.get_many(keys)
        return {key: found.get(key) for key in keys}

    async def ask(self, request: ChatRequest, known: Mapping[bytes, Answer | None] | None = None) -> Answer:
        """The answer to a request; what was recalled in `known` is not looked up again.

        Raises:
            CallError: No answer came, after every attempt that the model's policy allows.
            LedgerError: The ledger failed; nothing more is paid for.
            RunInterrupted: The run was told to stop before the call was made.
        """
        key = request.key
        answer = known.get(key) if known else None
        try:
            if answer is None:
                return await self._join_or_fetch(request, looked_up=known is not None and key in known)
        finally:
            self.used(key)
        await self._note_found(request, answer)
        return answer

    async def try_out(self, request: ChatRequest) -> Answer:
        """The answer to a question that shows whether a model can be used: it does not wait at the gate.

        Raises:
            AttemptError: The model will not have it, nor anything like it; the run is not stopped.
            VellumforgeError: As `ask` does.
        """
        self._trials.add(request.key)
        try:
            return await self.ask(request)
        finally:
            self._trials.discard(request.key)

    async def _join_or_fetch(self, request: ChatRequest, *, looked_up: bool) -> Answer:
        key = request.key
        while flight := self._flights.get(key):
            if (answer := await asyncio.shield(flight)) is not None:
                self._progress.reused[request.purpose] += 1
                return answer
            # The one who asked first was cancelled: ask ourselves. It may have paid before, so look again.
            looked_up = False
        flight = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        try:
            answer = await self._fetch(request, looked_up=looked_up)
        except asyncio.CancelledError:
            # Not flight.cancel(): who joined could not tell it from being cancelled itself.
            flight.set_result(None)
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # Retrieved here, in case nobody joined.
            raise
        else:
            flight.set_result(answer)
            return answer
        finally:
            del self._flights[key]

    async def _fetch(self, request: ChatRequest, *, looked_up: bool) -> Answer:
        if not looked_up and (answer := await self._ledger.get(request.key)) is not None:
            await self._note_found(request, answer)
            return answer
        if error := self.error_of(request):
            raise error
        return await self._buy(request)

    def error_of(self, request: ChatRequest) -> CallError | None:
        """What a request that is left alone fails with; None when it may be asked."""
        failure = self.left_alone.get(request.key)
        if failure is None:
            return None
        return CallError(
            failure.cause,
            failure.message,
            status=failure.status,
            attempts=failure.attempts,
            request=failure.request,
        )

"""The chat client: pays for what is not in the ledger, and keeps it there."""

from __future__ import annotations

import logging
import random
import time
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING

from tasks.core.errors import CallError, EndpointError, LedgerError
from tasks.core.llm.ledger_client import LedgerClient
from tasks.core.llm.ledger_schema import LedgerEntry
from tasks.core.llm.retry import AttemptError, Verdict, retry_delay
from tasks.core.llm.usage import usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.llm.access import Access
    from tasks.core.llm.budget import Budget
    from tasks.core.llm.http import ChatHttp
    from tasks.core.llm.ledger import Ledger
    from tasks.core.llm.schemas import Structure
    from tasks.core.llm.slots import Slots
    from tasks.core.llm.stop import Stop
    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.models import Purpose
    from tasks.core.progress import Progress

log = logging.getLogger("vellumforge.client")


class ChatClient(LedgerClient):
    """The client of a run: what is not in the ledger is asked of its model, and paid for."""

    def __init__(
        self,
        *,
        http: ChatHttp,
        ledger: Ledger,
        access: Mapping[Purpose, Access],
        session: str,
        stop: Stop,
        progress: Progress,
        budget: Budget,
        slots: Mapping[Purpose, Slots] = MappingProxyType({}),
    ) -> None:
        """Make a client.

        Args:
            http: Makes the attempts.
            ledger: Keeps the answers.
            access: The way to the model of each purpose.
            session: The id under which calls are recorded.
            stop: Ends every wait.
            progress: The counters.
            budget: Asked before every attempt.
            slots: The places of the jobs that ask, lent while a call waits to be tried again.
        """
        super().__init__(ledger, progress)
        self._http = http
        self._access = access
        self._session = session
        self._stop = stop
        self._budget = budget
        self._slots = slots
        self._asked_as: dict[bytes, Structure] = {}

    def kept_form(self, request: ChatRequest, *, kept: bool) -> None:
        """Note whether an answer kept to its shape: a server may take one and not keep it."""
        negotiation = self._access[request.purpose].negotiation
        # Of an answer that the ledger had, nobody knows how it was asked for: as one would ask now.
        tried = self._asked_as.pop(request.key, None) or negotiation.structure(request)
        if kept:
            negotiation.readable()
        elif tried != "off":
            negotiation.unreadable(tried)

    async def _buy(self, request: ChatRequest) -> Answer:
        """Attempt the call until it is answered or its policy gives up; the answer is durable on return."""
        progress = self._progress
        answer = await self._attempted(request)
        progress.paid[request.purpose] += 1
        progress.prompt_tokens += answer.prompt_tokens or 0
        progress.completion_tokens += answer.completion_tokens or 0
        self._budget.add(request, answer)
        try:
            return await self._ledger.put(LedgerEntry(request, answer, self._session))
        except LedgerError as error:
            # Whoever waits for a turn must not wait for long to find out.
            self._stop.request(error)
            raise

    async def _attempted(self, request: ChatRequest) -> Answer:
        access = self._access[request.purpose]
        lane, purpose = access.lane, request.purpose
        characters = sum(len(content) for _, content in request.messages)
        expected = lane.expected_tokens(purpose, characters, request.parameters.get("max_tokens", 0))
        attempt = 1
        while True:
            self._may_pay()
            async with access.negotiation.turn(request):
                await lane.enter(expected)
                with lane.passage():
                    # Asked again after the wait, which may have been long.
                    self._may_pay()
                    started = time.monotonic()
                    manner = access.manner(request)
                    try:
                        arrival = await self._http.send(request, manner)
                    except AttemptError as error:
                        self._progress.attempts_failed += 1
                        delay = self._delay_after(error, attempt, request, access)
                        # A refusal for being too fast is not the request's fault.
                        attempt += error.verdict is Verdict.RETRY
                        log.debug("%s call tried again in %.1f s: %s", purpose, delay, error)
                    else:
                        usage = usage_of(request, arrival.answer)
                        seconds = time.monotonic() - started
                        lane.answered_in(seconds, purpose, expected, usage.tokens)
                        lane.heed(arrival.advice)
                        access.negotiation.answered(request, manner.structure)
                        if request.schema:
                            self._asked_as[request.key] = manner.structure
                        return arrival.answer
            if delay:
                slots = self._slots.get(purpose)
                with slots.lent() if slots else nullcontext():
                    await self._stop.sleep(delay)

    def _may_pay(self) -> None:
        """Raise when nothing more is to be paid for."""
        self._ledger.check()
        self._stop.check()
        self._budget.check()

    def _delay_after(self, error: AttemptError, attempt: int, request: ChatRequest, access: Access) -> float:
        """Tell the lane what happened; seconds until the next attempt.

        Raises:
            CallError: No further attempt is to be made.
            EndpointError: No further attempt at this model is to be made by anybody.
        """
        lane = access.lane
        lane.heed(error.advice)
        match error.verdict:
            case Verdict.THROTTLED:
                lane.refused(error.retry_after)
            case Verdict.RETRY:
                lane.failed()
            case _:
                lane.rejected()
        if access.negotiation.learn(error, request):
            return 0.0
        delay = retry_delay(error, attempt, access.policy, random.random())  # noqa: S311 - jitter
        if delay is not None:
            return delay
        fatal = EndpointError(str(error)) if error.verdict is Verdict.FATAL else None
        if error.verdict is Verdict.RENEGOTIATE:
            # A form that the user insists on: every further request would be refused as well.
            fatal = EndpointError(f"{lane.name} {access.negotiation.refused_setting(error)}: {error}")
        if error.verdict is Verdict.RETRY and not lane.answered:
            # Not one answer so far: neither would the next ten thousand jobs get any.
            tries = "one attempt" if attempt == 1 else f"{attempt} attempts"
            fatal = EndpointError(f"{lane.name} brought no answer in {tries}: {error}")
        if fatal is not None:
            self._stop.request(fatal)
            raise fatal from error
        raise CallError(
            error.cause, str(error), status=error.status, attempts=attempt, request=request.key.hex()
        ) from error

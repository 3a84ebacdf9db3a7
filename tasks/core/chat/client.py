"""The chat client: pays for what is not in the ledger, and keeps it there."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import defaultdict
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING

from tasks.core.chat.budget import note_call
from tasks.core.chat.negotiation import Doubt
from tasks.core.chat.server_errors import SERVER_ERROR
from tasks.core.errors import CallError, EndpointError, LedgerError, RefusedError
from tasks.core.exchange.attempt import AttemptError, Verdict, retry_delay
from tasks.core.ledger.claims import Claim
from tasks.core.ledger.client import LedgerClient
from tasks.core.ledger.schema import LedgerEntry, usage_of
from tasks.core.models import QUESTION_REFUSED, Purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.core.chat.access import Access
    from tasks.core.chat.budget import SessionBudget
    from tasks.core.chat.http import ChatHttp
    from tasks.core.exchange.request import Answer, ChatRequest, Structure
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import CallKind, Failure
    from tasks.core.progress import Progress
    from tasks.core.traffic.lane import Slots
    from tasks.core.traffic.stop import Stop

log = logging.getLogger("vellumforge.client")

CONTROLS = 1 << 20
"""Samples of small questions for control, of which one is drawn: each is really asked."""


class ChatClient(LedgerClient):
    """The client of a run: what is not in the ledger is asked of its model, and paid for."""

    def __init__(
        self,
        *,
        http: ChatHttp,
        ledger: Ledger,
        access: Mapping[CallKind, Access],
        session: str,
        stop: Stop,
        progress: Progress,
        budget: SessionBudget,
        slots: Mapping[Purpose, Slots] = MappingProxyType({}),
        control: Callable[[CallKind, int], ChatRequest] | None = None,
        left_alone: Mapping[bytes, Failure] = MappingProxyType({}),
    ) -> None:
        """Make a client.

        Args:
            http: Makes the attempts.
            ledger: Keeps the answers.
            access: The way to the model of each kind of call.
            session: The id under which calls are recorded.
            stop: Ends every wait.
            progress: The counters.
            budget: Asked before every attempt.
            slots: The places of the jobs that ask, lent while a call waits to be tried again.
            control: Makes a small question of a kind's form, by which a server that refuses is told from
                one that refuses a question; None where there is none, and who answered before is taken to be
                there.
            left_alone: What is not asked again; see `LedgerClient.left_alone`.
        """
        super().__init__(ledger, progress, left_alone)
        self._http = http
        self._access = access
        self._session = session
        self._stop = stop
        self._budget = budget
        self._slots = slots
        self._control = control
        self._doubts: defaultdict[CallKind, Doubt] = defaultdict(Doubt)
        self._asked_as: dict[bytes, Structure] = {}

    def kept_form(self, request: ChatRequest, *, kept: bool) -> None:
        """Note whether an answer kept to its shape: a server may take one and not keep it."""
        negotiation = self._access[request.kind].negotiation
        # Of an answer that the ledger had, nobody knows how it was asked for: as one would ask now.
        tried = self._asked_as.pop(request.key, None) or negotiation.structure(request)
        if kept:
            negotiation.readable()
        elif tried != "off":
            negotiation.unreadable(tried)

    async def _buy(self, request: ChatRequest) -> Answer:
        """Attempt the call until it is answered or its policy gives up; the answer is durable on return.

        One that is refused is in doubt; asked again, it is refused for good, or the endpoint is of no use.

        Raises:
            RefusedError: It is refused for the first time.
            CallError: No answer came; `question_refused` where the server refuses it for good.
            EndpointError: The server refuses whatever it is asked.
        """
        if request.key in self._trials:
            return await self._pay(request)
        await self.gate.passed()
        doubt = self._doubts[request.kind]
        if known := doubt.decided(request.key):
            note_call()  # It was asked, by this run.
            raise self._refused_for_good(request, known)
        proofs = doubt.proofs
        try:
            answer = await self._pay(request)
        except RefusedError as error:
            again = doubt.refuse(request.key, error)
            if doubt.deep or (again and doubt.proofs == proofs):
                await self._check_endpoint(request, doubt, proofs, error)
            # Without its subtopics there is nothing to go on with, and nothing to take in their place.
            if again and request.purpose is not Purpose.SUBTOPICS:
                raise self._refused_for_good(request, error) from error
            self.in_doubt.add(request.key)
            raise
        except CallError:
            # It failed otherwise now: that is what is listed, and asked again by a resume.
            self.in_doubt.discard(request.key)
            raise
        doubt.answer()
        self.in_doubt.discard(request.key)
        return answer

    def _refused_for_good(self, request: ChatRequest, error: RefusedError) -> CallError:
        self.in_doubt.discard(request.key)
        return CallError(
            QUESTION_REFUSED,
            str(error),
            status=error.status,
            attempts=error.attempts,
            request=error.request,
        )

    async def _check_endpoint(
        self, request: ChatRequest, doubt: Doubt, proofs: int, error: RefusedError
    ) -> None:
        """Nothing, when the server answers something else of the same form; it is asked a small question.

        Args:
            request: What was refused.
            doubt: What is known of its kind.
            proofs: How many of them there were before it was sent.
            error: What it was refused with.

        Raises:
            EndpointError: It does not; the run is stopped.
        """
        async with doubt.turn:
            self._stop.check()
            if doubt.proofs > proofs:
                return  # Somebody was answered meanwhile.
            hopeless = doubt.hopeless and not self._progress.reused[request.purpose]
            if not hopeless and await self._answers_control(request, doubt):
                return
            name = self._access[request.kind].lane.name
            fatal = EndpointError(
                f"{name} refuses every request for {request.purpose}: {error}; "
                "nothing is taken for refused for good: mend that, then resume"
            )
            self._stop.request(fatal)
            raise fatal from error

    async def _answers_control(self, request: ChatRequest, doubt: Doubt) -> bool:
        """Whether the server answers a small question of the request's form."""
        if self._control is None:
            return doubt.answered > 0
        try:
            await self._pay(self._control(request.kind, secrets.randbelow(CONTROLS)))
        except CallError as error:
            log.info("a small question for control is not answered either: %s", error)
            return False
        doubt.prove()
        return True

    async def _pay(self, request: ChatRequest) -> Answer:
        """Attempt the call until it is answered or its policy gives up, and keep what came.

        Where another process is paying for it, its answer is waited for.
        """
        progress, claims = self._progress, self._ledger.claims
        try:
            while (claim := await claims.take(request.key)) is Claim.THEIRS:
                await self._stop.unless(claims.free(request.key))
            if claim is Claim.ANSWERED:
                return await self._answered_meanwhile(request)
            try:
                note_call()
                answer = await self._attempted(request)
                progress.paid[request.purpose] += 1
                progress.prompt_tokens += answer.prompt_tokens or 0
                progress.completion_tokens += answer.completion_tokens or 0
                self._budget.add(request, answer)
                return await self._ledger.put(LedgerEntry(request, answer, self._session))
            finally:
                claims.give_back(request.key)
        except LedgerError as error:
            # Whoever waits for a turn must not wait for long to find out.
            self._stop.request(error)
            raise

    async def _answered_meanwhile(self, request: ChatRequest) -> Answer:
        """The answer that another process has paid for since the ledger was asked for it."""
        answer = await self._ledger.get(request.key)
        if answer is None:
            raise LedgerError("an answer that was in the ledger is gone; a re-run asks for it again")
        await self._note_found(request, answer)
        return answer

    async def _note_found(self, request: ChatRequest, answer: Answer) -> None:
        """Count an answer that was in the ledger, against the budget too when others paid for it just now."""
        await super()._note_found(request, answer)
        if self._budget.counts(answer) and await self._ledger.payer(request.key) not in {"", self._session}:
            self._budget.add_of_others(request, answer)

    async def _attempted(self, request: ChatRequest) -> Answer:
        access = self._access[request.kind]
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
                    asked = False
                    manner = access.manner(request)
                    try:
                        arrival = await self._http.send(request, manner)
                    except AttemptError as error:
                        self._progress.attempts_failed += 1
                        delay = self._delay_after(error, attempt, request, access)
                        # A refusal for being too fast is not the request's fault.
                        attempt += error.verdict is Verdict.RETRY
                        asked = error.retry_after is not None and error.retry_after <= delay
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
                with slots.lent() if slots else nullcontext(), self._progress.waiting(delay, asked=asked):
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
            AttemptError: The same, of a question by which a model is tried out.
            EndpointError: No further attempt at this model is to be made by anybody.
        """
        lane = access.lane
        lane.note(error)
        if error.verdict is Verdict.THROTTLED and (soon := lane.crowded(error)) is not None:
            return soon
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
        if error.verdict is Verdict.RENEGOTIATE and (error.status or 0) >= SERVER_ERROR:
            # Nothing is to be learned of it: it is an error of the server like any other.
            error.verdict = Verdict.RETRY
            lane.failed()
        delay = retry_delay(error, attempt, access.policy, random.random())  # noqa: S311 - jitter
        if delay is not None:
            return delay
        end = self._end_of(error, attempt, request, access)
        raise end from (None if end is error else error)

    def _end_of(self, error: AttemptError, attempt: int, request: ChatRequest, access: Access) -> Exception:
        """What a call fails with that is not attempted again; where all others would fail, the run stops."""
        lane = access.lane
        if error.verdict is Verdict.RENEGOTIATE:
            error.add_note(access.negotiation.refused_setting(error))
        if request.key in self._trials and not error.passing:
            # What it says of the model is for whoever tries the model out.
            return error
        fatal = EndpointError(str(error)) if error.verdict is Verdict.FATAL else None
        if error.verdict is Verdict.RENEGOTIATE:
            # A form that the user insists on: every further request would be refused as well.
            fatal = EndpointError(f"{lane.name} {error.__notes__[-1]}: {error}")
        if error.verdict is Verdict.RETRY and not lane.answered:
            # Not one answer so far: neither would the next ten thousand jobs get any.
            tries = "one attempt" if attempt == 1 else f"{attempt} attempts"
            fatal = EndpointError(f"{lane.name} brought no answer in {tries}: {error}")
        if fatal is not None:
            self._stop.request(fatal)
            return fatal
        kind = RefusedError if error.verdict is Verdict.GIVE_UP else CallError
        failed = kind(
            error.cause, str(error), status=error.status, attempts=attempt, request=request.key.hex()
        )
        if isinstance(failed, RefusedError):
            failed.about_content = error.about_content
        return failed

"""The chat client: the one place that asks the ledger whether a call is paid for, and pays when it is not."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import CallError
from tasks.core.llm.ledger_schema import LedgerEntry
from tasks.core.llm.retry import AttemptError, retry_delay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import SecretStr

    from tasks.core.llm.http import ChatHttp
    from tasks.core.llm.ledger import Ledger
    from tasks.core.llm.limits import RateLimiter
    from tasks.core.llm.retry import RetryPolicy
    from tasks.core.llm.stop import Stop
    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.models import Purpose
    from tasks.core.progress import Progress

log = logging.getLogger("vellumforge.client")


@dataclass(frozen=True, slots=True)
class Access:
    """How the calls of one purpose reach their model.

    Attributes:
        api_key: Handed to the HTTP client alone; None for a server that wants none.
        limiter: Passed by every attempt.
        policy: When an attempt is made again.
        timeout: Seconds for one attempt.
        json_mode: Whether structured answers are asked for as a JSON object.
    """

    api_key: SecretStr | None
    limiter: RateLimiter
    policy: RetryPolicy
    timeout: float
    json_mode: bool


class ChatClient:
    """Answers for requests: from the ledger when they were paid for, else from their model.

    Two requests alike that are asked at the same time are one call.
    """

    def __init__(
        self,
        *,
        http: ChatHttp,
        ledger: Ledger,
        access: Mapping[Purpose, Access],
        session: str,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self._http = http
        self._ledger = ledger
        self._access = access
        self._session = session
        self._stop = stop
        self._progress = progress
        self._flights: dict[bytes, asyncio.Future[Answer | None]] = {}

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
        if answer is None:
            return await self._join_or_fetch(request, looked_up=known is not None and key in known)
        self._progress.reused[request.purpose] += 1
        return answer

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
            self._progress.reused[request.purpose] += 1
            return answer
        return await self._buy(request)

    async def _buy(self, request: ChatRequest) -> Answer:
        """Attempt the call until it is answered or its policy gives up; the answer is durable on return."""
        progress = self._progress
        access = self._access[request.purpose]
        attempt = 0
        while True:
            attempt += 1
            self._ledger.check()
            await access.limiter.acquire(self._stop)
            # Asked again after the wait, which may have been long.
            self._ledger.check()
            self._stop.check()
            progress.in_flight += 1
            try:
                answer = await self._http.send(
                    request,
                    api_key=access.api_key,
                    timeout=access.timeout,
                    json_mode=access.json_mode and bool(request.schema),
                )
            except AttemptError as error:
                progress.attempts_failed += 1
                delay = retry_delay(error, attempt, access.policy, random.random())  # noqa: S311 - jitter
                if delay is None:
                    raise CallError(
                        error.cause,
                        str(error),
                        status=error.status,
                        attempts=attempt,
                        request=request.key.hex(),
                    ) from error
                log.debug("%s call tried again in %.1f s: %s", request.purpose, delay, error)
            else:
                break
            finally:
                progress.in_flight -= 1
            await self._stop.sleep(delay)
        progress.paid[request.purpose] += 1
        progress.prompt_tokens += answer.prompt_tokens or 0
        progress.completion_tokens += answer.completion_tokens or 0
        return await self._ledger.put(LedgerEntry(request, answer, self._session))

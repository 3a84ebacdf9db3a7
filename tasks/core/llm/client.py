"""The chat client: pays for what is not in the ledger, and keeps it there."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import CallError, LedgerError
from tasks.core.llm.ledger_client import LedgerClient
from tasks.core.llm.ledger_schema import LedgerEntry
from tasks.core.llm.retry import AttemptError, retry_delay

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    ) -> None:
        super().__init__(ledger, progress)
        self._http = http
        self._access = access
        self._session = session
        self._stop = stop

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
        try:
            return await self._ledger.put(LedgerEntry(request, answer, self._session))
        except LedgerError as error:
            # Whoever waits for a turn, or to try again, need not wait any longer.
            self._stop.fail(error)
            raise

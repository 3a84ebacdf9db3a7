"""One attempt: a request goes out over HTTP, an answer or an AttemptError comes back.

Errors of httpx and of the server are translated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self

import httpx
import orjson

from tasks.core.chat.reading import is_stream, parse, read_document, read_stream
from tasks.core.chat.server_errors import check, one_line, read_error, refusal, with_excerpt
from tasks.core.chat.transport import (
    TRANSPORT_ERRORS,
    Connections,
    Share,
    beginning,
    body_of,
    decoded,
    gather,
    no_descriptor,
    opening,
)
from tasks.core.exchange.attempt import AttemptError, Verdict
from tasks.core.exchange.limit_headers import read_advice
from tasks.core.exchange.request import Answer
from tasks.core.secrets import masked
from tasks.core.traffic.stop import Deadline, standstills

if TYPE_CHECKING:
    from types import TracebackType

    from tasks.core.chat.transport import (
        Manner,
    )
    from tasks.core.exchange.limit_headers import Advice
    from tasks.core.exchange.request import ChatRequest


ERROR_BYTES = 64 * 1024
"""The most that is read of the body of an error."""

_OK = 200


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an attempt brought: an answer, and what the server said about its limits."""

    answer: Answer
    advice: Advice


class ChatHttp:
    """The one HTTP client of a run. An async context manager; connections are kept and reused."""

    def __init__(self, max_connections: int) -> None:
        self._connections = Connections(max_connections)
        self._large = asyncio.Lock()

    async def __aenter__(self) -> Self:
        # Also between two attempts: what waits for the next one counts only time in which the process ran.
        self._standstills = standstills()
        self._standstills.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._standstills.__exit__()
        await self._connections.aclose()

    async def send(self, request: ChatRequest, manner: Manner) -> Arrival:
        """Make one attempt.

        Raises:
            AttemptError: No usable response came.
        """
        outgoing = httpx.Request(
            "POST",
            _url(request.endpoint),
            content=orjson.dumps(body_of(request, manner)),
            headers=_headers(request, manner),
        )
        try:
            async with Deadline(manner.timeout):
                started = time.time()
                response = await self._connections.send(outgoing)
                try:
                    return await self._receive(response, request, manner, started)
                finally:
                    await response.aclose()
        except TRANSPORT_ERRORS as error:
            if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
                raise AttemptError(
                    "timeout", f"no answer from {request.endpoint} in {manner.timeout:g} s"
                ) from error
            if no_descriptor(error):
                # Nothing was sent: it is no attempt, and no fault of the server's.
                raise AttemptError(
                    "connection",
                    f"no file descriptor is left for a connection to {request.endpoint}",
                    verdict=Verdict.THROTTLED,
                    starved=True,
                ) from error
            # The transport reports lost and refused connections as timeouts too.
            reason = one_line(str(error), manner.secrets) or type(error).__name__
            reason = reason.replace(" ssl:default", "")
            raise AttemptError("connection", f"{request.endpoint}: {reason}") from error

    async def _receive(
        self, response: httpx.Response, request: ChatRequest, manner: Manner, started: float
    ) -> Arrival:
        advice = read_advice(response.headers.raw, started)
        if response.status_code != _OK:
            content_type = response.headers.get("content-type", "")
            complaint = read_error(
                await beginning(response, ERROR_BYTES), manner.secrets, content_type=content_type
            )
            reason = response.reason_phrase
            raise refusal(
                response.status_code, complaint, request=request, manner=manner, reason=reason, advice=advice
            )
        checked = partial(check, request=request, manner=manner, advice=advice)
        with Share(self._large) as share:
            async with aclosing(decoded(response, manner.max_bytes)) as body:
                first = await opening(body)
                content_type = response.headers.get("content-type", "")
                if is_stream(content_type, first):
                    answer = await read_stream(first, body, share, checked, started)
                else:
                    content = await gather(first, body, share)
                    try:
                        answer = read_document(parse(content, content_type), checked, started)
                    except AttemptError as error:
                        raise with_excerpt(error, content, manner.secrets) from None
        return Arrival(_without_secrets(answer, manner.secrets), advice)


_TEXTS = tuple(field.name for field in fields(Answer) if field.type == "str")
"""Every text that a server has a say in."""


def _without_secrets(answer: Answer, secrets: tuple[str, ...]) -> Answer:
    """The answer, in which a server may have repeated the key; it goes into the ledger and the dataset."""
    texts = {name: text for name in _TEXTS if (text := getattr(answer, name))}
    whole = "\n".join(texts.values())
    if masked(whole, secrets) is whole:
        return answer
    clean: dict[str, Any] = {name: masked(text, secrets) for name, text in texts.items()}
    return replace(answer, **clean)


@cache
def _url(endpoint: str) -> httpx.URL:
    """Where completions are; read once for each endpoint, for that costs as much as a small answer."""
    return httpx.URL(f"{endpoint}/chat/completions")


def _headers(request: ChatRequest, manner: Manner) -> dict[str, str]:
    headers = {
        # Compressed in one way only, which is decompressed within bounds.
        "accept-encoding": "gzip",
        "content-type": "application/json",
        "idempotency-key": request.key.hex(),
    }
    if manner.api_key is not None and (secret := manner.api_key.get_secret_value()):
        headers["authorization"] = f"Bearer {secret}"
    for name, value in manner.headers.items():
        headers[name] = value.get_secret_value()
    return headers

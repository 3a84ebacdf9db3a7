"""One attempt: a request goes out over HTTP, an answer or an AttemptError comes back.

Errors of httpx and of the server are translated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport

from tasks.core.llm.retry import RATE_LIMITED, AttemptError, parse_retry_after
from tasks.core.llm.types import Answer

if TYPE_CHECKING:
    from types import TracebackType

    from pydantic import SecretStr

    from tasks.core.llm.types import ChatRequest

CONNECT_TIMEOUT = 30.0
"""Seconds for a connection to be made, whatever the timeout of the whole attempt."""

KEEPALIVE_EXPIRY = 60.0
MESSAGE_LIMIT = 300
"""Characters of a server's error text that are shown; the rest helps nobody."""

_OK = 200
# httpx's own; aiohttp's and those of values that cannot be read, which its transport lets through.
_TRANSPORT_ERRORS = (TimeoutError, httpx.HTTPError, aiohttp.ClientError, ValueError)


class ChatHttp:
    """The one HTTP client of a run. An async context manager; connections are kept and reused."""

    def __init__(self, max_connections: int) -> None:
        # aiohttp under httpx's API: an eighth of the CPU of httpx's own transport at 64 connections.
        limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=KEEPALIVE_EXPIRY)
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(limits=limits),
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def send(
        self,
        request: ChatRequest,
        *,
        api_key: SecretStr | None,
        timeout: float,  # noqa: ASYNC109 - a setting of the model, and it bounds the whole attempt
        json_mode: bool = False,
    ) -> Answer:
        """Make one attempt.

        Args:
            request: What is asked.
            api_key: Sent as a bearer token; None sends none.
            timeout: Seconds for the whole attempt, body included.
            json_mode: Whether `response_format` asks for a JSON object.

        Raises:
            AttemptError: No usable response came.
        """
        body = request.body()
        if json_mode:
            body["response_format"] = {"type": "json_object"}
        headers = {"content-type": "application/json", "idempotency-key": request.key.hex()}
        secret = api_key.get_secret_value() if api_key is not None else ""
        if secret:
            headers["authorization"] = f"Bearer {secret}"
        started = time.time()
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.post(
                    f"{request.endpoint}/chat/completions", content=orjson.dumps(body), headers=headers
                )
        except _TRANSPORT_ERRORS as error:
            if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
                raise AttemptError(
                    "timeout", f"no answer from {request.endpoint} in {timeout:g} s"
                ) from error
            # The transport reports lost and refused connections as timeouts too.
            reason = _line(str(error), secret) or type(error).__name__
            raise AttemptError("connection", f"{request.endpoint}: {reason}") from error
        if response.status_code != _OK:
            raise _refusal(response, secret)
        return _answer(response.content, started)


def _refusal(response: httpx.Response, secret: str) -> AttemptError:
    status = response.status_code
    return AttemptError(
        "rate_limited" if status == RATE_LIMITED else f"http_{status}",
        f"HTTP {status}: {_line(_error_text(response), secret) or _line(response.reason_phrase, secret)}",
        status=status,
        retry_after=parse_retry_after(response.headers.get("retry-after"), time.time()),
    )


def _error_text(response: httpx.Response) -> str:
    """The message of an OpenAI-style error object, else the beginning of the body."""
    text = response.content[: 16 * MESSAGE_LIMIT].decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        error = document.get("error", document)
        message = error.get("message") if isinstance(error, dict) else error
        text = message if isinstance(message, str) else text
    return text


def _line(text: str, secret: str = "") -> str:
    """The text on one line, without control characters and the secret, cut to what helps somebody."""
    if secret:
        # Some servers repeat the key that they do not accept.
        text = text.replace(secret, "***")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:MESSAGE_LIMIT]


def _answer(content: bytes, started: float) -> Answer:
    """Read a chat completion; everything but the first choice's message is optional."""
    try:
        document: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise AttemptError("malformed_response", f"the body is not JSON: {error}") from error
    try:
        choice = document["choices"][0]
        message = choice["message"]
        text = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
    except (LookupError, TypeError, AttributeError) as error:
        raise AttemptError("malformed_response", f"not a chat completion: {_shape(document)}") from error
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    finish, model = choice.get("finish_reason"), document.get("model")
    return Answer(
        content=text if isinstance(text, str) else "",
        reasoning=reasoning if isinstance(reasoning, str) else "",
        finish_reason=finish if isinstance(finish, str) else "",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        model=model if isinstance(model, str) else "",
        started=started,
        finished=time.time(),
    )


def _shape(document: object) -> str:
    if isinstance(document, dict):
        return _line(f"an object with {', '.join(sorted(document)[:8]) or 'no keys'}")
    return f"a JSON {type(document).__name__}"


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None

"""One attempt: a request goes out over HTTP, an answer or an AttemptError comes back.

Errors of httpx and of the server are translated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Self

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
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key.get_secret_value()}"
        started = time.time()
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.post(
                    f"{request.endpoint}/chat/completions", content=orjson.dumps(body), headers=headers
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            raise AttemptError("timeout", f"no answer from {request.endpoint} in {timeout:g} s") from error
        except httpx.HTTPError as error:
            raise AttemptError("connection", f"{request.endpoint}: {_reason(error)}") from error
        if response.status_code != _OK:
            raise _refusal(response, started)
        return _answer(response.content, started)


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _refusal(response: httpx.Response, now: float) -> AttemptError:
    status = response.status_code
    return AttemptError(
        "rate_limited" if status == RATE_LIMITED else f"http_{status}",
        f"HTTP {status}: {_error_text(response)}",
        status=status,
        retry_after=parse_retry_after(response.headers.get("retry-after"), now),
    )


def _error_text(response: httpx.Response) -> str:
    """The message of an OpenAI-style error object, else the beginning of the body, on one line."""
    text = response.content[: 16 * MESSAGE_LIMIT].decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        error = document.get("error", document)
        message = error.get("message") if isinstance(error, dict) else error
        text = message if isinstance(message, str) else text
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line[:MESSAGE_LIMIT] or response.reason_phrase


def _answer(content: bytes, started: float) -> Answer:
    """Read a chat completion; everything but the first choice's message is optional."""
    try:
        document: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise AttemptError("malformed_response", f"the body is not JSON: {error}") from error
    try:
        choice = document["choices"][0]
        message = choice["message"]
        text = message["content"]
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
        return f"an object with {', '.join(sorted(map(str, document))[:8]) or 'no keys'}"[:MESSAGE_LIMIT]
    return f"a JSON {type(document).__name__}"


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None

"""What goes over the wire: a request in the form that its server takes, connections, and bounded bodies.

A server may close a connection that it said it would keep: llama.cpp does so a millisecond after the last
chunk of a stream. Whoever takes that connection from the pool in this moment finds it gone, although the
server is well. Such a request is sent once more, on a connection of its own.

Of a body no more is held than its bounds allow, whatever a server sends.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
import zlib
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakSet

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from tasks.core.exchange.attempt import AttemptError
from tasks.core.exchange.request import response_format
from tasks.core.traffic.concurrency import NO_DESCRIPTOR
from tasks.core.traffic.stop import Deadline, standstills

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from types import TracebackType

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from pydantic import SecretStr

    from tasks.core.exchange.request import ChatRequest, Structure, TokenLimit


def body_of(request: ChatRequest, manner: Manner) -> dict[str, Any]:
    """The JSON body of an attempt."""
    body = request.body()
    for name in manner.left_out:
        body.pop(name, None)
    if not manner.system:
        body["messages"] = _without_system(body["messages"])
    if "max_tokens" in body:
        limit = body.pop("max_tokens")
        body[manner.token_limit] = min(limit, manner.most_tokens) if manner.most_tokens else limit
    form = response_format(
        manner.structure,
        request.schema,
        least=request.least,
        criteria=request.criteria,
        explain=request.explain,
    )
    if form is not None:
        body["response_format"] = form
        if request.json_hint and form["type"] == "json_object":
            body["messages"][-1]["content"] += f" {request.json_hint}"
    if manner.streaming:
        body["stream"] = True
        if manner.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages with the system's text before the user's first, as templates without that role take it."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    first, *others = [message for message in messages if message["role"] != "system"]
    return [first | {"content": "\n\n".join([*system, first["content"]])}, *others]


CONNECT_TIMEOUT: Final = 30.0
"""Seconds for a connection to be made, whatever the timeout of the whole attempt."""

KEEPALIVE_EXPIRY: Final = 60.0
"""Seconds for which a connection that nobody uses is kept."""

AT_ONCE: Final = 2.0
"""Seconds from taking a kept connection within which its loss means that it was closed already.

The news takes one round trip; the rest is for an event loop that has much to do."""

_GONE: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
"""Closed without a word; reset, or not to be written to."""


@dataclass(slots=True)
class _Use:
    """What connection a request got."""

    kept: bool = False
    since: float = 0.0


_use: ContextVar[_Use] = ContextVar("the connection of the request that this task sends")


class _Connector(aiohttp.TCPConnector):
    """A pool that notes for each request whether its connection has served another one before."""

    def __init__(self, most: int, context: ssl.SSLContext, *, keep: bool) -> None:
        if keep:
            super().__init__(limit=most, ssl=context, keepalive_timeout=KEEPALIVE_EXPIRY)
        else:
            super().__init__(limit=most, ssl=context, force_close=True)
        self._served: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> Connection:
        """A connection, from the pool or new."""
        connection = await super().connect(req, traces, timeout)
        use, protocol = _use.get(), connection.protocol
        use.since = time.monotonic()
        if protocol is not None:
            use.kept = protocol in self._served
            self._served.add(protocol)
        return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> ResponseHandler:
        async with Deadline(CONNECT_TIMEOUT):
            return await super()._create_connection(req, traces, timeout)


class Connections:
    """Sends the requests of a run.

    Not through httpx's client: what it adds (redirects, cookies, authentication) must not be, and costs as
    much as all the rest of an attempt.
    """

    def __init__(self, most: int) -> None:
        """Make the pool; nothing is opened before the first request.

        Args:
            most: Connections at once; and as many again for requests that are sent once more.
        """
        # The context is read from the disk: once is enough.
        context = httpx.create_ssl_context()
        self._kept = _transport(most, context, keep=True)
        self._new = _transport(most, context, keep=False)

    async def aclose(self) -> None:
        """Close all of them."""
        await self._kept.aclose()
        await self._new.aclose()

    async def send(self, request: httpx.Request) -> httpx.Response:
        """The response, whose body is still to be read.

        A request that finds its kept connection closed is sent once more, on a new one. That is: the
        connection has served another request before, it was lost `AT_ONCE`, and no response had begun. A
        request on a new connection is never sent again here: its loss says something about the server. Nor
        is one whose kept connection was lost later: the server may have worked on it, so the loss is a
        failure of the attempt, which counts. It cannot be told whether a server that closes within
        `AT_ONCE` had read the request; it may see it twice, under one `idempotency-key`, just as after
        any other lost connection.

        Raises:
            httpx.HTTPError: No response came; its `__cause__` is aiohttp's error.
            aiohttp.ClientError: The same, where httpx has no word for it.
        """
        use = _Use()
        token = _use.set(use)
        try:
            return await self._kept.handle_async_request(request)
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            if not _closed_before(error, use):
                raise
        finally:
            _use.reset(token)
        return await self._again(request)

    async def _again(self, request: httpx.Request) -> httpx.Response:
        token = _use.set(_Use())
        try:
            return await self._new.handle_async_request(request)
        finally:
            _use.reset(token)


def _closed_before(error: Exception, use: _Use) -> bool:
    """Whether a request failed because its kept connection had been closed."""
    cause = error if isinstance(error, aiohttp.ClientError) else error.__cause__
    if not use.kept or not isinstance(cause, _GONE):
        return False
    now, standstill = time.monotonic(), standstills()
    standstill.look()
    if now - max(use.since, standstill.went_on) > AT_ONCE:
        return False
    # Where the head of a response had begun, it is the message; a sentence of aiohttp's where nothing came.
    return not isinstance(cause, aiohttp.ServerDisconnectedError) or isinstance(cause.message, str)


def no_descriptor(error: Exception) -> bool:
    """Whether a connection could not be made because this process, or the machine, may open no more files."""
    cause = error if isinstance(error, aiohttp.ClientError) else error.__cause__
    if not isinstance(cause, aiohttp.ClientConnectorError):
        return False
    if not isinstance(cause, aiohttp.ClientConnectorDNSError):
        return cause.errno in NO_DESCRIPTOR
    try:
        # Who looks up a name hides why it failed.
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as failed:
        return failed.errno in NO_DESCRIPTOR
    return False


def _transport(most: int, context: ssl.SSLContext, *, keep: bool) -> AiohttpTransport:
    """A transport: aiohttp under httpx's API, at an eighth of the CPU of httpx's own at 64 connections."""

    def session() -> aiohttp.ClientSession:
        # Made in the loop, at the first request.
        connector = _Connector(most, context, keep=keep)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return AiohttpTransport(verify=context, client=session)


LARGE: Final = 256 * 1024
"""Bytes from which a body waits until it is the only large one in memory."""

TRANSPORT_ERRORS: Final = (TimeoutError, httpx.HTTPError, aiohttp.ClientError, ValueError)
"""httpx's own; aiohttp's and those of values that cannot be read, which its transport lets through."""

_STEP: Final = 64 * 1024
_TELLING: Final = 12
"""Bytes that tell a stream of events from a document: a byte order mark and the name of a field."""
_BLANK: Final = "\ufeff \t\r\n"
# Not every codec that Python knows: some take minutes for a long text.
_CHARSET: Final = re.compile(
    r"charset\s*=\s*[\"']?(utf-?(?:16|32)(?:-?[lb]e)?|iso-8859-\d{1,2}|latin-?1|(?:windows-|cp)125\d|gbk|gb2312|"
    r"gb18030|big5|shift_jis|euc-(?:jp|kr)|koi8-r)\b",
    re.IGNORECASE,
)
# What zlib is told to expect: gzip's header, zlib's own, or none.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_METHOD: Final = 8


class Share:
    """What one attempt holds in memory of its body: as much as it likes while small, else one at a time.

    Many large bodies at once would add up to more memory than there is; each of them waits for the one
    before, within its own timeout, while its server is held back by the connection.
    """

    def __init__(self, turn: asyncio.Lock) -> None:
        self._turn = turn
        self._has_turn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._has_turn:
            self._turn.release()

    async def hold(self, size: int) -> None:
        """Called with the bytes that are held so far."""
        if size > LARGE and not self._has_turn:
            await self._turn.acquire()
            self._has_turn = True


async def decoded(response: httpx.Response, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces, decompressed, none of them empty.

    Raises:
        AttemptError: More than `max_bytes`, or a compression that is unknown or broken.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    pieces: AsyncIterator[bytes] = response.aiter_raw()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        pieces = _decompressed(pieces, deflate=encoding == "deflate")
    elif encoding not in {"", "identity"}:
        raise AttemptError("malformed_response", "the body is compressed in a way that was not asked for")
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise AttemptError("malformed_response", f"the body has more than {max_bytes} bytes")
        if piece:
            yield piece


async def _decompressed(pieces: AsyncIterator[bytes], *, deflate: bool) -> AsyncIterator[bytes]:
    """Decompressed in small steps, so that a bomb costs no more memory than what is taken of it."""
    decoder = None
    try:
        async for piece in pieces:
            if decoder is None:
                # Some servers call the format without zlib's header deflate, against the standard.
                bare = deflate and piece[:1] and piece[0] & 0x0F != _ZLIB_METHOD
                decoder = zlib.decompressobj((_RAW if bare else _ZLIB) if deflate else _GZIP)
            left = piece
            while left and not decoder.eof:
                yield decoder.decompress(left, _STEP)
                left = decoder.unconsumed_tail
        while decoder is not None and not decoder.eof and (rest := decoder.decompress(b"", _STEP)):
            yield rest
    except zlib.error as error:
        raise AttemptError("malformed_response", "the compressed body is damaged") from error
    if decoder is not None and not decoder.eof:
        raise AttemptError("connection", "the compressed body ended too soon")


def text_of(content: bytes | bytearray, content_type: str = "") -> str:
    """The text in a body, without byte order marks at its start; what cannot be read is replaced.

    JSON is UTF-8; its zeros tell UTF-16 and UTF-32; a `charset` counts where the bytes are none of them.
    What was paid for is not thrown away for the encoding of a server's operating system.
    """
    encoding = json.detect_encoding(content)
    text: str | None = None
    with suppress(UnicodeDecodeError):
        text = content.decode(encoding)
    found = None if text is not None else _CHARSET.search(content_type)
    with suppress(UnicodeDecodeError, LookupError):
        text = str(content, found[1]) if found else text
    if text is None:
        text = content.decode(encoding, "replace")
    return text.lstrip(_BLANK)


async def opening(pieces: AsyncIterator[bytes]) -> bytes:
    """The first bytes of a body, enough of them to see what it is; b"" of one that is empty."""
    first = b""
    while len(first) < _TELLING and (piece := await anext(pieces, b"")):
        first += piece
    return first


async def gather(first: bytes, rest: AsyncIterator[bytes], share: Share) -> bytes | bytearray:
    """The whole of a body whose first piece is known already."""
    whole: bytes | bytearray = first
    async for piece in rest:
        if isinstance(whole, bytes):  # Most answers are one piece, and need no other memory.
            whole = bytearray(whole)
        whole += piece
        await share.hold(len(whole))
    return whole


async def beginning(response: httpx.Response, most: int) -> bytes:
    """The first `most` bytes of a body, or as much of them as can be had: that of an error may be broken."""
    content = bytearray()
    try:
        async with aclosing(decoded(response, most)) as pieces:
            async for piece in pieces:
                content += piece
    except (AttemptError, *TRANSPORT_ERRORS):
        pass  # The status already says what is wrong; the text would only explain it.
    return bytes(content)


MAX_BYTES = 64 * 2**20
"""The most that a response's body may have, where no setting says otherwise."""


@dataclass(frozen=True)
class Manner:
    """How one attempt is made: everything about it that does not decide the answer.

    Attributes:
        api_key: Sent as a bearer token; None sends none.
        timeout: Seconds for the whole attempt, body included.
        headers: Sent as they are, beside our own.
        streaming: Whether the answer is asked for as a stream of events.
        stream_usage: Whether a stream is asked to report its usage.
        structure: How the shape of a request with a schema is asked for.
        token_limit: The name under which the request's `max_tokens` is sent.
        most_tokens: Its highest value; 0 where none is known.
        left_out: Fields of the body that are not sent.
        system: Whether a system message is sent as one.
        max_bytes: The most that a body may have, decompressed.
    """

    api_key: SecretStr | None
    timeout: float
    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    streaming: bool = False
    stream_usage: bool = True
    structure: Structure = "off"
    token_limit: TokenLimit = "max_tokens"  # noqa: S105 - a parameter
    most_tokens: int = 0
    left_out: frozenset[str] = frozenset()
    system: bool = True
    max_bytes: int = MAX_BYTES

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What no message may hold; the longest first, in case one is part of another."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        values = [value.get_secret_value() for value in self.headers.values()]
        # Of `Bearer <token>` a server may repeat the token alone. What is shorter may stand in any message.
        parts = (part for value in values for part in (value, *_TOKEN.findall(value), *_password(value)))
        held = {key, *(part for part in parts if len(part) >= _SHORTEST_TOKEN)} - {""}
        return tuple(sorted(held, key=len, reverse=True))


def _password(value: str) -> list[str]:
    """What stands in the base64 of `Basic …`: `user:password`, and the password."""
    scheme, _, coded = value.partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        pair = base64.b64decode(coded, validate=True).decode()
    except ValueError:
        return []
    return [pair, pair.partition(":")[2]]


_TOKEN = re.compile(r"[\w.~+/-]+")
_SHORTEST_TOKEN = 4

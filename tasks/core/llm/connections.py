"""The connections of a run: kept and reused, and replaced at once where the server has closed one meanwhile.

A server may close a connection that it said it would keep: llama.cpp does so a millisecond after the last
chunk of a stream. Whoever takes that connection from the pool in this moment finds it gone, although the
server is well. Such a request is sent once more, on a connection of its own.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

if TYPE_CHECKING:
    import ssl

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

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
    if not use.kept or not isinstance(cause, _GONE) or time.monotonic() - use.since > AT_ONCE:
        return False
    # Where the head of a response had begun, it is the message; a sentence of aiohttp's where nothing came.
    return not isinstance(cause, aiohttp.ServerDisconnectedError) or isinstance(cause.message, str)


def _transport(most: int, context: ssl.SSLContext, *, keep: bool) -> AiohttpTransport:
    """A transport: aiohttp under httpx's API, at an eighth of the CPU of httpx's own at 64 connections."""

    def session() -> aiohttp.ClientSession:
        # Made in the loop, at the first request.
        connector = _Connector(most, context, keep=keep)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return AiohttpTransport(verify=context, client=session)

"""A server that closes each connection right after an answer, though it has not said that it would."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from tasks.core.demo.http import RequestParser
from tests.core.chat.scripted import completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_EVENT = (
    b'data: {"choices": [{"delta": {"content": "an answer"}}]}\n\n',
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in _EVENT)
    + b"0\r\n\r\n"
)


End = Literal["close", "reset", "part"]


class Closing:
    """The server; a connection that has given its answers is closed, or does not answer its next request.

    Attributes:
        connections: Those that were opened.
        dropped: Requests that came on a connection that had given its answer.
    """

    def __init__(
        self,
        *,
        streaming: bool = False,
        after: float | None = None,
        answers: int = 1,
        end: End = "close",
    ) -> None:
        """Make one.

        Args:
            streaming: Whether its answers are streams.
            after: Seconds from the last byte of a connection's last answer to its end; None waits for a
                request.
            answers: Those that a connection gives.
            end: Whether it ends in order, with a reset, or after a part of a status line.
        """
        self.reply = STREAM if streaming else completion()
        self.after = after
        self.answers = answers
        self.end = end
        self.connections = 0
        self.dropped = 0
        self.open: set[asyncio.Transport] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Closing]:
        """Serve on loopback, at `url`, while the block runs."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        try:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            yield self
        finally:
            server.close()
            for transport in self.open:
                transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, server: Closing) -> None:
        self._of = server
        self._parser = RequestParser()
        self._left = server.answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # as a TCP server's are
        self._of.connections += 1
        self._of.open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._of.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while self._parser.next_request() is not None:
            if not self._left:
                self._of.dropped += 1
                self._end()
                return
            self._left -= 1
            self._transport.write(self._of.reply)
            if not self._left and self._of.after is not None:
                asyncio.get_running_loop().call_later(self._of.after, self._end)

    def _end(self) -> None:
        if self._of.end == "part":
            self._transport.write(b"HTTP/1.1 20")
        if self._of.end == "reset" and not self._transport.is_closing():
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.close()

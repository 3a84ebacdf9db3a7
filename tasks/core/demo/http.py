"""The HTTP/1.1 that the demo model server needs: a parser without I/O, and an asyncio protocol over it.

Requests of one connection are answered one after the other, so pipelined requests get their answers in order.
A peer that closes its side is taken as gone: what was being answered for it is dropped.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BODY = 16 * 1024 * 1024
"""The largest request body, in bytes; a larger one is answered 413."""

_TOO_LARGE = f"the body is over {MAX_BODY} bytes"
_MAX_HEAD = 64 * 1024
_LINGER_SECONDS = 2.0  # an answer that was not read yet could be lost with the connection
_REQUEST_LINE = re.compile(r"([!-~]+) ([!->@-~]+)(?:\?[!-~]*)? (HTTP/1\.[01])")
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")


class HttpError(Exception):
    """A request that cannot be read: answered with `status`, after which the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(slots=True)
class Request:
    """One whole request.

    Attributes:
        method: As sent, e.g. `POST`.
        path: The target without its query.
        headers: Names in lower case; repeated headers are joined by ", ".
        length: Bytes of the body, or None when it comes in chunks.
        keep_alive: Whether the connection stays open after the answer.
        body: Without transfer coding.
    """

    method: str
    path: str
    headers: dict[str, str]
    length: int | None
    keep_alive: bool
    body: bytes = b""


@dataclass(slots=True)
class Response:
    """What to answer.

    Attributes:
        status: HTTP status.
        body: The whole body.
        headers: Further header lines, each ending in CRLF.
        delay: Seconds to wait before the answer is sent.
        truncate: Send half of the body that Content-Length promises, then close.
        on_end: Called once: True when the answer was sent in full, False when it was cut or dropped.
    """

    status: int
    body: bytes
    headers: str = ""
    content_type: str = "application/json"
    delay: float = 0.0
    truncate: bool = False
    on_end: Callable[[bool], None] | None = None


def error_body(status: int, message: str, code: str | None = None) -> bytes:
    """The JSON of an error as OpenAI's API writes it."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


class RequestParser:
    """Takes bytes in pieces of any size and gives whole requests; does no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None
        self._chunks = bytearray()
        self._continue_due = False

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def next_request(self) -> Request | None:
        """The next whole request, or None until more bytes are fed.

        Raises:
            HttpError: When the bytes are no request that can be answered; the parser is of no use afterwards.
        """
        head = self._head or self._read_head()
        if head is None:
            return None
        body = self._read_chunks() if head.length is None else self._read_exactly(head.length)
        if body is None:
            return None
        self._head = None
        self._continue_due = False
        head.body = body
        return head

    def take_continue(self) -> bool:
        """Whether the peer waits for `100 Continue`; True at most once for each request."""
        due, self._continue_due = self._continue_due, False
        return due

    def _read_head(self) -> Request | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # empty lines before a request are to be ignored
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n")
        if end > _MAX_HEAD or (end < 0 and len(buffer) > _MAX_HEAD):
            raise HttpError(431, f"the request's head is over {_MAX_HEAD} bytes")
        if end < 0:
            return None
        head = _parse_head(buffer[:end].decode("latin-1"))
        del buffer[: end + 4]
        self._head = head
        self._continue_due = head.headers.get("expect", "").lower() == "100-continue"
        return head

    def _read_exactly(self, length: int) -> bytes | None:
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _read_chunks(self) -> bytes | None:
        buffer = self._buffer
        while (line_end := buffer.find(b"\r\n", 0, _MAX_HEAD)) >= 0:
            size_text = bytes(buffer[:line_end]).partition(b";")[0].strip()
            if not _HEX.fullmatch(size_text):
                raise HttpError(400, "malformed size of a chunk")
            size = int(size_text, 16)
            if size == 0:
                return self._read_trailer(line_end)
            if len(self._chunks) + size > MAX_BODY:
                raise HttpError(413, _TOO_LARGE)
            start, stop = line_end + 2, line_end + 2 + size
            if len(buffer) < stop + 2:
                return None
            if buffer[stop : stop + 2] != b"\r\n":
                raise HttpError(400, "a chunk is longer than its size")
            self._chunks += buffer[start:stop]
            del buffer[: stop + 2]
        if len(buffer) >= _MAX_HEAD:
            raise HttpError(400, "malformed size of a chunk")
        return None

    def _read_trailer(self, last_size_end: int) -> bytes | None:
        # The CRLF of the last size also begins the empty line that ends an empty trailer.
        end = self._buffer.find(b"\r\n\r\n", last_size_end)
        if end < 0:
            return None
        body = bytes(self._chunks)
        del self._buffer[: end + 4]
        self._chunks.clear()
        return body


def _parse_head(text: str) -> Request:
    request_line, *lines = text.split("\r\n")
    if not (match := _REQUEST_LINE.fullmatch(request_line)):
        raise HttpError(400, "malformed request line")
    method, path, version = match.groups()
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _parse_header(line)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    # An answer to HEAD has no body: closing spares every other place to know it.
    closes = version == "HTTP/1.0" or method == "HEAD" or headers.get("connection", "").lower() == "close"
    return Request(method, path, headers, _body_length(headers), not closes)


@lru_cache(maxsize=256)  # most lines are the same in all requests of a client
def _parse_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise HttpError(400, "malformed header")
    return name.lower(), value.strip()


def _body_length(headers: dict[str, str]) -> int | None:
    """Bytes of the body, or None when it comes in chunks."""
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if "content-length" in headers or coding.lower() != "chunked":
            raise HttpError(400, "Transfer-Encoding may be chunked, and then without Content-Length")
        return None
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise HttpError(400, "malformed Content-Length")
    # Its digits are counted first: int() itself refuses numbers of thousands of digits.
    if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
        raise HttpError(413, _TOO_LARGE)
    return int(length)


class HttpProtocol(asyncio.Protocol):
    """One connection: reads requests, asks `handle` for the answer, and sends it when its delay is over."""

    def __init__(self, handle: Callable[[Request], Response], connections: set[HttpProtocol]) -> None:
        self._handle = handle
        self._connections = connections
        self._parser = RequestParser()
        self._current: Response | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the open connections."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # as a TCP server's are
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the cause, the peer is gone
        """Drop what was being answered."""
        self._connections.discard(self)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._current is not None and self._current.on_end is not None:
            self._current.on_end(False)  # noqa: FBT003 - the callback's one argument

    def data_received(self, data: bytes) -> None:
        """Answer every request that is now whole."""
        if self._closing:
            return
        self._parser.feed(data)
        self._serve()

    def pause_writing(self) -> None:
        """Answer no more until the peer has read."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on answering."""
        self._writable = True
        self._serve()

    def abort(self) -> None:
        """Close at once, whatever is in flight."""
        self._transport.abort()

    def _serve(self) -> None:
        while self._current is None and self._writable and not self._closing:
            try:
                request = self._parser.next_request()
            except HttpError as error:
                self._send(Response(error.status, error_body(error.status, str(error))), keep_alive=False)
                return
            if request is None:
                if self._parser.take_continue():
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            response = self._handle(request)
            if response.delay > 0:
                self._current = response
                send = partial(self._send_late, response, keep_alive=request.keep_alive)
                self._timer = asyncio.get_running_loop().call_later(response.delay, send)
            else:
                self._send(response, keep_alive=request.keep_alive)

    def _send_late(self, response: Response, *, keep_alive: bool) -> None:
        self._current = None
        self._send(response, keep_alive=keep_alive)
        self._serve()

    def _send(self, response: Response, *, keep_alive: bool) -> None:
        close = response.truncate or not keep_alive
        body = response.body
        head = (
            f"{_STATUS_LINES[response.status]}Content-Type: {response.content_type}\r\n{response.headers}"
            f"Content-Length: {len(body)}\r\nConnection: {'close' if close else 'keep-alive'}\r\n\r\n"
        ).encode("latin-1")
        self._transport.write(head + (body[: len(body) // 2] if response.truncate else body))
        if response.on_end is not None:
            response.on_end(not response.truncate)
        if close:
            self._closing = True
            self._transport.write_eof()
            self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._transport.abort)

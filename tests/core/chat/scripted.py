"""A server that answers as its script says: raw bytes, so that it can also break every rule of HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from tasks.core.exchange.request import Answer, ChatRequest
from tasks.core.models import Purpose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

SECRET = "sk-very-secret-0123456789"  # noqa: S105 - nobody's


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent for one request, and what becomes of the connection then."""

    data: bytes
    then: Literal["keep", "close", "reset", "hang"] = "keep"
    gate: asyncio.Event | None = None


def http(status: int, body: bytes | str, *headers: str, reason: str = "Reason") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = "".join(f"{line}\r\n" for line in (*headers, f"Content-Length: {len(content)}"))
    return f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode() + content


def completion(text: str = "an answer", **fields: Any) -> bytes:
    document = {
        "model": "as-reported",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    }
    return http(200, json.dumps(document | fields))


@dataclass(slots=True)
class Received:
    """One request as it came; header names in lower case."""

    line: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class Scripted:
    """The server; leaving it fails the test when it was asked more or less often than its script holds."""

    script: Sequence[bytes | Reply]
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    beyond: int = 0
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)
    _left: list[bytes | Reply] = field(default_factory=list)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._left = list(self.script)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        if error is None:
            assert self.beyond == 0, f"{self.beyond} requests more than the script holds"
            assert not self._left, f"{len(self._left)} replies were never asked for"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client has closed its connection.
        except asyncio.CancelledError:
            pass  # The test is over; asyncio's streams would report a cancelled handler.
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.received.append(await _read(reader))
        self.arrived.set()
        if not self._left:
            self.beyond += 1
            return False
        entry = self._left.pop(0)
        reply = entry if isinstance(entry, Reply) else Reply(entry)
        if reply.gate is not None:
            await reply.gate.wait()
        writer.write(reply.data)
        await writer.drain()
        if reply.then == "hang":
            await reader.read()
        if reply.then == "close":
            writer.close()
            await writer.wait_closed()
        if reply.then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return reply.then == "keep"


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    return Received(head[0], headers, body)


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def question(text: str = "Why?", endpoint: str = "http://127.0.0.1:1/v1", **fields: Any) -> ChatRequest:
    settings: dict[str, Any] = {
        "purpose": Purpose.CHOSEN,
        "model": "demo-strong",
        "parameters": {"temperature": 0.7, "top_p": 1.0, "max_tokens": 64},
    }
    return ChatRequest(endpoint=endpoint, messages=(("user", text),), **(settings | fields))


def answer(text: str = "Because.", **fields: Any) -> Answer:
    return Answer(content=text, **fields)

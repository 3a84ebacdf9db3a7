"""The demo model server, and what it remembers of the requests that it got.

For demonstrations, tests and the benchmark: its answers are filler, and the same for the same request.
`python -m tasks.core.demo.server --help` runs it as a process; the first line on its output is the base URL.

Paths: POST `…/chat/completions`; GET `/v1/models`, `/stats` (counts) and `/requests` (every chat request in
order of arrival). Requests count from their arrival; an answer counts when it was sent in full.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

import orjson

from tasks.core.demo.chat import CONTENT_TYPE, BadChatError, Behaviour, complete, events, happens, read_chat
from tasks.core.demo.http import HttpProtocol, Response, error_body
from tasks.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tasks.core.demo.chat import Chat
    from tasks.core.demo.http import Request


@dataclass(slots=True)
class DemoStats:
    """Counts of chat requests since the server started.

    Attributes:
        requests: Requests that arrived.
        answered: Completions sent in full.
        in_flight: Requests that arrived and are not answered yet.
        duplicates: Completions sent in full for a request that had one already, by body and key.
        by_purpose: Requests by what they ask for: subtopics, prompts, prose, judge.
        connections: Connections opened, whatever they were used for.
        statuses: Answers by HTTP status, those that were cut or dropped included.
    """

    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    duplicates: int = 0
    by_purpose: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Record:
    """One chat request.

    Attributes:
        key: Its Idempotency-Key, or None.
        body_hash: Of the fields that decide the answer, as hex; of the whole body when it is malformed.
        model: "" when the body is malformed.
        kind: subtopics, prompts, prose or judge; "" when the body is malformed.
        status: HTTP status of its answer.
        arrived: When it arrived, in seconds of the server's clock.
        ended: When its answer was sent or dropped, by the same clock.
        finished: Whether the answer was sent in full.
    """

    key: str | None
    body_hash: str
    model: str
    kind: str
    status: int = 200
    arrived: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    finished: bool = False

    def end(self, *, finished: bool) -> None:
        """Note the end of its answer."""
        self.ended = time.monotonic()
        self.finished = finished


__all__ = ["Behaviour", "DemoServer", "DemoStats", "Record", "main"]

PORTS_TRIED = 20
"""When a port is taken, so many of those that follow it are tried."""

_NAMES = ("demo-strong", "demo-weak", "demo-judge")  # are listed; any other is answered as well
_MODELS = [{"id": name, "object": "model", "created": 0, "owned_by": "demo"} for name in _NAMES]
_LAST_PORT = 65_535
_BACKLOG = 4096
_OK = 200


class DemoServer:
    """The server, as an async context manager; leaving it ends all connections at once.

    Attributes:
        stats: The counts that `/stats` shows.
        records: The requests that `/requests` shows.
        port: The port that is listened on.

    Args:
        behaviour: How the model behaves; by default flawlessly and at once.
        host: A loopback IPv4 address: nobody else is to reach this server.
        port: 0 for any free one. When it is taken, the next free one of the 20 that follow it is used.

    Raises:
        UsageError: The host or port is not allowed, or (on entering) none of the ports is free.
    """

    def __init__(self, behaviour: Behaviour | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        try:
            loopback = ipaddress.IPv4Address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise UsageError(f"host is {host}; allowed: a loopback address such as 127.0.0.1")
        if not 0 <= port <= _LAST_PORT:
            raise UsageError(f"port is {port}; allowed: 0 to {_LAST_PORT}")
        self.behaviour = behaviour or Behaviour()
        self.host = host
        self.port = port
        self.stats = DemoStats()
        self.records: list[Record] = []
        self._connections: set[HttpProtocol] = set()
        self._attempts: dict[bytes, int] = {}
        self._answered: set[bytes] = set()

    @property
    def base_url(self) -> str:
        """What a client is configured with, e.g. `http://127.0.0.1:8080/v1`."""
        return f"http://{self.host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await self._listen()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # so that the connections hear that they are lost
        await self._server.wait_closed()

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        last = min(self.port + PORTS_TRIED, _LAST_PORT) if self.port else 0
        for port in range(self.port, last + 1):
            try:
                return await loop.create_server(
                    self._connect, self.host, port, reuse_address=True, backlog=_BACKLOG
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise UsageError(f"cannot listen on {self.host}:{port}: {error.strerror}") from error
        raise UsageError(f"the ports {self.port} to {last} are all taken; 0 takes any that is free")

    def _connect(self) -> HttpProtocol:
        self.stats.connections += 1
        return HttpProtocol(self._handle, self._connections)

    def _handle(self, request: Request) -> Response:
        if request.method == "POST" and request.path.endswith("/chat/completions"):
            return self._chat(request)
        if request.method == "GET":
            if request.path.endswith("/models"):
                return _json({"object": "list", "data": _MODELS})
            if request.path == "/stats":
                return _json(self.stats)
            if request.path == "/requests":
                return _json(self.records)
        return Response(404, error_body(404, f"there is no {request.method} {request.path} here"))

    def _chat(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        try:
            chat = read_chat(request.body)
        except BadChatError as error:
            seed = sha256(request.body).digest()
            record = Record(key, seed.hex(), "", "")
            response = Response(400, error_body(400, str(error)))
        else:
            seed = sha256(chat.digest + (key or "").encode()).digest()
            record = Record(key, chat.digest.hex(), sys.intern(chat.model), chat.kind.value)
            self.stats.by_purpose[record.kind] += 1
            response = self._answer(chat, seed)
        record.status = response.status
        self.records.append(record)
        self.stats.requests += 1
        self.stats.in_flight += 1
        response.on_end = partial(self._end, record, seed)
        return response

    def _answer(self, chat: Chat, seed: bytes) -> Response:
        behaviour = self.behaviour
        self._attempts[seed] = number = self._attempts.get(seed, 0) + 1
        attempt = f" at attempt {number}"
        delay = behaviour.latency_ms / 1000
        if chat.model in behaviour.fail_models:
            return _failure(404, f"The model `{chat.model}` does not exist", delay, "model_not_found")
        if behaviour.fail_matching and behaviour.fail_matching in chat.text:
            return _failure(400, "The request was rejected by the demo model's settings", delay)
        if happens(behaviour.rate_limited, seed, "rate_limited" + attempt):
            response = _failure(429, "Rate limit reached", delay, "rate_limit_exceeded")
            response.headers = f"Retry-After: {behaviour.retry_after:g}\r\n"
            return response
        matches = bool(behaviour.error_matching) and behaviour.error_matching in chat.text
        if matches or happens(behaviour.error, seed, "error" + attempt):
            return _failure(500, "The demo server had an error", delay)
        truncate = happens(behaviour.truncate, seed, "truncate" + attempt)
        body = complete(chat, seed, behaviour)
        if not chat.stream:
            return Response(_OK, body, delay=delay, truncate=truncate)
        unfinished = happens(behaviour.unfinished, seed, "unfinished" + attempt)
        body = events(body, usage=chat.stream_usage, unfinished=unfinished)
        return Response(_OK, body, content_type=CONTENT_TYPE, delay=delay, truncate=truncate)

    def _end(self, record: Record, seed: bytes, sent: bool) -> None:  # noqa: FBT001 - Response.on_end
        stats = self.stats
        stats.in_flight -= 1
        stats.statuses[str(record.status)] += 1
        record.end(finished=sent)
        if sent and record.status == _OK:
            stats.answered += 1
            stats.duplicates += seed in self._answered
            self._answered.add(seed)


def _json(value: object) -> Response:
    return Response(_OK, orjson.dumps(value))


def _failure(status: int, message: str, delay: float, code: str | None = None) -> Response:
    return Response(status, error_body(status, message, code), delay=delay)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.core.demo.server",
        description="Serve the demo model on 127.0.0.1; the first line printed is its base URL.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes any that is free")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    for option in fields(Behaviour):
        flag = "--" + option.name.replace("_", "-")
        if isinstance(option.default, float):
            parser.add_argument(flag, type=float, default=option.default, metavar="NUMBER")
    parser.add_argument("--fail-models", nargs="+", default=(), metavar="MODEL")
    parser.add_argument("--fail-matching", default="", metavar="TEXT")
    parser.add_argument("--error-matching", default="", metavar="TEXT")
    return parser


async def _run(server: DemoServer, *, with_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        # A thread, because an event loop cannot watch every kind of standard input (a file, /dev/null).
        threading.Thread(target=_await_end_of_input, args=(loop, stop), daemon=True).start()
    async with server:
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()
        await stop.wait()


def _await_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 65_536):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended already, by a signal
        loop.call_soon_threadsafe(stop.set)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server until SIGINT or SIGTERM, or with `--with-parent` until standard input ends.

    Raises:
        SystemExit: 2 when the arguments cannot be used; what is wrong stands on standard error.
    """
    parser = _parser()
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    port, with_parent = options.pop("port"), options.pop("with_parent")
    options["fail_models"] = tuple(options["fail_models"])
    # Every request in flight holds a connection, and the usual soft limit is 1,024 files.
    with contextlib.suppress(ValueError, OSError):  # a server for fewer connections is still of use
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(_run(DemoServer(Behaviour(**options), port=port), with_parent=with_parent))
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

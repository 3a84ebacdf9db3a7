"""Hostile servers, and a process that asks them: as a module, it prints how much memory each of them cost.

Each server is asked several times at once. A line of JSON says the cause of each failure ("" for an answer),
the most megabytes above those of an ordinary answer, and how an ordinary call fared then.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import zlib
from contextlib import asynccontextmanager
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.chat.http import ChatHttp
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError
from tests.core.chat.scripted import completion, question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

IN_FLIGHT = 4
BOUND = 1.0
MEGABYTE = 2**20

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
BLOCK = b"x" * 65_536
MESSAGE = b'{"choices": [{"message": {"content": "'


@cache
def bomb() -> Iterable[bytes]:
    """512 MB of zeros, as half a megabyte of gzip; compressed once, for every megabyte stands alone."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros, times, checksum = bytes(MEGABYTE), 512, 0
    packed = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(times):
        checksum = zlib.crc32(zeros, checksum)
    begin = gzip.compress(b"", mtime=0)[:10]
    return [GZIP + begin, *[packed] * times, packer.flush() + struct.pack("<II", checksum, times * MEGABYTE)]


def endless(head: bytes, block: bytes) -> Iterable[bytes]:
    return chain([head], repeat(block * (1 + 65_536 // len(block))))


def sized(start: bytes, block: bytes, megabytes: int, end: bytes) -> Iterable[bytes]:
    times = 1 + 65_536 // len(block)
    return chain([JSON + start], repeat(block * times, megabytes * MEGABYTE // (len(block) * times)), [end])


DELTA = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % BLOCK[:8000]
SERVERS: dict[str, Callable[[], Iterable[bytes]]] = {
    "a body without end": lambda: endless(JSON, BLOCK),
    "a message without end": lambda: endless(JSON + MESSAGE, BLOCK),
    "a gzip bomb": bomb,
    "an error without end": lambda: endless(b"HTTP/1.1 500 No\r\n\r\n", BLOCK),
    "a header without end": lambda: endless(b"HTTP/1.1 200 OK\r\nX: ", BLOCK),
    "headers without end": lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "a status line without end": lambda: endless(b"HTTP/1.1 200 ", BLOCK),
    "a chunk's size without end": lambda: endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", BLOCK
    ),
    "trailers without end": lambda: endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"
    ),
    "a stream in one line": lambda: endless(EVENTS + b"data: ", BLOCK),
    "an event in many lines": lambda: endless(EVENTS, b"data:\n"),
    "a stream of comments": lambda: endless(EVENTS, b": " + BLOCK[:100] + b"\n\n"),
    "a stream without end": lambda: endless(EVENTS, DELTA),
    "JSON nested deep": lambda: [JSON + b"[" * 100_000 + b"]" * 100_000],
    "many empty lists": lambda: sized(b"[1", b",[]", 60, b"]"),
    "wide characters": lambda: sized(MESSAGE, BLOCK, 60, '🙂"}}]}'.encode()),
    "escaped characters": lambda: sized(MESSAGE, rb"\ud83d", 60, b'"}}]}'),
    "a message of 36 MB": lambda: sized(MESSAGE, BLOCK, 36, b'"}}]}'),
}


# Read and thrown away, as long as the attempt lasts.
ENDS_BY_TIMEOUT = {"a chunk's size without end"}


async def serve(
    blocks: list[bytes] | Iterable[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        for block in blocks:
            writer.write(block)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass  # The client has had enough, or all is over.
    finally:
        if not writer.is_closing():
            writer.transport.abort()


def memory(line: str) -> float:
    """Megabytes of this process: `VmRSS` now, `VmHWM` at most since the last `forget`."""
    status = dict(each.split(":", 1) for each in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) / 1024


def forget() -> None:
    """Let the peak be measured anew from here."""
    Path("/proc/self/clear_refs").write_text("5")


async def cause(client: ChatHttp, url: str, timeout: float = 120.0) -> str:  # noqa: ASYNC109 - the setting
    try:
        await client.send(question(endpoint=url), Manner(None, timeout))
    except AttemptError as error:
        return error.cause if str(error).isprintable() else repr(str(error))
    return ""


@asynccontextmanager
async def serving(make: Callable[[], Iterable[bytes]]) -> AsyncIterator[str]:
    """A server that sends these blocks to whoever asks; its URL."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await serve(make(), reader, writer)

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def ask_all() -> None:
    async with serving(lambda: [completion()]) as friendly, ChatHttp(max_connections=64) as client:
        await cause(client, friendly)
        usual = memory("VmRSS")
        for name, make in SERVERS.items():
            forget()
            timeout = BOUND if name in ENDS_BY_TIMEOUT else 120.0
            async with serving(make) as url:
                causes = await asyncio.gather(*(cause(client, url, timeout) for _ in range(IN_FLIGHT)))
            grown = memory("VmHWM") - usual
            # Whatever it was, the client is as good as before.
            after = await cause(client, friendly)
            print(json.dumps({"name": name, "causes": causes, "grown": grown, "after": after}))


if __name__ == "__main__":
    asyncio.run(ask_all())

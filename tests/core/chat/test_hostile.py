"""Hostile servers: each gives a clear failure within bounded memory, and harms no other call."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tasks.core.chat.http import ChatHttp
from tasks.core.chat.transport import LARGE
from tasks.core.exchange.attempt import AttemptError, Verdict
from tests.core.chat.attempts import MESSAGE, answered, failed, sent
from tests.core.chat.hostile import IN_FLIGHT, SERVERS
from tests.core.chat.scripted import Reply, Scripted, completion, http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[3]
MOST_MEGABYTES = 200
EXPECTED = {
    "an error without end": {"http_500"},
    "a chunk's size without end": {"timeout"},
    "a message of 36 MB": {""},
}
DOCUMENT = json.dumps({"choices": [{"message": MESSAGE}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[ChatHttp]:
    async with ChatHttp(max_connections=8) as shared:
        yield shared


async def test_memory_stays_bounded() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.core.chat.hostile", cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["name"] for each in found] == list(SERVERS)
    for each in found:
        print(each)
        allowed = EXPECTED.get(each["name"], {"malformed_response", "connection"})
        assert len(each["causes"]) == IN_FLIGHT
        assert set(each["causes"]) <= allowed, each
        assert each["after"] == "", each
        assert each["grown"] <= MOST_MEGABYTES, each


async def test_a_slow_drip_ends_with_its_attempt(client: ChatHttp) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(HEAD + b"Content-Type: text/event-stream\r\n\r\n")
            while True:
                writer.write(b":\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server, Scripted([]) as unused:
        unused._server, kept = server, unused._server
        with pytest.raises(AttemptError) as caught:
            await sent(client, unused, timeout=0.3, streaming=True)
        unused._server = kept
    assert (caught.value.cause, caught.value.verdict) == ("timeout", Verdict.RETRY)


async def test_a_large_body_that_hangs_holds_up_no_ordinary_answer(client: ChatHttp) -> None:
    large = Reply(HEAD + b"Content-Length: 9999999\r\n\r\n" + b"x" * 2 * LARGE, "hang")
    async with Scripted([large, completion("fine")]) as server:
        hanging = asyncio.create_task(sent(client, server))
        await server.arrived.wait()
        while not client._large.locked():  # noqa: ASYNC110 - a lock has no event
            await asyncio.sleep(0)
        assert (await sent(client, server)).content == "fine"
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
    assert not client._large.locked()


async def test_large_bodies_come_one_after_the_other(client: ChatHttp) -> None:
    reply = completion("x" * 4 * LARGE)
    async with Scripted([reply] * 5) as server:
        answers = await asyncio.gather(*(sent(client, server) for _ in range(5)))
    assert [len(answer.content) for answer in answers] == [4 * LARGE] * 5


@pytest.mark.parametrize("most", [len(DOCUMENT), len(DOCUMENT) - 1])
async def test_a_body_may_have_its_most_bytes_and_no_more(client: ChatHttp, most: int) -> None:
    for reply in (http(200, DOCUMENT), http(200, gzip.compress(DOCUMENT, mtime=0), "Content-Encoding: gzip")):
        if most == len(DOCUMENT):
            assert (await answered(client, reply, max_bytes=most)).content == "fine"
        else:
            error = await failed(client, reply, max_bytes=most)
            assert (error.cause, str(error)) == ("malformed_response", f"the body has more than {most} bytes")


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(DOCUMENT, mtime=0)),
        ("GZIP", gzip.compress(DOCUMENT, mtime=0)),
        ("x-gzip", gzip.compress(DOCUMENT, mtime=0)),
        ("deflate", zlib.compress(DOCUMENT)),
        ("deflate", raw_deflate(DOCUMENT)),
        ("identity", DOCUMENT),
        ("", DOCUMENT),
        ("gzip", gzip.compress(b'{"a": "%s",' % (b"x" * 200_000) + DOCUMENT[1:], mtime=0)),
    ],
)
async def test_compressed_bodies_are_read(client: ChatHttp, encoding: str, body: bytes) -> None:
    assert (await answered(client, http(200, body, f"Content-Encoding: {encoding}"))).content == "fine"


@pytest.mark.parametrize(
    ("encoding", "body", "cause"),
    [
        ("gzip", b"zip!", "malformed_response"),
        ("gzip", gzip.compress(DOCUMENT, mtime=0)[:-12], "connection"),
        ("gzip", b"", "malformed_response"),
        ("deflate", b"\xff\xff\xff", "malformed_response"),
        ("br", b"x", "malformed_response"),
        ("gzip, gzip", gzip.compress(gzip.compress(DOCUMENT, mtime=0), mtime=0), "malformed_response"),
    ],
)
async def test_bodies_that_cannot_be_decompressed(
    client: ChatHttp, encoding: str, body: bytes, cause: str
) -> None:
    error = await failed(client, http(200, body, f"Content-Encoding: {encoding}"))
    assert (error.cause, error.verdict) == (cause, Verdict.RETRY)


async def test_only_what_is_bounded_is_asked_for(client: ChatHttp) -> None:
    async with Scripted([completion()]) as server:
        await sent(client, server)
        assert server.received[0].headers["accept-encoding"] == "gzip"


async def test_an_error_counts_though_its_body_is_cut(client: ChatHttp) -> None:
    head = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 1000\r\n\r\n"
    error = await failed(client, Reply(head + b'{"error": "slow', "close"))
    assert (error.cause, error.verdict, error.retry_after) == ("rate_limited", Verdict.THROTTLED, 7.0)


CONTENT = completion().partition(b"\r\n\r\n")[2]
LENGTH = b"Content-Length: %d\r\n" % len(CONTENT)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 " + b"x" * 2**20 + b"\r\n" + LENGTH,
        HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + LENGTH,
        HEAD + b"Retry-After: 1\r\n" * 10_000 + LENGTH,
        HEAD + b"Content-Length: 1e20\r\n",
        HEAD + b"Content-Length: 99999999999999999999\r\n",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n",
        HEAD + b"Content-Length: -1\r\n",
        HEAD + b"Content-Length: 5\r\n" + LENGTH,
        HEAD + b"Content-Length: 9223372036854775807\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF",
        b"HTTP/1.1 99999 Odd\r\n" + LENGTH,
        b"HTTP/9.9 200 OK\r\n" + LENGTH,
    ],
)
async def test_a_head_that_nobody_means_is_a_lost_connection(client: ChatHttp, head: bytes) -> None:
    error = await failed(client, Reply(head + b"\r\n" + CONTENT, "close"))
    assert (error.cause, error.verdict) == ("connection", Verdict.RETRY)


@pytest.mark.parametrize(
    "header",
    [
        "Keep-Alive: timeout=1e20, max=-1",
        "Set-Cookie: a=b; Max-Age=1e999; Expires=Fri, 31 Dec 99999 00:00:00 GMT",
        "Age: 1e20",
        "Date: Fri, 31 Dec 9999 23:59:59 -2359",
        "Content-Type: application/json; charset=idna",
        "x-ratelimit-limit-requests: 999999999999999999999999",
        "Retry-After: 99999999999999999999",
    ],
)
async def test_no_header_of_an_answer_costs_it(client: ChatHttp, header: str) -> None:
    assert (await answered(client, http(200, CONTENT, header))).content == "an answer"


@pytest.mark.parametrize("number", ["1e999", "-1", "NaN"])
async def test_no_number_in_an_answer_costs_it(client: ChatHttp, number: str) -> None:
    body = CONTENT.replace(b'{"model"', f'{{"created": {number}, "model"'.encode(), 1)
    assert (await answered(client, http(200, body))).content == "an answer"
    usage = CONTENT.replace(b": 11", f": {number}".encode())
    assert (await answered(client, http(200, usage))).prompt_tokens is None

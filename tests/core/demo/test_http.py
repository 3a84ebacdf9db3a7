"""The HTTP/1.1 of the demo model server, over bare sockets and through its parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.demo.http import MAX_BODY, HttpError, RequestParser
from tasks.core.demo.server import Behaviour
from tests.core.demo.client import (
    CHAT,
    RAW,
    ask,
    body,
    connected,
    raw_body,
    read_answer,
    serving,
)


@pytest.mark.parametrize("latency_ms", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_pipelined_requests_in_pieces_are_answered_in_order(size: int, latency_ms: float) -> None:
    texts = [f"Tell me about number {n}." for n in range(5)]
    async with serving(Behaviour(latency_ms=latency_ms)) as (server, client):
        expected = [await ask(client, text) for text in texts]
        async with connected(server) as (reader, writer):
            sent = b"".join(RAW + raw_body(text, "Idempotency-Key: 00") for text in texts)
            for start in range(0, len(sent), size):
                writer.write(sent[start : start + size])
                await writer.drain()
            assert [await read_answer(reader) for _ in texts] == [(200, answer) for answer in expected]


async def test_chunks_expect_and_connection_close() -> None:
    content = json.dumps(body("Tell me about tides.")).encode()
    async with serving() as (server, _), connected(server) as (reader, writer):
        writer.write(RAW + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for piece in (content[:10], content[10:]):
            writer.write(b"%x;note=1\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\nTrailer: yes\r\n\r\n")
        status, answer = await read_answer(reader)
        assert (status, answer["object"]) == (200, "chat.completion")
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /stats HTTP/3\r\n\r\n", 400),
        (RAW + b" folded\r\n\r\n", 400),
        (RAW + b"Content-Length: -1\r\n\r\n", 400),
        (RAW + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (RAW + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (RAW + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (RAW + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\n", 400),
        (RAW + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        (RAW + b"Transfer-Encoding: chunked\r\n\r\n1000001\r\n", 413),
        (RAW + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (RAW + b"X: " + b"x" * 70_000, 431),
        (RAW + raw_body("x").replace(b'"model"', b'"mODEL"'), 400),
        (RAW + b"Content-Length: 2\r\n\r\n[]", 400),
        (RAW + b"Content-Length: 4\r\n\r\nnull", 400),
    ],
)
async def test_malformed_requests(sent: bytes, status: int) -> None:
    async with serving() as (server, _), connected(server) as (reader, writer):
        writer.write(sent)
        answer = await read_answer(reader)
        assert (answer[0], list(answer[1]["error"])) == (status, ["message", "type", "param", "code"])


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": ["hello"]},
        {"messages": [{"role": "user"}]},
        {"model": ""},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"temperature": "hot"},
    ],
)
async def test_bodies_that_are_no_chat_request(fields: dict[str, Any]) -> None:
    async with serving() as (_, client):
        response = await client.post(CHAT, json=body("Hi.") | fields)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


async def test_a_large_body_is_taken_and_a_larger_one_refused() -> None:
    async with serving() as (_, client):
        assert (await client.post(CHAT, json=body("x" * 3_000_000))).status_code == 200
        assert (await client.post(CHAT, json=body("x" * MAX_BODY))).status_code == 413


async def test_content_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "Tell me"}, {"type": "text", "text": "about tides."}]
    async with serving() as (_, client):
        response = await client.post(CHAT, json=body("") | {"messages": [{"role": "user", "content": parts}]})
    assert "about tides (demo text)" in response.json()["choices"][0]["message"]["content"]


BODIES = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=4)


@given(BODIES, st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_requests_do_not_depend_on_how_they_are_split(
    bodies: list[tuple[bytes, bool]], sizes: list[int]
) -> None:
    sent = b""
    for content, chunked in bodies:
        if chunked:
            pieces = [content[:9], content[9:]] if len(content) > 9 else [content] if content else []
            coded = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            sent += b"POST /x?q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
        else:
            sent += b"\r\nPOST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    parser, found = RequestParser(), []
    for turn in range(len(sent)):
        size = sizes[turn % len(sizes)]
        parser.feed(sent[:size])
        sent = sent[size:]
        while request := parser.next_request():
            found.append((request.method, request.path, request.body))
    assert found == [("POST", "/x", content) for content, _ in bodies]


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_break_the_parser(data: bytes, ended: bool) -> None:  # noqa: FBT001 - drawn
    parser = RequestParser()
    parser.feed(data + b"\r\n\r\n" * ended)
    try:
        while request := parser.next_request():
            assert request.method
    except HttpError as error:
        assert error.status in {400, 413, 431}  # noqa: PT017 - that there is an error at all is not the point

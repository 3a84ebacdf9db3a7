"""Every server's shapes over real HTTP: answers are whole or none, and errors are understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tasks.core.chat.http import ChatHttp
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError
from tests.core.chat.attempts import KEY, answered, failed
from tests.core.chat.conformance.hosted import HOSTED
from tests.core.chat.conformance.local import LOCAL
from tests.core.chat.conformance.shapes import TEXT
from tests.core.chat.scripted import Reply, Scripted, question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.core.chat.conformance.shapes import Server, Wrong

SERVERS = (*HOSTED, *LOCAL)

# To make a client takes longer than most of these tests: they share one, and its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

servers = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
errors = pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(wrong, id=f"{server.name} {number}")
        for server in SERVERS
        for number, wrong in enumerate(server.errors)
    ],
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[ChatHttp]:
    async with ChatHttp(max_connections=4) as shared:
        yield shared


@servers
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_answer_is_read(client: ChatHttp, server: Server, streaming: bool) -> None:  # noqa: FBT001 - both
    answer = await answered(client, server.streamed if streaming else server.plain, streaming=streaming)
    assert (answer.content, answer.reasoning) == (TEXT, server.reasoning)
    assert (answer.truncated, answer.refused, answer.model != "") == (False, False, True)
    usage = (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens, answer.reasoning_tokens)
    assert usage == server.usage


@errors
async def test_an_error_is_understood(client: ChatHttp, wrong: Wrong) -> None:
    form: dict[str, Any] = {"streaming": b"event-stream" in wrong.response, "structure": "json_schema"}
    async with Scripted([wrong.response]) as server:
        request = question(endpoint=server.url, schema="items")
        with pytest.raises(AttemptError) as caught:
            await client.send(request, Manner(KEY, 30.0, **form))
    error = caught.value
    assert (error.verdict, wrong.words in str(error)) == (wrong.verdict, True), str(error)
    assert str(error).isprintable()
    assert error.advice == wrong.advice


@servers
async def test_each_server_has_a_limit(server: Server) -> None:
    assert any(wrong.verdict.name == "THROTTLED" for wrong in server.errors)


@servers
async def test_an_answer_cut_at_any_byte_is_whole_or_none(client: ChatHttp, server: Server) -> None:
    for data in (server.plain, server.streamed):
        # Every byte is tried in test_streaming.py without a network; here, over HTTP, some of each response.
        for length in range(1, len(data), 97):
            reply = Reply(data[:length], "close")
            try:
                answer = await answered(client, reply, streaming=True)
            except AttemptError as error:
                assert error.passing  # noqa: PT017 - either is allowed
            else:
                assert (answer.content, answer.reasoning) == (TEXT, server.reasoning)


async def test_a_request_that_waits_is_kept_alive_by_empty_lines(client: ChatHttp) -> None:
    deepseek = next(server for server in SERVERS if server.name == "DeepSeek")
    body = b"\n\n\n" + deepseek.plain.split(b"\r\n\r\n", 1)[1]
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    assert (await answered(client, reply)).content == TEXT


async def test_nothing_that_a_server_says_is_said_to_it_again(client: ChatHttp) -> None:
    openai = SERVERS[0]
    cookie = openai.plain.replace(b"\r\n", b"\r\nSet-Cookie: __cf_bm=x; Path=/\r\n", 1)
    async with Scripted([cookie, openai.plain]) as server:
        for _ in range(2):
            await client.send(question(endpoint=server.url), Manner(KEY, 30.0))
        assert "cookie" not in server.received[1].headers


async def test_a_rate_limit_is_read_from_an_answer_too(client: ChatHttp) -> None:
    openai = SERVERS[0]
    async with Scripted([openai.plain]) as server:
        arrival = await client.send(question(endpoint=server.url), Manner(KEY, 30.0))
    assert arrival.advice.limit_requests == 500
    error = await failed(client, openai.errors[0].response)
    assert "check its API key" in str(error)

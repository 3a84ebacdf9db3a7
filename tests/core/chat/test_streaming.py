"""Answers that come as a stream: cut anywhere, they are whole or none."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.chat.http import ChatHttp
from tasks.core.chat.reading import is_stream, read_stream
from tasks.core.chat.transport import Share, opening
from tasks.core.exchange.attempt import AttemptError, Verdict
from tests.core.chat.attempts import answered, failed, sent
from tests.core.chat.scripted import Reply, Scripted, completion, http
from tests.core.chat.test_reading import unchecked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tasks.core.exchange.request import Answer

# To make a client takes longer than most of these tests: they share one, and its loop.
shared_loop = pytest.mark.asyncio(loop_scope="module")

EVENTS = "Content-Type: text/event-stream; charset=utf-8"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[ChatHttp]:
    async with ChatHttp(max_connections=4) as shared:
        yield shared


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> str:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"id": "x", "model": "m", "choices": choices, "usage": usage}, ensure_ascii=False)


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
CHUNKS = (
    chunk(role="assistant", content=""),
    chunk(reasoning_content="Nebel?"),
    chunk(content="Für "),
    chunk(content="🙂 alle."),
    chunk("stop"),
    USAGE,
    "[DONE]",
)


def stream(*chunks: str, end: str = "\n") -> bytes:
    return "".join(f"data: {text}{end}{end}" for text in chunks).encode()


WHOLE = stream(*CHUNKS)


def plain(answer: Answer) -> tuple[str, str, str, int | None, int | None]:
    return (
        answer.content,
        answer.reasoning,
        answer.finish_reason,
        answer.prompt_tokens,
        answer.completion_tokens,
    )


READ = ("Für 🙂 alle.", "Nebel?", "stop", 5, 3)


async def read(pieces: Iterable[bytes]) -> Answer:
    async def rest() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    with Share(asyncio.Lock()) as share:
        return await read_stream(b"", rest(), share, unchecked, 1.0)


@shared_loop
async def test_a_stream_is_asked_for_and_read(client: ChatHttp) -> None:
    async with Scripted([http(200, WHOLE, EVENTS)]) as server:
        answer = await sent(client, server, streaming=True)
        body = server.received[0].body
    assert plain(answer) == READ
    assert answer.model == "m"
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


@shared_loop
async def test_streams_keep_their_connection(client: ChatHttp) -> None:
    async with Scripted([http(200, WHOLE, EVENTS)] * 5) as server:
        for _ in range(5):
            await sent(client, server, streaming=True)
        assert len(server._handlers) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@shared_loop
async def test_lines_may_end_in_every_way(client: ChatHttp, end: str) -> None:
    assert plain(await answered(client, http(200, stream(*CHUNKS, end=end), EVENTS))) == READ


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@shared_loop
async def test_a_stream_may_be_split_anywhere(end: str) -> None:
    data = stream(*CHUNKS, end=end)
    for place in range(len(data) + 1):
        assert plain(await read([data[:place], data[place:]])) == READ
    assert plain(await read(data[place : place + 1] for place in range(len(data)))) == READ


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@shared_loop
async def test_a_stream_cut_anywhere_is_whole_or_none(end: str) -> None:
    data = stream(*CHUNKS, end=end)
    # All of the content is there, and the server has said so, once this event is complete.
    finished = data.index(b'"finish_reason": "stop"')
    answers = 0
    for length in range(len(data)):
        try:
            answer = await read([data[:length]])
        except AttemptError as error:
            assert (error.cause, error.verdict) == ("connection", Verdict.RETRY)  # noqa: PT017 - or it is whole
        else:
            answers += 1
            assert length > finished
            assert plain(answer)[:3] == READ[:3]
    assert answers > 0


@pytest.mark.parametrize("how", ["close", "reset"])
@shared_loop
async def test_a_stream_whose_connection_is_lost(client: ChatHttp, how: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    begun = stream(*CHUNKS[:4])
    finished = stream(*CHUNKS[:5])
    error = await failed(client, Reply(head + b"%x\r\n%s\r\n" % (len(begun), begun), how))
    assert (error.cause, error.verdict) == ("connection", Verdict.RETRY)
    if how == "close":
        # Paid for and whole, though the usage never came.
        answer = await answered(client, Reply(head + b"%x\r\n%s\r\n" % (len(finished), finished), how))
        assert plain(answer) == (*READ[:3], None, None)


@shared_loop
async def test_a_stream_that_goes_on_after_its_end_is_done(client: ChatHttp) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    assert plain(await answered(client, Reply(head + WHOLE, "hang"))) == READ
    assert plain(await answered(client, Reply(head + WHOLE + stream("{}") * 50_000, "close"))) == READ


@pytest.mark.parametrize(
    "data",
    [
        b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + WHOLE,
        b"\n\n\n" + WHOLE,
        b"\xef\xbb\xbf" + WHOLE,
        b"event: ping\ndata: {}\n\n" + WHOLE,
        b'event: ping\ndata: {"type": "ping"}\n\n' + WHOLE,
        b"retry: 3000\nid: 7\n\n" + WHOLE,
        b"retry: " + b"9" * 10_000 + b"\n\n" + WHOLE,
        b"data:\n\ndata: null\n\ndata: 7\n\ndata: []\n\n" + WHOLE,
        WHOLE.replace(b"data: ", b"data:"),
        WHOLE.replace(b"data: {", b"event: message\nid: 1\ndata: {"),
        WHOLE.replace(b'"choices":', b'\ndata: "choices":'),
        WHOLE.replace(b"[DONE]", b" [DONE] "),
        stream(*CHUNKS[:-1]),
    ],
)
@shared_loop
async def test_what_else_a_stream_may_hold(client: ChatHttp, data: bytes) -> None:
    assert plain(await answered(client, http(200, data, EVENTS))) == READ


@shared_loop
async def test_half_a_character_in_each_of_two_chunks(client: ChatHttp) -> None:
    halves = [chunk(content="@").replace("@", half) for half in (r"\ud83d", r"\ude42")]
    assert (await answered(client, http(200, stream(*halves, "[DONE]"), EVENTS))).content == "🙂"


@shared_loop
async def test_done_without_a_finish_reason_is_an_end(client: ChatHttp) -> None:
    answer = await answered(client, http(200, stream(CHUNKS[2], "[DONE]"), EVENTS))
    assert (answer.content, answer.finish_reason) == ("Für ", "")


@pytest.mark.parametrize(
    "data", [b"", stream("[DONE]"), stream(USAGE, "[DONE]"), stream(*CHUNKS[:4]), b": x\n\n"]
)
@shared_loop
async def test_a_stream_without_an_answer(client: ChatHttp, data: bytes) -> None:
    error = await failed(client, http(200, data, EVENTS), streaming=True)
    assert (error.cause in {"connection", "malformed_response"}, error.verdict) == (True, Verdict.RETRY)


@pytest.mark.parametrize(
    ("text", "cause", "verdict"),
    [
        ('{"error": {"message": "slow", "code": 429}}', "rate_limited", Verdict.THROTTLED),
        ('{"error": {"message": "lost", "code": 502}, "choices": []}', "http_502", Verdict.RETRY),
        ('{"error": {"message": "no", "type": "authentication_error"}}', "http_401", Verdict.FATAL),
        ('{"object": "error", "message": "no", "code": 400}', "http_400", Verdict.GIVE_UP),
        ('{"error": "no", "error_type": "generation"}', "malformed_response", Verdict.RETRY),
        ('{"choices": [{"delta": {}, "finish_reason": "error"}]}', "malformed_response", Verdict.RETRY),
        ("not JSON", "malformed_response", Verdict.RETRY),
        ('{"choices": [{"delta": {"content": "cut', "malformed_response", Verdict.RETRY),
        ("[" * 100_000, "malformed_response", Verdict.RETRY),
    ],
)
@shared_loop
async def test_an_error_inside_a_stream(client: ChatHttp, text: str, cause: str, verdict: Verdict) -> None:
    error = await failed(client, http(200, stream(*CHUNKS[:3], text, *CHUNKS[3:]), EVENTS))
    assert (error.cause, error.verdict) == (cause, verdict)


@shared_loop
async def test_a_document_where_a_stream_was_asked_for_and_the_reverse(client: ChatHttp) -> None:
    assert (await answered(client, completion("whole"), streaming=True)).content == "whole"
    assert plain(await answered(client, http(200, WHOLE, EVENTS))) == READ
    # Mislabelled, too.
    assert plain(await answered(client, http(200, WHOLE, "Content-Type: application/json"))) == READ
    labelled = completion("whole").replace(b"\r\n", b"\r\n" + EVENTS.encode() + b"\r\n", 1)
    assert (await answered(client, labelled, streaming=True)).content == "whole"


@pytest.mark.parametrize("before", ["", ": hello\n\n", "event: x\n"])
@shared_loop
async def test_a_byte_order_mark_before_a_stream_costs_nothing_wherever_it_is_split(before: str) -> None:
    data = "\ufeff".encode() + before.encode() + WHOLE

    async def pieces(cut: int) -> AsyncIterator[bytes]:
        for piece in filter(None, (data[:cut], data[cut:])):
            yield piece

    for cut in range(10):
        body = pieces(cut)
        first = await opening(body)
        assert is_stream("application/json", first)
        with Share(asyncio.Lock()) as share:
            assert plain(await read_stream(first, body, share, unchecked, 1.0)) == READ


def test_what_a_stream_looks_like() -> None:
    assert is_stream("text/event-stream", b"")
    assert is_stream("Text/Event-Stream; charset=utf-8", b"\n\n")
    assert is_stream("", b": comment")
    assert not is_stream("text/event-stream", b' {"choices"')
    assert not is_stream("application/json", b"")


bits = st.sampled_from(
    [
        *(text.encode() for text in CHUNKS),
        *(
            b"data: ",
            b"data:",
            b"\n",
            b"\n\n",
            b"\r\n\r\n",
            b"\r",
            b":",
            b"event: x\n",
            b"id: \0\n",
            b"\xff",
            b"{}",
        ),
        *(b"[DONE]", b'{"choices": [{"delta": {"content": "x"}}]}', b'{"choices": [[]]}', b"null"),
    ]
)


@settings(max_examples=100)
@given(st.lists(bits | st.binary(max_size=8), max_size=20))
def test_any_stream_is_an_answer_or_a_passing_error(pieces: list[bytes]) -> None:
    try:
        answer = asyncio.run(read(pieces))
    except AttemptError as error:
        assert error.passing  # noqa: PT017 - either is allowed
    else:
        answer.content.encode()

"""One attempt over HTTP: whatever a server sends, an answer or an AttemptError with its cause comes of it."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import gzip
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import pytest_asyncio
from pydantic import SecretStr

from tasks.core.chat.http import ChatHttp
from tasks.core.chat.server_errors import MESSAGE_LIMIT
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError
from tests.core.chat.attempts import KEY, MESSAGE, answered, failed, sent
from tests.core.chat.scripted import SECRET, Reply, Scripted, closed_port, completion, http, question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


# To make a client takes longer than most of these tests: they share one, and its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[ChatHttp]:
    async with ChatHttp(max_connections=4) as shared:
        yield shared


def document(**message: Any) -> bytes:
    return http(200, json.dumps({"choices": [{"message": MESSAGE | message}]}))


async def test_an_answer_is_read_whole(client: ChatHttp) -> None:
    before = time.time()
    brought = await answered(client, completion("Once upon a time 🙂\0", other="ignored"))
    assert (brought.content, brought.reasoning, brought.finish_reason) == (
        "Once upon a time 🙂\0",
        "",
        "stop",
    )
    assert (brought.prompt_tokens, brought.completion_tokens) == (11, 7)
    assert brought.model == "as-reported"
    assert before <= brought.started <= brought.finished <= time.time()


async def test_what_is_sent(client: ChatHttp) -> None:
    request_fields: dict[str, Any] = {"schema": "items", "sample": 3, "parameters": {"temperature": 0.0}}
    async with Scripted([completion(), completion(), completion()]) as server:
        request = question("Why 🙂?", server.url, **request_fields)
        await client.send(request, Manner(KEY, 30.0))
        await client.send(request, Manner(None, 30.0))
        await client.send(request, Manner(KEY, 30.0, structure="json_object"))
    with_key, without_key, in_json_mode = server.received
    assert with_key.line == "POST /v1/chat/completions HTTP/1.1"
    assert with_key.body == {
        "model": "demo-strong",
        "messages": [{"role": "user", "content": "Why 🙂?"}],
        "temperature": 0.0,
    }
    assert with_key.headers["content-type"] == "application/json"
    assert {each.headers["idempotency-key"] for each in server.received} == {request.key.hex()}
    assert with_key.headers["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in without_key.headers
    assert without_key.body == with_key.body
    assert in_json_mode.body == with_key.body | {"response_format": {"type": "json_object"}}


async def test_one_connection_serves_many_requests(client: ChatHttp) -> None:
    async with Scripted([*[completion()] * 5]) as server:
        for _ in range(5):
            await sent(client, server)
        assert len(server._handlers) == 1


@pytest.mark.parametrize(
    ("message", "content", "reasoning"),
    [
        ({"content": None}, "", ""),
        ({"content": ["a", " list"]}, "a list", ""),
        ({"content": {"text": "an object"}}, "an object", ""),
        ({"content": 7}, "", ""),
        ({"content": ""}, "", ""),
        ({"reasoning_content": "hm"}, "fine", "hm"),
        ({"reasoning": "hm"}, "fine", "hm"),
        ({"reasoning_content": None, "reasoning": "hm"}, "fine", "hm"),
        ({"reasoning_content": "", "reasoning": "hm"}, "fine", "hm"),
        ({"reasoning_content": "hm", "reasoning": "other"}, "fine", "hm"),
        ({"reasoning": {"steps": []}}, "fine", ""),
        ({"content": None, "reasoning_content": "hm"}, "", "hm"),
        ({"tool_calls": [{"id": "x"}], "refusal": None}, "fine", ""),
    ],
)
async def test_what_a_message_may_hold(
    client: ChatHttp, message: dict[str, Any], content: str, reasoning: str
) -> None:
    brought = await answered(client, document(**message))
    assert (brought.content, brought.reasoning) == (content, reasoning)


async def test_a_message_without_content_is_an_empty_answer_that_was_paid_for(client: ChatHttp) -> None:
    body = {"choices": [{"message": {"role": "assistant", "reasoning": "hm"}}], "usage": {"prompt_tokens": 3}}
    brought = await answered(client, http(200, json.dumps(body)))
    assert (brought.content, brought.reasoning, brought.prompt_tokens) == ("", "hm", 3)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ([], (None, None)),
        ("many", (None, None)),
        ({}, (None, None)),
        ({"prompt_tokens": "12", "completion_tokens": 1.5}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": None}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": 2**70}, (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 2**53 - 1, "total_tokens": "x"}, (0, 2**53 - 1)),
    ],
)
async def test_usage_of_any_type(client: ChatHttp, usage: Any, counts: tuple[int | None, int | None]) -> None:
    brought = await answered(client, completion(usage=usage))
    assert (brought.prompt_tokens, brought.completion_tokens) == counts


@pytest.mark.parametrize(
    ("choice", "model"), [({"finish_reason": None}, None), ({"finish_reason": 5}, ["m"]), ({}, 7)]
)
async def test_other_fields_of_any_type(client: ChatHttp, choice: dict[str, Any], model: Any) -> None:
    brought = await answered(client, completion(choices=[choice | {"message": MESSAGE}], model=model))
    assert (brought.content, brought.finish_reason, brought.model) == ("fine", "", "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"<html>\n<body>200 OK</body>\n</html>",
        b'{"choices": [{"message": {"content": "cut',
        b"data: {}\n\ndata: [DONE]\n\n",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"true",
        b"7",
        b'"text"',
        b"[]",
        b"{}",
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": {"0": 1}}',
        b'{"choices": "text"}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": ["text"]}',
        b'{"choices": [[1]]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"text": "a completion of the older kind"}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": ["text"]}]}',
        b'{"choices": [{"message": 7}]}',
        b'{"error": {"message": "overloaded"}}',
        b'{"a\\nb": 1, "\\u0000": 2, "\\u001b[31m": 3}',
        orjson.dumps({f"{number} {'long' * 50}": 1 for number in range(50)}),
    ],
)
async def test_a_body_that_is_no_completion_is_malformed(client: ChatHttp, body: bytes) -> None:
    error = await failed(client, http(200, body))
    assert (error.cause, error.status, error.passing) == ("malformed_response", None, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"choices": [], "id": "x\\u001b[31m"}',
            'not a chat completion: an object without choices: {"choices"',
        ),
        ("<html>Welcome</html>", "the body is HTML, not JSON; check base_url: <html>Welcome</html>"),
        (f"Busy. {SECRET}", "Busy. ***"),
        ("[" * 5000, "[[["),
        ('{"error": {"message": "odd"}}', "an error in place of an answer: odd"),
    ],
)
async def test_a_body_that_is_no_completion_is_quoted(client: ChatHttp, body: str, message: str) -> None:
    assert message in str(await failed(client, http(200, body)))


@pytest.mark.parametrize(
    ("status", "cause", "passing"),
    [
        (201, "http_201", False),
        (204, "http_204", False),
        (304, "http_304", False),
        (400, "http_400", False),
        (401, "http_401", False),
        (402, "http_402", False),
        (403, "http_403", False),
        (404, "http_404", False),
        (408, "http_408", True),
        (409, "http_409", True),
        (422, "http_422", False),
        (429, "rate_limited", True),
        (500, "http_500", True),
        (502, "http_502", True),
        (503, "http_503", True),
        (529, "http_529", True),
    ],
)
async def test_a_status_is_its_cause(client: ChatHttp, status: int, cause: str, passing: bool) -> None:  # noqa: FBT001 - a table
    bodyless = status in {204, 304}
    error = await failed(client, http(status, b"" if bodyless else b'{"error": {"message": "because"}}'))
    assert (error.cause, error.status, error.passing) == (cause, status, passing)
    assert f"HTTP {status}: {'Reason' if bodyless else 'because'}" in str(error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"error": {"message": "no such model", "type": "x", "code": null}}', "no such model"),
        ('{"error": "no such model"}', "no such model"),
        ('{"message": "no such model"}', "no such model"),
        ('{"object": "error", "message": "too long", "code": 400}', "too long"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [{"loc": ["body", "top_k"], "msg": "bad"}]}', "top_k: bad"),
        ('{"error": {"message": ["a"]}}', "a"),
        ('{"error": null}', '{"error": null}'),
        ('["a"]', '["a"]'),
        ("plain text", "plain text"),
        ("<html>\r\n <h1>Bad\tGateway</h1>\n</html>", "<html> <h1>Bad Gateway</h1> </html>"),
        ('{"error": {"message": "two\\nlines\\u0000\\u001b[31m\\ud83d\\u2028end"}}', "two lines [31m end"),
        ("", "Reason"),
        (" \n ", "Reason"),
        ('{"error": {"message": ""}}', '{"error": {"message": ""}}'),
        (f"key {SECRET} is wrong", "key *** is wrong"),
        (json.dumps({"error": {"message": f"Not so with {SECRET}."}}), "Not so with ***."),
    ],
)
async def test_what_a_server_says_is_shown_on_one_line(client: ChatHttp, body: str, text: str) -> None:
    assert str(await failed(client, http(500, body))) == f"HTTP 500: {text}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_an_error_is_read_after_a_byte_order_mark_too(client: ChatHttp, encoding: str) -> None:
    inner = json.dumps("\ufeff" + json.dumps({"error": {"message": "no room"}}))
    body = f'{{"error": {{"message": {inner}}}}}'.encode(encoding)
    assert str(await failed(client, http(500, body))) == "HTTP 500: no room"


async def test_a_key_is_hidden_in_every_text_of_an_answer_in_whatever_form(client: ChatHttp) -> None:
    coded = base64.b64encode(f"Bearer {SECRET}".encode()).decode()
    escaped = "".join(f"%{ord(character):02x}" for character in SECRET)
    for key in (SECRET, coded, escaped):
        message = MESSAGE | {"content": f"a {key}", "reasoning_content": f"b {key}"}
        choice = {"message": message, "finish_reason": f"stop {key}"}
        brought = await answered(client, completion(choices=[choice], model=f"model {key}"))
        texts = [value for value in asdict(brought).values() if isinstance(value, str)]
        assert len(texts) == 4
        for text in texts:
            assert "***" in text
            assert SECRET[3:-3] not in text
            assert coded[12:-12] not in text
            assert escaped[9:-9] not in text
        error = await failed(client, http(500, f"no, {key}"))
        assert str(error).startswith("HTTP 500: no, ")
        assert coded[12:-12] not in str(error)
        assert escaped[9:-9] not in str(error)


async def test_a_password_of_a_header_is_hidden(client: ChatHttp) -> None:
    code = base64.b64encode(b"ada:secret-of-ada").decode()
    headers = {"Authorization": SecretStr(f"Basic {code}")}
    for said in (code, "ada:secret-of-ada", "secret-of-ada"):
        brought = await answered(client, completion(f"you are {said}"), headers=headers)
        assert brought.content.rstrip("=") == "you are ***"


async def test_a_long_error_is_cut(client: ChatHttp) -> None:
    for body in ("x" * 100_000, json.dumps({"error": {"message": "x" * 4000}}), "ä" * 100_000):
        assert len(str(await failed(client, http(500, body)))) == len("HTTP 500: ") + MESSAGE_LIMIT


async def test_a_key_is_hidden_where_the_text_is_cut_too(client: ChatHttp) -> None:
    error = await failed(client, http(500, "x" * (MESSAGE_LIMIT - 10) + SECRET))
    assert SECRET[:5] not in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("17", 17.0), ("0.25", 0.25), ("0", 0.0), ("soon", None), ("-3", None), ("\xff", None)],
)
async def test_retry_after_is_read(client: ChatHttp, value: str, seconds: float | None) -> None:
    for status in (429, 503):
        data = f"HTTP/1.1 {status} Reason\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
        assert (await failed(client, Reply(data.encode("latin-1")))).retry_after == seconds


async def test_retry_after_as_a_date_is_read(client: ChatHttp) -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    error = await failed(client, http(429, "", f"Retry-After: {date}"))
    assert error.retry_after == pytest.approx(3600, abs=60)


async def test_without_retry_after_there_is_none(client: ChatHttp) -> None:
    assert (await failed(client, http(429, ""))).retry_after is None


WHOLE = completion()
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", "close"),
        Reply(b"", "reset"),
        Reply(HEAD, "close"),
        Reply(HEAD + b"Content-Length: 10\r\n", "close"),
        Reply(WHOLE[:-1], "close"),
        Reply(WHOLE[:-1], "reset"),
        Reply(HEAD + b"Content-Length: 100000\r\n\r\n{", "close"),
        Reply(HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"cho', "close"),
        Reply(HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n{}\r\n", "close"),
        Reply(HEAD + b"Content-Length: minus one\r\n\r\n{}", "close"),
        Reply(HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n{}", "close"),
        Reply(HEAD + b"A header\nwithout a colon\r\n\r\n{}", "close"),
        Reply(HEAD + b"Long: " + b"x" * 100_000 + b"\r\n\r\n", "close"),
        Reply(b"HTTP/1.1 " + b"\xff\r\n\r\n", "close"),
        Reply(b"HTTP/1.1 two hundred\r\n\r\n", "close"),
        Reply(b"HTTP/9.9 200 OK\r\n\r\n", "close"),
        Reply(b"SSH-2.0-OpenSSH_9.2\r\n", "close"),
        Reply(b"\x16\x03\x01\x00\xa5\x01\x00\x00", "close"),
        Reply(b"key: " + SECRET.encode() + b"\r\n\r\n", "close"),
        Reply(b"HTTP/1.1 500 \xff\xfe\r\nContent-Length: 0\r\n\r\n", "close"),
    ],
)
async def test_a_broken_response_is_a_lost_connection(client: ChatHttp, reply: Reply) -> None:
    error = await failed(client, reply)
    assert (error.cause, error.status, error.passing) == ("connection", None, True)
    assert str(error).startswith("http://127.0.0.1:")


async def test_a_compressed_answer_is_read(client: ChatHttp) -> None:
    packed = gzip.compress(json.dumps({"choices": [{"message": MESSAGE}]}).encode())
    assert (await answered(client, http(200, packed, "Content-Encoding: gzip"))).content == "fine"


async def test_a_chunked_answer_is_read(client: ChatHttp) -> None:
    body = json.dumps({"choices": [{"message": MESSAGE}]}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    reply = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert (await answered(client, reply)).content == "fine"


@pytest.mark.parametrize("data", [b"", HEAD, WHOLE[:-1], http(500, "half")[:-1]])
async def test_a_server_that_stops_sending_is_a_timeout(client: ChatHttp, data: bytes) -> None:
    async with Scripted([Reply(data, "hang")]) as server:
        with pytest.raises(AttemptError, match=r"no answer from http://\S+/v1 in 0.05 s") as caught:
            await sent(client, server, timeout=0.05)
    assert (caught.value.cause, caught.value.status) == ("timeout", None)


async def test_nobody_listening_is_a_lost_connection() -> None:
    async with ChatHttp(max_connections=1) as client:
        with pytest.raises(AttemptError) as caught:
            await client.send(question(endpoint=f"http://127.0.0.1:{closed_port()}/v1"), Manner(KEY, 30.0))
    assert (caught.value.cause, caught.value.passing) == ("connection", True)
    assert str(caught.value).isprintable()


async def test_being_cancelled_is_no_failed_attempt(client: ChatHttp) -> None:
    async with Scripted([Reply(b"", "hang")]) as server:
        sending = asyncio.create_task(sent(client, server))
        await server.arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(client: ChatHttp, status: int) -> None:
    async with Scripted([]) as elsewhere:
        target = elsewhere.url.replace("127.0.0.1", "localhost")
        error = await failed(client, http(status, "", f"Location: {target}/chat/completions", reason="Moved"))
        assert elsewhere.received == []
    assert (error.cause, error.status, error.passing) == (f"http_{status}", status, False)
    assert str(error) == f"HTTP {status}: Moved; redirects are not followed: correct base_url"


async def test_a_failed_attempt_does_not_spoil_the_next(client: ChatHttp) -> None:
    script = (
        Reply(WHOLE[:-1], "close"),
        Reply(b"", "reset"),
        Reply(b"nonsense\r\n\r\n", "close"),
        http(500, "no"),
    )
    async with Scripted([*script, completion("at last")]) as server:
        for _ in script:
            with pytest.raises(AttemptError):
                await sent(client, server)
        assert (await sent(client, server)).content == "at last"

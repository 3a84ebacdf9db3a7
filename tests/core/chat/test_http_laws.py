"""One attempt over HTTP: no bytes and no JSON bring anything but an answer or an AttemptError."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.chat.http import ChatHttp
from tasks.core.exchange.attempt import AttemptError
from tasks.core.ledger.schema import pack, unpack
from tests.core.chat.attempts import answered, failed
from tests.core.chat.scripted import Reply, http

PIECES = (
    *(b"HTTP/1.1 ", b"200 OK", b"500 ", b"302 Found", b"\r\n", b"\r\n\r\n", b"\n", b":", b"{}", b"2"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"1\r\nx\r\n", b"\xff", b"\0"),
    *(b"Location: http://[::", b"Content-Encoding: br, gzip", b"Set-Cookie: a=b; Expires=never"),
)
responses = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join) | st.binary(max_size=60)


@settings(max_examples=20)
@given(st.lists(responses, min_size=5, max_size=20))
def test_whatever_bytes_come_only_an_attempt_error_comes_of_them(many: list[bytes]) -> None:
    async def check() -> None:
        async with ChatHttp(max_connections=4) as client:
            for data in many:
                assert isinstance(await failed(client, Reply(data, "close")), AttemptError)

    asyncio.run(check())


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
almost = st.fixed_dictionaries(
    {},
    optional={
        "choices": json_values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "message": json_values
                    | st.fixed_dictionaries({}, optional={"content": json_values, "reasoning": json_values}),
                    "finish_reason": json_values,
                },
            ),
            max_size=2,
        ),
        "usage": json_values | st.fixed_dictionaries({}, optional={"prompt_tokens": json_values}),
        "model": json_values,
    },
)


@settings(max_examples=20)
@given(st.lists(json_values | almost, min_size=5, max_size=20), st.booleans())
def test_any_json_is_an_answer_that_can_be_kept_or_malformed(many: list[Any], plain: bool) -> None:  # noqa: FBT001 - drawn
    async def check(client: ChatHttp, body: Any) -> None:
        # json.dumps writes what orjson does not: NaN, and halves of surrogate pairs as escapes or raw.
        data = json.dumps(body, ensure_ascii=plain).encode("utf-8", "surrogatepass")
        try:
            brought = await answered(client, http(200, data))
        except AttemptError as error:
            assert error.cause == "malformed_response"  # noqa: PT017 - either is allowed
        else:
            assert unpack(pack(brought)) == brought

    async def check_all() -> None:
        async with ChatHttp(max_connections=4) as client:
            for body in many:
                await check(client, body)

    asyncio.run(check_all())

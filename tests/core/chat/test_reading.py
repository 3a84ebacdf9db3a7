"""A server's JSON into an answer: every dialect is read, and no type is trusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.chat.reading import parse, read_document
from tasks.core.exchange.attempt import AttemptError, Verdict
from tasks.core.ledger.schema import pack, unpack

if TYPE_CHECKING:
    from tasks.core.exchange.request import Answer


def unchecked(_document: dict[str, Any]) -> None:
    """Errors in place of an answer are told apart elsewhere."""


def read(document: Any) -> Answer:
    return read_document(document, unchecked, 1.0)


def message(**fields: Any) -> Answer:
    return read(
        {"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}]}
    )


@pytest.mark.parametrize(
    ("fields", "content", "reasoning"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", ""),
        ({"content": [{"type": "output_text", "text": "a"}]}, "a", ""),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]}, "a", "hm"),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "a"}]},
            "a",
            "hm",
        ),
        ({"content": [None, 7, {"type": "image_url", "image_url": {"url": "x"}}, "a"]}, "a", ""),
        ({"content": [[[[[["too deep"]]]]]]}, "", ""),
        ({"content": "a", "reasoning": {"content": "hm"}}, "a", "hm"),
        ({"content": "a", "reasoning": {"summary": [{"text": "h"}, {"text": "m"}]}}, "a", "hm"),
        (
            {
                "content": "a",
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "h"},
                    {"type": "reasoning.text", "text": "m"},
                    {"type": "reasoning.encrypted", "data": "c2VjcmV0"},
                ],
            },
            "a",
            "hm",
        ),
        ({"content": "a", "reasoning": "hm", "reasoning_details": [{"text": "hm"}]}, "a", "hm"),
        ({"content": "a", "reasoning_content": 5, "reasoning": "hm"}, "a", "hm"),
        (
            {"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
            "",
            "",
        ),
        ({"content": "<think>hm</think>a"}, "<think>hm</think>a", ""),
    ],
)
def test_what_a_message_may_be(fields: dict[str, Any], content: str, reasoning: str) -> None:
    answer = message(**fields)
    assert (answer.content, answer.reasoning, answer.finish_reason) == (content, reasoning, "stop")


def test_a_refusal_stands_in_for_the_content() -> None:
    answer = message(content=None, refusal="I will not.")
    assert (answer.content, answer.finish_reason, answer.refused) == ("I will not.", "refusal", True)
    answer = message(content="I will.", refusal=None)
    assert (answer.content, answer.refused) == ("I will.", False)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3}, (5, 3, None, None)),
        ({"input_tokens": 5, "output_tokens": 3}, (5, 3, None, None)),
        ({"prompt_tokens": 5.0, "completion_tokens": 3.5}, (5, None, None, None)),
        ({"prompt_tokens": "5", "completion_tokens": -3}, (None, None, None, None)),
        ({"prompt_tokens": 1e300, "completion_tokens": float("inf")}, (None, None, None, None)),
        ({"prompt_tokens": float("nan"), "completion_tokens": 10**400}, (None, None, None, None)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            (5, 3, 4, 2),
        ),
        ({"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 1}, (None, None, 4, None)),
        ({"cached_tokens": 4, "reasoning_tokens": 2}, (None, None, 4, 2)),
        ({"prompt_tokens_details": None, "completion_tokens_details": []}, (None, None, None, None)),
        ({"prompt_tokens_details": {"cached_tokens": "4"}}, (None, None, None, None)),
    ],
)
def test_usage_in_every_dialect(usage: Any, counts: tuple[int | None, ...]) -> None:
    answer = read({"choices": [{"message": {"content": "a"}}], "usage": usage})
    found = (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens, answer.reasoning_tokens)
    assert found == counts


@pytest.mark.parametrize(
    ("finish_reason", "truncated", "refused"),
    [
        ("stop", False, False),
        ("length", True, False),
        ("max_tokens", True, False),
        ("MAX_TOKENS", True, False),
        ("content_filter", False, True),
        ("SAFETY", False, True),
        ("tool_calls", False, False),
        ("", False, False),
    ],
)
def test_why_an_answer_ended_is_kept_as_reported(
    finish_reason: str,
    truncated: bool,  # noqa: FBT001 - a table
    refused: bool,  # noqa: FBT001 - a table
) -> None:
    answer = read({"choices": [{"message": {"content": "a"}, "finish_reason": finish_reason}]})
    assert (answer.finish_reason, answer.truncated, answer.refused) == (finish_reason, truncated, refused)


def document(content: bytes) -> bytes:
    return b'{"choices": [{"message": {"content": "' + content + b'"}}]}'


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        (b"\xff!", "\N{REPLACEMENT CHARACTER}!"),
        (b"\xf0\x9f!", "\N{REPLACEMENT CHARACTER}!"),
        (b"\\ud83d!", "\N{REPLACEMENT CHARACTER}!"),
        (b"\\ude42\\ud83d", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"\\ud83d\\ude42", "🙂"),
        (b"\\u0000", "\0"),
        ("🙂".encode(), "🙂"),
    ],
)
def test_one_bad_character_does_not_cost_an_answer(raw: bytes, content: str) -> None:
    answer = read(parse(document(raw)))
    assert answer.content == content
    assert unpack(pack(answer)) == answer


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"  <HTML>", "HTML"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"9" * 100_000, "not JSON"),
        (b"[" + b"[]," * 700_000 + b"1]", "too large"),
        (b'["' + b"x" * (33 * 2**20) + '🙂"]'.encode(), "too large"),
        (b"[" + b"1," * 1_100_000 + b"1]", "too large"),
    ],
)
def test_what_is_not_worth_reading(body: bytes, message: str) -> None:
    with pytest.raises(AttemptError, match=message) as caught:
        parse(body)
    assert (caught.value.cause, caught.value.verdict) == ("malformed_response", Verdict.RETRY)


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("utf-16-le", ""),
        ("utf-16-be", "utf-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", "ISO-8859-1"),
        ("cp1252", '"windows-1252"'),
    ],
)
def test_a_mark_or_another_encoding_does_not_cost_an_answer(encoding: str, charset: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": "für"}}]}, ensure_ascii=False).encode(encoding)
    found = parse(body, f"application/json; charset={charset}" if charset else "application/json")
    assert read(found).content == "für"


@pytest.mark.parametrize("start", ["\ufeff\ufeff", " \ufeff\r\n", "\n\n\t"])
def test_marks_and_blanks_before_an_answer_are_nothing(start: str) -> None:
    assert parse(f'{start}{{"a": 1}}'.encode()) == {"a": 1}


@pytest.mark.parametrize("charset", ["idna", "unicode_escape", "zlib", "utf-7", "no-such", "", "\x00"])
def test_a_charset_that_is_none_of_text_is_nothing(charset: str) -> None:
    body = b'{"choices": [{"message": {"content": "f\xfcr"}}]}'
    assert read(parse(body, f"application/json; charset={charset}")).content == "f\ufffdr"


def test_a_comma_too_many_is_no_json() -> None:
    with pytest.raises(AttemptError, match="not JSON"):
        parse(b'\xef\xbb\xbf{"a": 1,}')


def test_a_message_of_many_megabytes_is_read() -> None:
    assert len(read(parse(document(b"x" * 20_000_000))).content) == 20_000_000


@given(st.binary(max_size=80))
def test_any_bytes_are_a_document_or_malformed(content: bytes) -> None:
    for body in (content, document(content), json.dumps(content.decode("latin-1")).encode()):
        try:
            answer = read(parse(body))
        except AttemptError as error:
            assert error.cause == "malformed_response"  # noqa: PT017 - either is allowed
        else:
            assert unpack(pack(answer)) == answer

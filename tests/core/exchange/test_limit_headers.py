"""What the headers of a response say about limits: a table of words, and that no text raises."""

from __future__ import annotations

import email.utils
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.exchange.limit_headers import NO_ADVICE, Advice, parse_reset, parse_retry_after, read_advice

NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of the HTTP standard."""


def advice(**headers: str) -> Advice:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return read_advice(raw, NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("   ", None),
        ("0", 0.0),
        ("20", 20.0),
        (" 20 ", 20.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("1.2.3", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("0x10", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("soon", None),
        ("20 s", None),
        ("٣", 3.0),
        ("²", None),
        ("Ⅷ", None),
        ("9" * 20, 1e20),
        ("9" * 400, None),
        ("9" * 100_000, None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("Sun, 06 Nov 1994 09:49:47 +0100", 10.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("Sun Nov  6 08:49:47 1994", 10.0),
        ("Sun, 06 Nov 1994 08:49:47 -0000", 10.0),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 252_618_275_362.0),
        ("Mon, 01 Jan 0100 00:00:00 +2359", 0.0),
    ],
)
def test_what_retry_after_says(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


PIECES = (
    *("Sun", ",", " ", "06", "31", "Nov", "Feb", "1994", "0", "99999999999999999999", ":", "08:49:37", "GMT"),
    *("+0100", "-9999", "+99999999999", ".", "-", "1e9", "24:60:61", "\t", "(", "UT", "EST", "\0"),
)
date_like = st.lists(st.sampled_from(PIECES)).map(" ".join)


@given(st.text() | date_like | date_like.map(lambda text: text.replace(" ", "")))
@example("9" * 5000 + " Nov 1994 08:49:37 GMT")
@example("Sun, 06 Nov 1994 08:49:" + "9" * 5000 + " GMT")
def test_no_text_raises(text: str) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(st.integers(0, 10**9))
def test_a_number_is_that_number(seconds: int) -> None:
    assert parse_retry_after(str(seconds), NOW) == seconds


@given(st.integers(-(10**8), 10**8))
def test_a_date_is_the_time_until_it(seconds: int) -> None:
    date = email.utils.formatdate(NOW + seconds, usegmt=True)
    assert parse_retry_after(date, NOW) == max(0, seconds)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("17ms", 0.017),
        ("59.86s", 59.86),
        ("2m59.56s", 179.56),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("7.66s", 7.66),
        ("120µs", 0.00012),
        ("0", 0.0),
        ("12", 12.0),
        ("0.5", 0.5),
        ("1994-11-06T08:49:47Z", 10.0),
        ("1994-11-06T08:49:47", 10.0),
        ("1994-11-06T09:49:47+01:00", 10.0),
        ("1994-11-06T08:49:27Z", 0.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("", None),
        ("s", None),
        ("1x", None),
        ("1s!", None),
        ("-1s", None),
        ("soon", None),
        ("9" * 500 + "s", None),
        ("9" * 350 + "d", None),
        ("1" * 100_000, None),
        ("1994-13-45", None),
    ],
)
def test_when_a_limit_is_reset(value: str, seconds: float | None) -> None:
    assert parse_reset(value, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_a_reset_as_a_time_since_the_epoch() -> None:
    now = 1_760_000_000.0
    assert parse_reset("1760000030", now) == 30.0
    assert parse_reset("1760000030500", now) == 30.5
    assert parse_reset("1759999999", now) == 0.0


def test_openais_and_groqs_headers() -> None:
    assert advice(
        x_ratelimit_limit_requests="60",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_requests="59",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_reset_tokens="6m0s",
    ) == Advice(None, 60, 59, 1.0, 150_000, 149_984, 360.0)


def test_anthropics_headers() -> None:
    assert advice(
        retry_after="7",
        anthropic_ratelimit_requests_limit="50",
        anthropic_ratelimit_requests_remaining="0",
        anthropic_ratelimit_requests_reset="1994-11-06T08:49:47Z",
        anthropic_ratelimit_tokens_limit="40000",
        anthropic_ratelimit_tokens_remaining="39000",
        anthropic_ratelimit_tokens_reset="1994-11-06T08:50:37Z",
    ) == Advice(7.0, 50, 0, 10.0, 40_000, 39_000, 60.0)


def test_headers_of_servers_with_one_window() -> None:
    assert advice(
        x_ratelimit_limit="10, 10;w=60",
        x_ratelimit_remaining="3",
        x_ratelimit_reset="0.25",
        x_tokenlimit_limit="1000",
        x_tokenlimit_remaining="1",
    ) == Advice(None, 10, 3, 0.25, 1000, 1, None)


def test_the_more_exact_header_wins_and_an_unreadable_one_does_not() -> None:
    assert advice(Retry_After="9", Retry_After_Ms="1500").retry_after == 1.5
    assert advice(retry_after_ms="soon", retry_after="9").retry_after == 9.0
    assert advice(x_ratelimit_limit_requests="many", x_ratelimit_limit="8").limit_requests == 8


def test_without_such_headers_there_is_no_advice() -> None:
    assert advice() is NO_ADVICE
    assert advice(content_type="application/json", date="Sun, 06 Nov 1994 08:49:37 GMT") is NO_ADVICE


NAMES = (
    *(
        "retry-after",
        "Retry-After-Ms",
        "x-ratelimit-reset",
        "x-ratelimit-limit-requests",
        "x-ratelimit-reset-tokens",
    ),
    *("anthropic-ratelimit-tokens-reset", "x-tokenlimit-limit", "x-ratelimit-remaining-tokens", "limit", ""),
)


@given(st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), st.binary() | st.text().map(str.encode))))
def test_no_header_raises(headers: list[tuple[bytes, bytes]]) -> None:
    found = read_advice(headers, NOW)
    for value in (found.retry_after, found.reset_requests, found.reset_tokens, found.limit_requests):
        assert value is None or (value >= 0 and math.isfinite(value))

"""Whether an attempt is made again and when: the decision as a table, and what Retry-After may say."""

from __future__ import annotations

import email.utils
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.llm.retry import AttemptError, RetryPolicy, parse_retry_after, retry_delay

PATIENT = RetryPolicy(max_retries=3, max_backoff=120.0)
NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of the HTTP standard."""


def failed(status: int | None, retry_after: float | None = None) -> AttemptError:
    return AttemptError("cause", "message", status=status, retry_after=retry_after)


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (None, True),
        (301, False),
        (302, False),
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (408, True),
        (409, True),
        (413, False),
        (422, False),
        (429, True),
        (500, True),
        (502, True),
        (503, True),
        (504, True),
        (529, True),
        (599, True),
    ],
)
def test_which_failures_pass_by_themselves(status: int | None, again: bool) -> None:  # noqa: FBT001 - a table
    assert failed(status).passing is again
    assert (retry_delay(failed(status), 1, PATIENT, 0.5) is not None) is again


@pytest.mark.parametrize(
    ("max_retries", "attempt", "again"),
    [
        (0, 1, False),
        (1, 1, True),
        (1, 2, False),
        (3, 3, True),
        (3, 4, False),
        (-1, 1, True),
        (-1, 1_000_000, True),
    ],
)
def test_how_often(max_retries: int, attempt: int, again: bool) -> None:  # noqa: FBT001 - a table
    delay = retry_delay(failed(500), attempt, RetryPolicy(max_retries, 120.0), 0.5)
    assert (delay is not None) is again


@pytest.mark.parametrize(
    ("attempt", "jitter", "max_backoff", "retry_after", "delay"),
    [
        (1, 0.0, 120.0, None, 0.5),
        (1, 1.0, 120.0, None, 1.0),
        (2, 1.0, 120.0, None, 2.0),
        (3, 1.0, 120.0, None, 4.0),
        (8, 1.0, 120.0, None, 120.0),
        (8, 0.0, 120.0, None, 60.0),
        (1_000_000, 1.0, 120.0, None, 120.0),
        (1, 1.0, 0.25, None, 0.25),
        (1, 1.0, 0.0, None, 0.0),
        (9, 0.3, 0.0, None, 0.0),
        (1, 1.0, 0.0, 7.0, 7.0),
        (1, 1.0, 120.0, 600.0, 600.0),
        (1, 1.0, 120.0, 0.0, 1.0),
        (3, 1.0, 120.0, 1.5, 4.0),
    ],
)
def test_how_long(
    attempt: int, jitter: float, max_backoff: float, retry_after: float | None, delay: float
) -> None:
    policy = RetryPolicy(-1, max_backoff)
    assert retry_delay(failed(503, retry_after), attempt, policy, jitter) == delay


@given(
    st.integers(1, 10**6),
    st.floats(0, 1),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 1e9),
)
def test_a_pause_is_bounded_by_the_policy_or_by_the_server(
    attempt: int, jitter: float, max_backoff: float, retry_after: float | None
) -> None:
    delay = retry_delay(failed(429, retry_after), attempt, RetryPolicy(-1, max_backoff), jitter)
    assert delay is not None
    assert (retry_after or 0.0) <= delay <= max(max_backoff, retry_after or 0.0)


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_pauses_are_spread_but_never_shrink_below_half(attempt: int, one: float, other: float) -> None:
    policy = RetryPolicy(-1, 120.0)
    first, later = (retry_delay(failed(500), attempt + n, policy, j) for n, j in ((0, one), (1, other)))
    assert first is not None
    assert later is not None
    assert later >= first / 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
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
def test_what_retry_after_says(value: str | None, seconds: float | None) -> None:
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

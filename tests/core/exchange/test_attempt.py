"""Whether an attempt is made again and when: the decision as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.exchange.attempt import LATER, AttemptError, RetryPolicy, Verdict, retry_delay
from tasks.core.exchange.limit_headers import Advice

PATIENT = RetryPolicy(max_retries=3, max_backoff=120.0)


def failed(retry_after: float | None = None, verdict: Verdict = Verdict.RETRY) -> AttemptError:
    return AttemptError("cause", "message", verdict=verdict, advice=Advice(retry_after=retry_after))


@pytest.mark.parametrize("verdict", Verdict)
def test_which_failures_pass_by_themselves(verdict: Verdict) -> None:
    passing = verdict in {Verdict.RETRY, Verdict.THROTTLED}
    assert failed(verdict=verdict).passing is passing
    assert (retry_delay(failed(verdict=verdict), 1, PATIENT, 0.5) is not None) is passing


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
    delay = retry_delay(failed(), attempt, RetryPolicy(max_retries, 120.0), 0.5)
    assert (delay is not None) is again


@pytest.mark.parametrize(
    ("attempt", "jitter", "max_backoff", "retry_after", "delay"),
    [
        (1, 0.0, 120.0, None, 0.125),
        (1, 1.0, 120.0, None, 0.25),
        (2, 1.0, 120.0, None, 0.5),
        (3, 1.0, 120.0, None, 1.0),
        (10, 1.0, 120.0, None, 120.0),
        (10, 0.0, 120.0, None, 60.0),
        (1_000_000, 1.0, 120.0, None, 120.0),
        (1, 1.0, 0.125, None, 0.125),
        (1, 1.0, 0.0, None, 0.0),
        (9, 0.3, 0.0, None, 0.0),
        (1, 1.0, 0.0, 7.0, 7.05),
        (1, 1.0, 120.0, 600.0, 600.05),
        (1, 1.0, 120.0, 0.0, 0.25),
        (5, 1.0, 120.0, 1.5, 4.0),
    ],
)
def test_how_long(
    attempt: int, jitter: float, max_backoff: float, retry_after: float | None, delay: float
) -> None:
    policy = RetryPolicy(-1, max_backoff)
    assert retry_delay(failed(retry_after), attempt, policy, jitter) == delay


@given(
    st.integers(1, 10**6),
    st.floats(0, 1),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 1e9),
)
def test_a_pause_is_bounded_by_the_policy_or_by_the_server(
    attempt: int, jitter: float, max_backoff: float, retry_after: float | None
) -> None:
    delay = retry_delay(failed(retry_after), attempt, RetryPolicy(-1, max_backoff), jitter)
    assert delay is not None
    assert (retry_after or 0.0) <= delay <= max(max_backoff, (retry_after or 0.0) + LATER)


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_pauses_are_spread_but_never_shrink_below_half(attempt: int, one: float, other: float) -> None:
    policy = RetryPolicy(-1, 120.0)
    first, later = (retry_delay(failed(), attempt + n, policy, j) for n, j in ((0, one), (1, other)))
    assert first is not None
    assert later is not None
    assert later >= first / 2

"""Requests and tokens a minute as pure functions of time: bursts, windows, corrections, lower limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.traffic.quota import WINDOW, Allowance, Quota

NEARLY = 1e-6
"""Seconds, or units, by which floating point may be off."""


def starts(quota: Quota, arrivals: list[float], amount: float = 1.0) -> list[float]:
    """When what arrives at these times goes, each after the one before it."""
    begun: list[float] = []
    for arrival in arrivals:
        now = max(arrival, begun[-1] if begun else 0.0)
        # Asked again after each wait, as a lane does.
        while (wait := quota.wait(now, amount)) > NEARLY:
            now += wait
        quota.take(now, amount)
        begun.append(now)
    return begun


def waited(allowance: Allowance, now: float, tokens: float) -> tuple[float, str]:
    seconds, why = allowance.wait(now, tokens)
    return round(seconds, 6), why


@pytest.mark.parametrize(
    ("per_minute", "burst_percent", "at_once"),
    [(60, 15, 9), (60, 50, 30), (60, 100, 60), (60, 1, 1), (1, 1, 1), (1, 50, 1), (10, 15, 1), (600, 15, 90)],
)
def test_so_many_go_at_once(per_minute: int, burst_percent: int, at_once: int) -> None:
    begun = starts(Quota(per_minute, burst_percent), [1000.0] * (at_once + 1))
    assert begun[:at_once] == [1000.0] * at_once
    assert begun[at_once] > 1000.0 + NEARLY


def test_after_the_burst_comes_one_each_interval() -> None:
    assert starts(Quota(60, 15), [0.0] * 14) == pytest.approx([0.0] * 9 + [1.0, 2.0, 3.0, 4.0, 5.0])


def test_an_hour_of_idling_gives_no_more_than_the_burst() -> None:
    quota = Quota(60, 15)
    starts(quota, [0.0] * 20)
    assert starts(quota, [3600.0] * 11) == pytest.approx([3600.0] * 9 + [3601.0, 3602.0])


def test_a_burst_is_made_up_for_within_the_minute() -> None:
    begun = starts(Quota(60, 50), [0.0] * 100)
    # Thirty at once, and thirty more by the thirtieth second; the next when the first are a minute old.
    assert begun[59] == pytest.approx(30.0)
    assert begun[60:90] == pytest.approx([WINDOW] * 30)


@pytest.mark.parametrize("burst_percent", [1, 15, 100])
def test_zero_is_no_limit(burst_percent: int) -> None:
    quota = Quota(0, burst_percent)
    quota.correct(0.0, 1e9)
    assert starts(quota, [5.0] * 1000, amount=1e9) == [5.0] * 1000


arrivals = st.lists(st.floats(0, 30) | st.just(0.0), min_size=1, max_size=150).map(
    lambda gaps: [sum(gaps[:place]) for place in range(len(gaps))]
)


@given(st.integers(1, 300), st.integers(1, 100), arrivals)
def test_no_minute_holds_more_than_is_allowed_nor_any_span_more_than_rate_and_burst(
    per_minute: int, burst_percent: int, times: list[float]
) -> None:
    begun = starts(Quota(per_minute, burst_percent), times)
    burst = max(1.0, per_minute * burst_percent / 100)
    for first, since in enumerate(begun):
        for last in range(first, len(begun)):
            seconds, number = begun[last] - since, last - first + 1
            assert number <= seconds * per_minute / 60 + burst + NEARLY
            assert number <= per_minute or seconds > 60


@given(
    st.integers(10, 1000),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 300)), min_size=1, max_size=60),
)
def test_no_minute_holds_more_tokens_than_are_allowed_but_for_one_request_that_is_larger(
    per_minute: int, burst_percent: int, asked: list[tuple[float, float]]
) -> None:
    quota, now, begun = Quota(per_minute, burst_percent), 0.0, []
    for gap, tokens in asked:
        now += gap
        while (wait := quota.wait(now, tokens)) > NEARLY:
            now += wait
        quota.take(now, tokens)
        begun.append((now, tokens))
    for place, (since, larger) in enumerate(begun):
        spent = sum(tokens for when, tokens in begun[place:] if when <= since + 60)
        assert spent <= max(per_minute, larger) + NEARLY


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    quota = Quota(100)
    assert quota.wait(0.0, 250.0) == 0.0
    quota.take(0.0, 250.0)
    # Two and a half minutes' worth is gone: the bucket is empty until then.
    assert quota.wait(WINDOW, 100.0) == pytest.approx(150.0 - WINDOW)
    assert quota.wait(150.0, 100.0) == 0.0


def test_what_was_estimated_too_low_is_made_up_for_and_what_was_too_high_given_back() -> None:
    quota = Quota(600, 10)
    quota.take(0.0, 60.0)
    assert quota.wait(0.0, 10.0) == pytest.approx(1.0)
    quota.correct(0.0, 30.0)
    assert quota.wait(0.0, 10.0) == pytest.approx(4.0)
    quota.correct(0.0, -90.0)
    assert quota.wait(0.0, 60.0) == 0.0
    assert quota.wait(0.0, 61.0) == 0.0  # more than the bucket holds goes when it is full


def test_corrections_count_in_the_minute() -> None:
    quota = Quota(100)
    quota.take(0.0, 50.0)
    quota.correct(10.0, 50.0)
    assert quota.wait(50.0, 1.0) == pytest.approx(WINDOW - 50.0)
    quota.correct(50.0, -100.0)
    assert quota.wait(50.0, 1.0) == 0.0


def test_a_lower_limit_of_the_servers_is_kept_and_a_higher_one_is_not() -> None:
    quota = Quota(600, 10)
    for named in (1200, 600, 0):
        quota.lower(named)
        assert quota.wait(0.0, 60.0) == 0.0
    quota.lower(60)
    begun = starts(quota, [0.0] * 8)
    assert begun == pytest.approx([0.0] * 6 + [1.0, 2.0])


def test_a_limit_that_only_the_server_names_is_kept() -> None:
    quota = Quota(0)
    quota.lower(60)
    begun = starts(quota, [0.0] * 8)
    assert begun == pytest.approx([0.0] * 6 + [1.0, 2.0])


def test_what_went_before_a_lower_limit_counts() -> None:
    quota = Quota(600)
    starts(quota, [0.0] * 100)
    quota.lower(60)
    assert quota.wait(0.0) == pytest.approx(WINDOW)


def test_an_even_quota_has_no_bursts() -> None:
    quota = Quota(60)
    quota.be_even()
    assert starts(quota, [0.0] * 4) == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_an_allowance_waits_for_the_longest_and_says_why() -> None:
    allowance = Allowance(Quota(60, 1), Quota(6000, 1))
    assert allowance.wait(0.0, 60.0) == (0.0, "")
    allowance.take(0.0, 60.0)
    assert waited(allowance, 0.0, 30.0) == (1.0, "limit")
    allowance.tokens.correct(0.0, 240.0)
    assert waited(allowance, 0.0, 60.0) == (3.0, "limit")
    allowance.pace.rest(0.0, 5.0)
    assert waited(allowance, 0.0, 60.0) == (5.0, "backoff")
    assert allowance.wait(5.0, 60.0) == (0.0, "")


def test_an_allowance_of_nothing_allows_everything() -> None:
    allowance = Allowance()
    for _ in range(1000):
        assert allowance.wait(0.0, 1e6) == (0.0, "")
        allowance.take(0.0, 1e6)


def test_a_refusal_ends_bursts() -> None:
    allowance = Allowance(Quota(600))
    allowance.take(0.0, 0.0)
    allowance.refused(0.1, None)
    allowance.take(1.0, 0.0)
    assert waited(allowance, 1.0, 0.0) == (0.1, "limit")


@pytest.mark.parametrize("sharers", [2, 3, 7])
def test_processes_that_share_a_limit_keep_to_it_together(sharers: int) -> None:
    limit = 60
    quotas = [Quota(limit) for _ in range(sharers)]
    sent = []
    for quota in quotas:
        quota.share(sharers)
        now = 0.0
        while now < 180.0:
            if not (wait := quota.wait(now)):
                quota.take(now)
                sent.append(now)
            now += wait
    sent.sort()
    for begin in sent:
        assert sum(begin <= when < begin + 60.0 for when in sent) <= limit
    assert len(sent) >= 2 * limit


def test_a_share_grows_when_others_have_ended_and_holds_for_what_the_server_names() -> None:
    quota = Quota(0)
    quota.share(4)
    assert quota.wait(0.0) == 0.0
    quota.lower(120)
    quota.take(0.0)
    for _ in range(2):  # a burst of a tenth of a minute's thirty
        quota.take(0.0)
    assert quota.wait(0.0) == pytest.approx(2.0)
    quota.share(1)
    assert quota.wait(0.0) == pytest.approx(0.5)

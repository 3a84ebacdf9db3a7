"""Usage, prices and money: exact sums, and nothing unknown taken for nothing."""

from __future__ import annotations

import json
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config.settings import Price
from tasks.core.cost import Bill, Cost, Observed, Prices, Sums, Usage, dollars, tokens_for

PRICES = Prices(
    {
        "strong": Price(input=2.5, output=10.0, cached_input=0.25),
        "weak": Price(input=0.15, output=0.6),
        "free": Price(input=0.0, output=0.0),
    }
)

counts = st.integers(0, 10**9)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts)
calls = st.lists(st.tuples(st.sampled_from(["strong", "weak", "free", "other"]), usages), max_size=20)


def test_a_million_tokens_cost_what_the_price_says() -> None:
    usage = Usage(calls=3, prompt_tokens=10**6, completion_tokens=10**6)
    assert PRICES.cost("strong", usage) == Cost(Decimal("12.5"))
    assert PRICES.cost("weak", usage) == Cost(Decimal("0.75"))


def test_cached_tokens_are_a_part_of_the_input_and_have_their_own_price() -> None:
    usage = Usage(calls=1, prompt_tokens=10**6, cached_tokens=400_000)
    assert PRICES.cost("strong", usage).usd == Decimal("0.6") * Decimal("2.5") + Decimal("0.4") * Decimal(
        "0.25"
    )
    assert PRICES.cost("weak", usage).usd == Decimal("0.15")
    # More than the whole input is a mistake of the server's.
    assert PRICES.cost("strong", Usage(1, 10, cached_tokens=99)) == PRICES.cost(
        "strong", Usage(1, 10, cached_tokens=10)
    )


def test_what_is_not_known_is_counted_and_is_not_nothing() -> None:
    assert PRICES.cost("other", Usage(7, 1000, 1000)) == Cost(unknown=7)
    assert PRICES.cost("weak", Usage(7, 10**6, 0, unreported=2)) == Cost(Decimal("0.15"), unknown=2)
    assert not Cost(unknown=7).is_known
    assert Cost(Decimal(1), 7).is_known
    assert Cost().is_known
    assert PRICES.cost("free", Usage(7, 1000, 1000)) == Cost()


def test_a_budget_counts_what_is_only_estimated_at_the_dearer_price() -> None:
    usage = Usage(2, 10**6, 0, unreported=1, estimated_tokens=10**6)
    assert PRICES.assumed("strong", usage) == Decimal("12.5")
    assert PRICES.assumed("other", usage) == 0


@given(calls)
def test_the_cost_of_a_bill_is_the_sum_of_the_costs_of_its_calls_to_the_last_digit(
    bought: list[tuple[str, Usage]],
) -> None:
    bill = Bill()
    for model, usage in bought:
        # Of one call, more cached tokens than tokens cannot be.
        one = Usage(*(getattr(usage, name) for name in ("calls", "prompt_tokens", "completion_tokens")))
        bill.add(model, "chosen", one)
        bill.add(model, "judge", usage)
    every = [item for _, _, item in bill]
    assert sum(every, Usage()) == bill.usage()
    alone = [PRICES.cost(model, usage) for model, _, usage in bill]
    assert bill.cost(PRICES) == sum(alone, Cost())
    assert bill.assumed(PRICES) >= bill.cost(PRICES).usd


@pytest.mark.parametrize(
    ("usage", "words", "cells"),
    [
        (Usage(), "0 tokens in, 0 out", ("0", "0")),
        (Usage(2, 1200, 300, 100), "1,200 tokens in, 100 cached, 300 out", ("1,200", "300")),
        (
            Usage(2, unreported=2, estimated_tokens=1500),
            "about 1,500 tokens in and out, estimated: the server reports none",
            ("unknown", "unknown"),
        ),
        # Kept before anything was estimated.
        (Usage(2, unreported=2), "tokens unknown: the server reports none", ("unknown", "unknown")),
        (
            Usage(3, 1200, 300, unreported=1, estimated_tokens=50),
            ("≥ 1,200 tokens in, ≥ 300 out, about 50 more by estimate, for 1 call without reported usage"),
            ("≥ 1,200", "≥ 300"),
        ),
        (
            Usage(3, 1200, 0, unreported=3),
            "≥ 1,200 tokens in, unknown out, 3 calls without reported usage",
            ("≥ 1,200", "unknown"),
        ),
    ],
)
def test_tokens_that_no_server_reported_are_never_shown_as_none(
    usage: Usage, words: str, cells: tuple[str, str]
) -> None:
    assert usage.in_words(cached=True) == words
    assert (usage.tokens_in, usage.tokens_out) == cells


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (Cost(), "$0"),
        (Cost(Decimal("0.0123")), "$0.0123"),
        (Cost(Decimal("0.000099")), "<$0.0001"),
        (Cost(Decimal("0.9")), "$0.9000"),
        (Cost(Decimal(1)), "$1.00"),
        (Cost(Decimal("1234.5")), "$1,234.50"),
        (Cost(Decimal("1.2"), 12), "≥ $1.20 (12 calls of unknown price)"),
        (Cost(Decimal("1.2"), 1), "≥ $1.20 (1 call of unknown price)"),
        (Cost(Decimal(0), 1200), "unknown (1,200 calls of unknown price)"),
    ],
)
def test_money_is_shown_in_one_way(cost: Cost, words: str) -> None:
    assert str(cost) == words
    assert cost.in_words == (words if cost.is_known else "")


@given(st.decimals(0, 10**9, places=9))
def test_money_is_never_shown_as_nothing_unless_it_is(usd: Decimal) -> None:
    assert (dollars(usd) == "$0") == (usd == 0)
    assert "E" not in dollars(usd)


def test_a_bill_as_data_holds_all_of_it_and_each_item() -> None:
    bill = Bill()
    bill.add("weak", "rejected", Usage(2, 10**6, 10**6))
    bill.add("other", "judge", Usage(1, 5, 5))
    bill.add("weak", "rejected", Usage(1, 10**6, 0))
    document = json.loads(orjson.dumps(bill.document(PRICES)))
    assert (document["calls"], document["usd"], document["calls_of_unknown_price"]) == (4, 0.9, 1)
    assert [(item["model"], item["purpose"], item["calls"], item["usd"]) for item in document["items"]] == [
        ("other", "judge", 1, None),
        ("weak", "rejected", 3, 0.9),
    ]
    assert Bill().document(PRICES)["usd"] == 0


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=50))
def test_mean_and_variance_are_those_of_the_numbers(numbers: list[int]) -> None:
    sample = Sums()
    for number in numbers:
        sample.add(number)
    mean = sum(numbers) / len(numbers)
    assert sample.mean == pytest.approx(mean)
    variance = sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)
    assert sample.variance == pytest.approx(variance, abs=1e-3 * max(1.0, mean))


def test_of_one_number_the_spread_is_assumed_and_of_none_there_is_nothing() -> None:
    assert (Sums().mean, Sums().variance) == (0, 0)
    assert Sums(1, 10.0, 100.0).variance == 25


def test_calls_without_usage_are_observed_and_their_tokens_are_not() -> None:
    seen = Observed()
    seen.add(Usage(1, 10, 20, cached_tokens=5), further=False)
    seen.add(Usage(1, 10, 0, unreported=1, estimated_tokens=9), further=True)
    assert (seen.calls, seen.further, seen.prompt.count, seen.completion.mean, seen.cached) == (
        2,
        1,
        1,
        20,
        5,
    )


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_tokens_are_estimated_by_characters(characters: int, tokens: int) -> None:
    assert tokens_for(characters) == tokens

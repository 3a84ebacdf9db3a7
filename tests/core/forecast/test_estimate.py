"""What a run will take: exact calls, tokens as they were measured or as templates and limits bound them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.cost import Observed, Usage
from tasks.core.forecast.estimate import Range, document_of, estimate
from tasks.core.forecast.survey import Survey, survey
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.sessions import observed_calls
from tasks.core.models import Purpose
from tests.core.forecast.test_survey import generate, writing
from tests.core.running import ChatServer, configured, kind

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.forecast.estimate import Estimate, Outlook

S, P, C, R, J, *_ = Purpose
PRICING = {"strong": {"input": 1.0, "output": 2.0}, "weak": {"input": 0.5, "output": 0.5}}


def seen(*usages: Usage, further: int = 0) -> Observed:
    observed = Observed()
    for place, usage in enumerate(usages):
        observed.add(usage, further=place < further)
    return observed


def of(found: Estimate, purpose: Purpose) -> Outlook:
    (outlook,) = [item for item in found.outlooks if item.purpose is purpose]
    return outlook


def priced(**settings: Any) -> Config:
    return configured(pricing=PRICING, **settings)


def test_tokens_follow_from_what_was_measured() -> None:
    found = Survey()
    found.unpaid[kind(C)] = 100
    found.observed[kind(C)] = seen(*[Usage(1, 10, 200, cached_tokens=5)] * 50)
    outlook = of(estimate(priced(), found, {}), C)
    assert (outlook.to_pay, outlook.measured) == (100, 50)
    assert outlook.prompt_tokens.likely == 1000
    assert outlook.completion_tokens.likely == 20_000
    assert outlook.prompt_tokens.low == 1000  # They never varied.
    assert 1000 <= outlook.prompt_tokens.high <= 1250  # Some may have to be asked again.
    assert outlook.likely is not None
    # 500 cached tokens cost as much as others where there is no price of their own.
    assert float(outlook.likely.usd) == pytest.approx((1000 + 2 * 20_000) / 10**6)


def test_answers_that_had_to_be_asked_again_raise_the_calls_by_their_rate() -> None:
    found = Survey()
    found.unpaid[kind(P)] = 90
    found.observed[kind(P)] = seen(*[Usage(1, 10, 10)] * 100, further=10)
    calls = of(estimate(priced(), found, {}), P).calls
    assert (calls.low, calls.likely) == (90, 100)
    assert 100 < calls.high < 120


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    st.integers(0, 10**5),
    st.integers(0, 29),
)
def test_what_is_likely_lies_between_the_least_and_the_most(
    answers: list[int], to_pay: int, further: int
) -> None:
    found = Survey()
    found.unpaid[kind(C)] = to_pay
    found.observed[kind(C)] = seen(
        *(Usage(1, 1, tokens) for tokens in answers), further=min(further, len(answers) - 1)
    )
    outlook = of(estimate(priced(models__main=MAIN), found, {}), C)
    for numbers in (outlook.calls, outlook.prompt_tokens, outlook.completion_tokens):
        assert numbers.likely is not None
        assert 0 <= numbers.low <= numbers.likely <= numbers.high
    assert outlook.likely is not None
    assert outlook.low.usd <= outlook.likely.usd <= outlook.high.usd


MAIN = {"base_url": "http://127.0.0.1:9/v1", "model_name": "strong", "max_output_tokens": 5000}


def test_of_an_empty_ledger_templates_and_limits_give_the_range() -> None:
    found = Survey()
    found.unpaid.update({kind(S): 1, kind(P): 2, kind(C): 4, kind(R): 4, kind(J): 8})
    config = priced(generation__dataset_mode="mo-dpo", models__main=MAIN)
    whole = estimate(config, found, {})
    chosen, judge = of(whole, C), of(whole, J)
    assert (chosen.prompt_tokens.likely, chosen.likely, chosen.measured) == (None, None, 0)
    assert (chosen.completion_tokens.low, chosen.completion_tokens.high) == (0, 4 * 5000)
    # "chosen " and a prompt of 20 to 400 characters, four to a token.
    assert (chosen.prompt_tokens.low, chosen.prompt_tokens.high) == (4 * 7, 4 * 102)
    # The longest answer may have to be judged.
    assert judge.prompt_tokens.high >= 8 * 5000
    assert of(whole, S).prompt_tokens.low == of(whole, S).prompt_tokens.high > 0
    assert whole.likely is None
    assert whole.high.unknown == 8
    assert whole.total(lambda item: item.calls) == Range(19, None, 19)


def test_what_is_unknown_of_one_phase_is_unknown_of_the_whole_and_nothing_to_pay_is_nothing() -> None:
    found = Survey()
    found.paid.update({kind(S): 1, kind(P): 2})
    found.unpaid[kind(C)] = 4
    found.observed[kind(C)] = seen(Usage(1, 10, 10))
    whole = estimate(priced(), found, {})
    assert (whole.reused, whole.to_pay) == (3, 4)
    assert of(whole, P).calls == of(whole, P).prompt_tokens == Range(0, 0, 0)
    assert whole.likely is not None
    found.unpaid[kind(R)] = 1
    assert estimate(priced(), found, {}).likely is None


def test_other_answers_of_the_model_stand_in_for_the_configurations_own() -> None:
    found = Survey()
    found.unpaid.update({kind(C): 10, kind(R): 10})
    found.observed[kind(C)] = seen(Usage(1, 10, 10))
    # Its own calls are there and reported nothing.
    found.observed[kind(R)] = seen(Usage(1, unreported=1, estimated_tokens=99))
    elsewhere: dict[tuple[str, str], Observed] = {
        ("strong", C): seen(Usage(1, 99, 99)),
        ("weak", R): seen(Usage(1, 7, 7)),
        ("weak", C): seen(),
    }
    whole = estimate(priced(), found, elsewhere)
    assert of(whole, C).prompt_tokens.likely == 100
    assert of(whole, R).prompt_tokens.likely == 70


async def test_half_a_run_tells_what_the_other_half_takes(tmp_path: Path) -> None:
    counts: dict[str, Any] = {"generation__num_prompts_per_subtopic": 4}
    async with ChatServer(writing) as server:
        await generate(tmp_path, server.base_url, pairs=5, **counts)
        config = configured(server.base_url, output__folder=str(tmp_path), pricing=PRICING, **counts)
        async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
            whole = estimate(config, await survey(config, ledger), await observed_calls(ledger))
    # Each call of the server reports 7 tokens in and 3 out.
    document = json.loads(orjson.dumps(document_of(whole)))
    assert document["total"]["to_pay"] == document["total"]["calls"]["likely"] == 6
    assert document["total"]["prompt_tokens"]["likely"] == 42
    assert document["total"]["completion_tokens"]["likely"] == 18
    assert document["total"]["usd"]["likely"] == pytest.approx((3 * (7 + 6) + 3 * (3.5 + 1.5)) / 10**6)
    assert document["total"]["calls_of_unknown_price"] == 0
    assert [phase["phase"] for phase in document["phases"]] == ["subtopics", "prompts", "pairs", "pairs"]
    assert [phase["reused"] for phase in document["phases"]] == [1, 2, 5, 5]


def test_a_price_that_is_not_known_is_none_and_not_nothing() -> None:
    found = Survey()
    found.unpaid[kind(R)] = 3
    found.observed[kind(R)] = seen(Usage(1, 10, 10))
    document = document_of(estimate(configured(), found, {}))
    assert document["total"]["usd"] == {"low": None, "likely": None, "high": None}
    assert document["total"]["calls_of_unknown_price"] >= 3

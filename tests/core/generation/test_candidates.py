"""Which two of several answers become a pair: every rule against a plain one, whatever the order."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config.load import load_config
from tasks.core.errors import ConfigError
from tasks.core.generation.candidates import (
    LENGTH_RATIO,
    NO_MARGIN,
    OFF_POLICY,
    SAME_ANSWER,
    SAMPLES_A_CANDIDATE,
    can_choose,
    choose,
    misfit,
    spots_of,
)
from tasks.core.models import Candidate, Job, Score, Scores, Text
from tasks.core.questions import is_judged
from tasks.core.session.adoption import SAMPLES_A_PAIR, unfiltered
from tests.core.running import NOBODY, configured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.settings import Config
    from tasks.core.models import Pair

RULES = ("by_model", "best_worst", "best_random", "best_mean_minus_2_sd")
JOB = Job(3, "The sea", "tides", "Why are there tides?")


def config_of(**settings: Any) -> Config:
    return configured(**{f"candidates__{name}": value for name, value in settings.items()})


def loaded(*, candidates: dict[str, Any], judge: dict[str, Any] | None = None) -> Config:
    """A configuration as a file would have it, with all its rules."""
    model = {"base_url": NOBODY, "model_name": "one"}
    models = {
        "main": model,
        "rejected": model,
        "judge": model | {"enabled": True} if judge is None else judge,
    }
    generation = {"main_topic": "x", "num_subtopics": 1, "num_prompts_per_subtopic": 1, "dataset_mode": "dpo"}
    table = {"generation": generation, "models": {name: of for name, of in models.items() if of}}
    return load_config(None, table=table | {"candidates": candidates}, environ={}).config


def candidate(model: str, number: int, score: float, length: int = 40) -> Candidate:
    content = f"{model} {number} {score} ".ljust(length, "x")
    return Candidate(model, number, Text(content), Scores({"style": Score(score, "")}))


def drawn(rng: random.Random, count: int) -> list[Candidate]:
    return [
        candidate(model, number, rng.choice((1.0, 2.0, 2.5, 3.0, 4.0, 4.5, 5.0)), rng.randint(30, 90))
        for model in ("main", "rejected")
        for number in range(count)
    ]


def texts(pair: Pair) -> tuple[str, str]:
    assert pair.rejected is not None
    return pair.chosen.content, pair.rejected.content


def totals(pair: Pair) -> tuple[float, float]:
    assert pair.chosen_scores is not None
    assert pair.rejected_scores is not None
    return pair.chosen_scores.total, pair.rejected_scores.total


def plain_rule(rule: str, items: Sequence[Candidate]) -> tuple[float, set[float]]:
    """The chosen score, and the scores that the rejected side may have."""
    scores = [item.total for item in items]
    by_model = {
        model: [item.total for item in items if item.model == model] for model in ("main", "rejected")
    }
    if rule == "by_model":
        return max(by_model["main"]), {min(by_model["rejected"])}
    rest = sorted(scores)[:-1]
    if rule == "best_worst":
        return max(scores), {rest[0]}
    if rule == "best_random":
        return max(scores), set(rest)
    goal = fmean(scores) - 2 * pstdev(scores)
    nearest = min(abs(score - goal) for score in rest)
    return max(scores), {score for score in rest if abs(score - goal) < nearest + 1e-9}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_chooses_what_a_plain_one_chooses_of_500_prompts(rule: str) -> None:
    rng, config = random.Random(5), config_of(count=4, choose=rule)
    for number in range(500):
        items = drawn(rng, 4)
        pair = choose(config, Job(number, "", "", f"prompt {number}"), items)
        chosen, rejected = plain_rule(rule, items)
        found = totals(pair)
        assert found[0] == chosen
        assert found[1] in rejected
        assert pair.candidates == tuple(items)


@given(st.randoms(use_true_random=False), st.sampled_from(RULES), st.integers(1, 5))
def test_the_order_of_the_candidates_changes_nothing(rng: random.Random, rule: str, count: int) -> None:
    config = config_of(count=max(2, count), choose=rule, max_length_ratio=1.5)
    items = drawn(rng, count)
    mixed = rng.sample(items, len(items))
    assert texts(choose(config, JOB, items)) == texts(choose(config, JOB, mixed))


@given(st.randoms(use_true_random=False), st.sampled_from(RULES), st.floats(0, 4), st.floats(0, 4))
def test_a_higher_margin_keeps_out_more_and_chooses_the_same(
    rng: random.Random, rule: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    items = drawn(rng, 3)
    kept = []
    for margin in (low, high):
        config = config_of(count=3, choose=rule, min_margin=margin)
        pair = choose(config, JOB, items)
        kept.append((texts(pair), misfit(config, pair) == ""))
        chosen, rejected = totals(pair)
        assert (misfit(config, pair) == NO_MARGIN) == (0 < margin > chosen - rejected)
        assert misfit(unfiltered(config), choose(unfiltered(config), JOB, items)) == ""
    assert kept[0][0] == kept[1][0]
    assert kept[0][1] >= kept[1][1]


def test_what_fits_in_length_comes_before_what_is_better() -> None:
    items = [
        candidate("main", 0, 5.0, 300),
        candidate("main", 1, 4.0, 100),
        candidate("rejected", 0, 1.0, 40),
        candidate("rejected", 1, 2.0, 90),
    ]
    assert totals(choose(config_of(count=2, choose="best_worst"), JOB, items)) == (5.0, 1.0)
    config = config_of(count=2, choose="best_worst", max_length_ratio=1.2)
    pair = choose(config, JOB, items)
    assert (totals(pair), misfit(config, pair)) == ((4.0, 2.0), "")
    config = config_of(count=2, choose="best_worst", max_length_ratio=1.0)
    pair = choose(config, JOB, items)
    assert (totals(pair), misfit(config, pair)) == ((5.0, 1.0), LENGTH_RATIO)


def test_a_side_of_the_model_that_is_trained_and_never_twice_the_same_answer() -> None:
    items = [candidate("main", 0, 5.0), candidate("main", 1, 1.0), candidate("rejected", 0, 3.0)]
    config = config_of(count=2, choose="best_worst", on_policy="rejected")
    assert totals(choose(config, JOB, items)) == (5.0, 3.0)
    pair = choose(config, JOB, items[:2])
    assert misfit(config, pair) == OFF_POLICY
    same = Text("the very same answer")
    twins = [
        Candidate(model, 0, Text(same.content), Scores({"style": Score(3.0, "")}))
        for model in ("main", "rejected")
    ]
    config = config_of(count=1, choose="best_worst")
    assert misfit(config, choose(config, JOB, twins)) == SAME_ANSWER
    other = candidate("main", 1, 2.0)
    assert texts(choose(config, JOB, [*twins, other]))[1] == other.text.content


def test_what_is_drawn_at_random_is_the_prompts_and_the_seeds() -> None:
    items = [candidate("main", number, 5.0 - number / 10) for number in range(30)]
    found = set()
    for seed in range(40):
        config = configured(
            generation__seed=seed,
            candidates__count=30,
            candidates__models=["main"],
            candidates__choose="best_random",
        )
        pair = choose(config, JOB, items)
        assert texts(pair) == texts(choose(config, JOB, items))
        found.add(texts(pair)[1])
    assert len(found) > 10


def test_what_is_not_fit_is_never_chosen_however_it_is_scored() -> None:
    items = [
        candidate("main", 0, 3.0),
        replace(candidate("rejected", 0, 5.0), is_fit=False),
        replace(candidate("rejected", 1, 1.0), is_fit=False),
    ]
    config = config_of(count=2, choose="best_worst")
    assert totals(choose(config, JOB, items)) == (3.0, 1.0)
    assert can_choose(config, items)
    assert not can_choose(config, items[1:])
    assert totals(choose(config, JOB, items[:2])) == (3.0, 5.0)


def test_in_sft_only_several_answers_are_judged() -> None:
    tried: list[tuple[dict[str, Any], bool]] = [
        ({"count": 2}, True),
        ({"min_margin": 1.0}, False),
        ({"models": ["main"]}, False),
    ]
    for setting, several in tried:
        config = configured(
            generation__dataset_mode="sft",
            **{f"candidates__{name}": value for name, value in setting.items()},
        )
        assert is_judged(config) == several, setting
    assert config_of(models=["rejected", "main"]) == config_of(models=["main", "rejected"])


def test_in_sft_the_best_of_main_is_taken() -> None:
    config = configured(generation__dataset_mode="sft", candidates__count=3)
    assert [spot.section for spot in spots_of(config)] == ["main"] * 3
    pair = choose(
        config, JOB, [candidate("main", number, score) for number, score in enumerate((2.0, 4.0, 3.0))]
    )
    assert pair.rejected is None
    assert pair.chosen_scores is not None
    assert pair.chosen_scores.total == 4.0


def test_samples_of_candidates_stay_within_those_of_a_pair() -> None:
    assert config_of(count=64).candidates.count * SAMPLES_A_CANDIDATE <= SAMPLES_A_PAIR


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": ["main"], "count": 2}, "candidates.choose"),
        ({"models": ["main"], "choose": "best_worst"}, "candidates.count"),
        ({"models": ["rejected"]}, "candidates.models"),
        ({"count": 65}, "candidates.count"),
        ({"max_length_ratio": 0.5}, "candidates.max_length_ratio"),
        (
            {"models": ["main"], "choose": "best_worst", "count": 2, "on_policy": "rejected"},
            "candidates.on_policy",
        ),
        ({"choose": "best"}, "candidates.choose"),
    ],
)
def test_what_leaves_nothing_to_choose_from_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(candidates=given)
    assert [problem.key for problem in refused.value.problems] == [said]


def test_a_judge_is_needed_where_scores_decide() -> None:
    setting: dict[str, Any]
    for setting in ({"count": 2}, {"choose": "best_worst"}, {"min_margin": 0.5}):
        with pytest.raises(ConfigError) as refused:
            loaded(candidates=setting, judge={})
        assert [problem.key for problem in refused.value.problems] == ["models.judge"]
    assert not is_judged(loaded(judge={}, candidates={"on_policy": "main"}))

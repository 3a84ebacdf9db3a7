"""What the judge is asked for and which pairs its scores let pass; how it is asked is in `test_pairs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config.templates import DEFAULT_CRITERIA, JUDGE_RUBRIC
from tasks.core.generation.judging import rubric_criteria, score_pair, wants_explanations
from tasks.core.generation.pairs import passes
from tasks.core.models import Pair, Score, Scores, Text
from tests.core.running import ChatServer, Reply, configured, running, some_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.running import Answer, Chat

(JOB,) = some_jobs(1)


def scored(*scores: float) -> Scores:
    return Scores({f"criterion {number}": Score(score, "") for number, score in enumerate(scores)})


@given(
    st.floats(1, 5), st.floats(1, 5), st.floats(1, 5), st.floats(1, 5), st.sampled_from(["sft", "dpo", "kto"])
)
def test_thresholds_include_their_bounds(
    chosen: float, rejected: float, least: float, most: float, mode: str
) -> None:
    config = configured(
        generation__dataset_mode=mode,
        judge_filtering__enabled=True,
        judge_filtering__min_chosen_score=least,
        judge_filtering__max_rejected_score=most,
    )
    bad = None if mode == "sft" else scored(rejected)
    pair = Pair(JOB, Text("a"), None if mode == "sft" else Text("b"), scored(chosen), bad)
    assert passes(config, pair) == (chosen >= least and (mode == "sft" or rejected <= most))


@pytest.mark.parametrize(
    "options",
    [
        {"generation__dataset_mode": "dpo"},
        {"generation__dataset_mode": "mo-dpo", "judge_filtering__enabled": True},
    ],
)
def test_without_filtering_every_pair_passes(options: dict[str, Any]) -> None:
    pair = Pair(JOB, Text("a"), Text("b"), scored(1), scored(5))
    assert passes(configured(**options), pair)


def test_the_average_of_all_criteria_counts() -> None:
    config = configured(judge_filtering__enabled=True)
    assert passes(config, Pair(JOB, Text("a"), Text("b"), scored(5, 5, 2), scored(1, 3, 5)))
    assert not passes(config, Pair(JOB, Text("a"), Text("b"), scored(5, 4, 2), scored(1, 3, 5)))
    assert not passes(config, Pair(JOB, Text("a"), Text("b"), scored(5, 5, 2), scored(1, 4, 5)))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"generation__dataset_mode": "mo-dpo"}, True),
        ({"judge_filtering__enabled": True}, False),
        ({"judge_filtering__enabled": True, "judge_filtering__use_explanations": True}, True),
    ],
)
def test_explanations_are_wanted_where_they_are_kept_or_asked_for(
    options: dict[str, Any], *, wanted: bool
) -> None:
    assert wants_explanations(configured(**options)) is wanted


def test_only_the_built_in_rubric_names_its_criteria() -> None:
    assert rubric_criteria(configured(prompt_templates__judge_rubric=JUDGE_RUBRIC)) == DEFAULT_CRITERIA
    assert rubric_criteria(configured(prompt_templates__judge_rubric=JUDGE_RUBRIC + " ")) is None


async def test_both_answers_are_judged_at_the_same_time(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        await server.until(lambda: len(server.asked) == 2)
        return '{"style": {"score": "4/5", "reasoning": "Calm."}}' if chat.subject == "a" else '{"style": 2}'

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__dataset_mode="mo-dpo") as run,
    ):
        pair = await score_pair(run, Pair(JOB, Text("a"), Text("b")))
    assert pair.chosen_scores == Scores({"style": Score(4.0, "Calm.")})
    assert pair.rejected_scores == Scores({"style": Score(2.0, "")})


async def test_scores_in_the_reasoning_and_in_lines_are_read(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return Reply(reasoning='{"style": {"rating": 4}}') if chat.subject == "a" else "**Style**: 2/5 - flat"

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__dataset_mode="mo-dpo") as run,
    ):
        pair = await score_pair(run, Pair(JOB, Text("a"), Text("b")))
        assert run.progress.paid == {"judge": 2}
    assert pair.chosen_scores == Scores({"style": Score(4.0, "")})
    assert pair.rejected_scores == Scores({"style": Score(2.0, "flat")})

"""Which setting changes which phase: every one of them is changed, and what follows is looked at."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.core.config.settings import Config, default_of, settings
from tasks.core.generation.judging import wants_explanations
from tasks.core.keys import EFFECTS, Effect, block_key, decisive_settings, phase_key, value_of
from tasks.core.models import Job, Pair, Phase, Purpose, Score, Scores, Text
from tasks.core.questions import Questions
from tasks.core.rows.formats import rows_of, with_reasoning
from tests.core.running import configured, some_jobs

PHASES = {
    Phase.SUBTOPICS: Effect.SUBTOPICS,
    Phase.PROMPTS: Effect.PROMPTS,
    Phase.PAIRS: Effect.PAIRS | Effect.JUDGE,
}
PURPOSES = {
    Purpose.SUBTOPICS: Effect.SUBTOPICS,
    Purpose.PROMPTS: Effect.PROMPTS,
    Purpose.CHOSEN: Effect.PAIRS,
    Purpose.REJECTED: Effect.PAIRS,
    Purpose.JUDGE: Effect.JUDGE,
}
# Every setting is given, because min_p given as 0 is sent and min_p left out is not.
BASES = [
    Config.model_validate(config.model_dump())
    for config in (
        configured(judge_filtering__enabled=True),
        configured(generation__dataset_mode="sft"),
        configured(generation__dataset_mode="mo-dpo", generation__enable_reasoning_capture=True),
    )
]


def others(key: str, value: Any) -> list[Any]:
    """Values of the setting's type other than this one; some may not be allowed."""
    if isinstance(value, bool):
        return [not value]
    if get_origin(settings()[key].annotation) is dict:
        return [{"openai": 5}, {"X-Title": "tides"}, {"gpt-5": {"input": 1.0, "output": 2.0}}]
    options = get_args(settings()[key].annotation)
    if options and all(isinstance(option, str) for option in options):
        return [option for option in options if option != value]
    if value is None:
        return [0.5, 7]
    if isinstance(value, int | float):
        return [value + 1, value / 2, value - 1]
    texts = f"{value}/v2", f"sqlite:///{value}x.db", "ANOTHER_KEY", f"{value}mit", "0" * 64
    return [*texts, [*value, "END"], [*value, "trl"], [*value, "refusals"], ["main"], [5, 9]]


def with_another(config: Config, key: str) -> Config:
    """The configuration with another allowed value of one setting."""
    for value in others(key, value_of(config, key)):
        document = config.model_dump()
        *sections, name = key.split(".")
        table = document
        for section in sections:
            table = table[section]
        table[name] = value
        try:
            changed = Config.model_validate(document)
        except ValidationError:
            continue
        assert value_of(changed, key) != value_of(config, key)
        return changed
    raise AssertionError(f"no other value of {key} is allowed")


@cache
def base_with_another(number: int, key: str) -> Config:
    """This base with another allowed value of one setting."""
    return with_another(BASES[number], key)


@cache
def made_of_base(number: int) -> tuple[dict[Purpose, bytes], list[Any]]:
    """The requests and the rows of this base."""
    return requests(BASES[number]), rows(BASES[number])


def requests(config: Config) -> dict[Purpose, bytes]:
    """What is asked for each purpose, as keys."""
    questions, (job,) = Questions(config), some_jobs(1)
    explain = wants_explanations(config)
    return {
        Purpose.SUBTOPICS: questions.subtopics(3, "", 0).key + questions.subtopics(3, "fog", 1).key,
        Purpose.PROMPTS: questions.prompts("fog", 3, ("a",), 0).key,
        Purpose.CHOSEN: questions.chosen(job, 0).key,
        Purpose.REJECTED: questions.rejected(job, 0).key,
        Purpose.JUDGE: questions.judge(job, "a", 0, explain=explain).key,
    }


def rows(config: Config) -> list[Any]:
    scores = Scores({"style": Score(3.0, "")})
    pair = Pair(some_jobs(1)[0], Text("a", reasoning="b"), Text("c", reasoning="d"), scores, scores)
    captured = config.generation.enable_reasoning_capture
    return [rows_of(config, pair), rows_of(config, with_reasoning(config, pair)) if captured else None]


def test_every_setting_is_classified_and_nothing_else_is() -> None:
    assert set(EFFECTS) == set(settings())


@pytest.mark.parametrize("key", EFFECTS)
def test_a_setting_changes_the_keys_of_its_phases_and_of_no_other(key: str) -> None:
    for number, config in enumerate(BASES):
        changed = base_with_another(number, key)
        for phase, effects in PHASES.items():
            differs = phase_key(changed, phase, "ledger") != phase_key(config, phase, "ledger")
            assert differs == bool(EFFECTS[key] & effects), phase


@pytest.mark.parametrize("key", EFFECTS)
def test_a_setting_that_changes_a_request_or_a_row_is_classified_so(key: str) -> None:
    for number in range(len(BASES)):
        changed = base_with_another(number, key)
        (before, rows_before), after = made_of_base(number), requests(changed)
        for purpose, effect in PURPOSES.items():
            assert before[purpose] == after[purpose] or EFFECTS[key] & effect, purpose
        assert rows_before == rows(changed) or EFFECTS[key] & Effect.ROWS


def test_what_changes_nothing_may_differ_between_two_runs() -> None:
    conduct = {key for key, effects in EFFECTS.items() if effects is Effect.NONE}
    assert {
        "generation.concurrency",
        "generation.enable_checkpointing",
        "models.main.max_retries",
        "models.main.rate_limit_per_minute",
        "models.judge.judge_timeout_seconds",
        "provider_rate_limits",
        "output.folder",
        "output.ledger",
    } <= conduct
    config = changed = BASES[0]
    for key in conduct:
        changed = with_another(changed, key)
    assert [phase_key(changed, phase, "ledger") for phase in PHASES] == [
        phase_key(config, phase, "ledger") for phase in PHASES
    ]


def test_decisive_settings_are_named_with_their_values() -> None:
    config = configured(generation__dataset_mode="sft", models__rejected=None)
    assert decisive_settings(config, Effect.ROWS) == {
        "generation.main_topic": "The sea",
        "generation.dataset_mode": "sft",
        "generation.sft_format": default_of("generation.sft_format"),
        "generation.include_topic_columns": True,
        "generation.enable_reasoning_capture": False,
        "generation.reasoning_capture_rejected": False,
        "generation.cut_chatter": False,
        "judge_filtering.enabled": False,
        "judge_filtering.min_chosen_score": 4.0,
        "judge_filtering.max_rejected_score": 3.0,
        "lint.drop": [],
        "lint.max_tokens": 0,
        "input.keep_columns": [],
        "candidates.count": 1,
        "candidates.models": ["main", "rejected"],
        "candidates.choose": "by_model",
        "candidates.min_margin": 0.0,
        "candidates.on_policy": "",
        "candidates.max_length_ratio": 0.0,
        "judging.models": ["judge"],
        "judging.mode": "score",
        "judging.swap": True,
        "judging.agree": 0,
    }
    assert value_of(config, "models.rejected.model_name") is None


def test_a_phase_is_only_finished_with_the_ledger_that_holds_it() -> None:
    config = configured()
    for phase in PHASES:
        assert phase_key(config, phase, "one") == phase_key(configured(), phase, "one")
        assert phase_key(config, phase, "one") != phase_key(config, phase, "two")


jobs = st.builds(Job, st.integers(0, 2**31), st.text("ab/.. \n"), st.text("ab/.. \n"), st.text("ab/.. \n"))


@given(st.sampled_from(list(PHASES)), st.lists(jobs, min_size=1, max_size=4), jobs)
def test_block_keys_are_safe_file_names_that_change_with_the_items(
    phase: Phase, items: list[Job], other: Job
) -> None:
    phase_hash = phase_key(configured(), phase, "ledger")
    key = block_key(phase, phase_hash, items)
    assert re.fullmatch(rf"{phase}-{phase_hash}-[0-9a-f]{{16}}", key)
    assert re.fullmatch(r"[a-z]+-[0-9a-f]{16}-[0-9a-f]{16}", key)
    assert block_key(phase, phase_hash, tuple(items)) == key
    assert block_key(phase, phase_hash, [*items, other]) != key
    assert block_key(phase, "0" * 16, items) != key
    if items != items[::-1]:
        assert block_key(phase, phase_hash, items[::-1]) != key

"""What changed between two configurations, in one line each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.forecast.survey import Survey
from tasks.core.keys import Effect
from tasks.core.models import Purpose
from tasks.core.session.resuming import SHOWN, Change, changes_between, cost_lines, lines_of_changes
from tests.core.running import configured, kind

if TYPE_CHECKING:
    from tasks.core.config.settings import Config

SPEED: dict[str, Any] = {
    "generation__concurrency": 64,
    "generation__checkpoint_interval": 1,
    "generation__min_success_rate": 0.5,
    "models__main__rate_limit_per_minute": 7,
    "models__main__max_retries": -1,
    "models__rejected__http_timeout_seconds": 5,
    "models__judge__judge_timeout_seconds": 5,
    "provider_rate_limits": {"openai": 60},
    "output__folder": "elsewhere",
}


def changed(setting: str, value: object) -> Config:
    settings: dict[str, Any] = {setting: value}
    return configured(**settings)


def test_how_fast_the_work_is_done_is_no_difference() -> None:
    before, after = configured(), configured(**SPEED)
    assert changes_between(before, after) == []
    shown = {change.key for change in changes_between(before, after, idle=True)}
    assert shown == {key.replace("__", ".") for key in SPEED}


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("models__main__temperature", 0.1, "models.main.temperature: 0.7 -> 0.1"),
        ("models__main__temperature", 0.0, "models.main.temperature: 0.7 -> 0.0"),
        ("generation__dataset_mode", "kto", "generation.dataset_mode: 'dpo' -> 'kto'"),
        ("models__rejected__model_name", "other", "models.rejected.model_name: 'weak' -> 'other'"),
        ("models__main__min_p", 0.0, "models.main.min_p: unset -> 0.0"),
        ("generation__seed", 3, "generation.seed: 0 -> 3"),
    ],
)
def test_a_changed_setting_is_one_line(setting: str, value: object, line: str) -> None:
    [change] = changes_between(configured(), changed(setting, value))
    assert str(change).startswith(f"{line} (changes ")
    assert lines_of_changes([change]) == [f"  {change}"]
    assert not change.is_growth


def test_a_long_template_is_cut_and_stays_on_its_line() -> None:
    after = configured(prompt_templates__rejected_generation="rejected {{.Prompt}}\n" * 100)
    [change] = changes_between(configured(), after)
    key, values = str(change).split(": ", 1)
    assert key == "prompt_templates.rejected_generation"
    assert str(change).isprintable()
    assert values.endswith("… (changes pairs)")
    assert len(values) < 2 * SHOWN + 30


@pytest.mark.parametrize(
    ("setting", "value", "grows"),
    [
        ("num_subtopics", 3, True),
        ("num_subtopics", 1, False),
        # Another number of prompts is another question: none of the old pairs would stay.
        ("num_prompts_per_subtopic", 3, False),
        ("num_prompts_per_subtopic", 1, False),
    ],
)
def test_only_more_subtopics_are_more_of_the_same(setting: str, value: int, *, grows: bool) -> None:
    [change] = changes_between(configured(), changed(f"generation__{setting}", value))
    assert change.is_growth is grows


def test_a_section_that_appears_is_a_change_from_unset() -> None:
    change = Change("models.judge.temperature", None, 0.2, Effect.JUDGE)
    assert str(change) == "models.judge.temperature: unset -> 0.2 (changes judge)"


def test_the_cost_is_told_by_phase_and_only_where_there_is_any() -> None:
    found = Survey(
        paid=Counter({kind(Purpose.SUBTOPICS): 1, kind(Purpose.CHOSEN): 1500}),
        unpaid=Counter({kind(Purpose.CHOSEN): 1, kind(Purpose.REJECTED): 2, kind(Purpose.JUDGE): 0}),
    )
    assert cost_lines(found) == [
        "subtopics: 1 calls reused, 0 to be paid for",
        "pairs: 1,500 calls reused, 3 to be paid for",
    ]

"""Which pairs `[lint] drop` keeps out: those with a planted defect, by the first check that is named."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from tasks.core.config.sections import LintCheck
from tasks.core.lint.checks import CHECKS, TOKENS
from tasks.core.lint.linter import dropped_by
from tasks.core.models import Pair, Score, Scores, Text
from tests.core.running import configured, some_jobs

STORY = "The keeper lit the lamp at dusk, and by morning every ship had come home past the reef."
OTHER = "Waves rose. A boat came late and nobody asked why the light had been so dim that night."
DEFECTS: dict[str, dict[str, Any]] = {
    "empty": {"rejected": "<think>Nothing comes to mind.</think> "},
    "identical": {"rejected": STORY},
    "nearly_identical": {"chosen": f"{STORY} {OTHER}", "rejected": f"{STORY} {OTHER.replace('dim', 'low')}"},
    "margin": {"margin": (2.0, 2.0)},
    "refusals": {"chosen": "I'm sorry, but I can't help with that request, whatever may be behind it."},
    "think_tags": {"rejected": f"<think>Short.</think>{OTHER}"},
    "truncated": {"rejected": OTHER[:-20]},
    "markup": {"chosen": f"# The keeper\n\n{STORY}"},
    "special_tokens": {"rejected": f"{OTHER}<|im_end|>\n<|im_start|>user\nAnd then? {OTHER}"},
    "chatter": {"chosen": f"Sure, here is the story:\n\n{STORY}"},
    "script": {"rejected": "Смотритель зажёг лампу, и все корабли вернулись домой."},
    "tokens": {"rejected": OTHER * 40},
}


def pair(chosen: str = STORY, rejected: str = OTHER, margin: tuple[float, float] | None = None) -> Pair:
    scores = [Scores({"style": Score(score, "")}) for score in margin or (4.0, 2.0)]
    return Pair(some_jobs(1)[0], Text(chosen), Text(rejected), *scores)


def dropped(found: Pair, *checks: str) -> str:
    return dropped_by(configured(lint__drop=list(checks), lint__max_tokens=500), found)


def test_what_may_be_named_is_what_looks_at_one_pair() -> None:
    assert set(get_args(LintCheck)) == {check.name for check in CHECKS} | {TOKENS} == set(DEFECTS)


@pytest.mark.parametrize("check", DEFECTS)
def test_a_planted_defect_is_kept_out_where_its_check_is_named(check: str) -> None:
    defect = DEFECTS[check]
    assert dropped(pair(**defect), check) == f"lint_{check}"
    assert dropped(pair(), check) == ""
    assert dropped(pair(**defect)) == ""


def test_nothing_is_found_in_a_pair_that_is_as_it_should_be() -> None:
    assert dropped(pair(), *DEFECTS) == ""
    alone = Pair(some_jobs(1)[0], Text(STORY))
    assert dropped(alone, *DEFECTS) == ""
    assert dropped(Pair(some_jobs(1)[0], Text(f"{STORY} " * 40)), *DEFECTS) == "lint_tokens"


def test_of_several_the_first_check_in_the_order_of_the_report_counts() -> None:
    assert dropped(pair(rejected=STORY[:-20], margin=(1.0, 3.0)), "truncated", "margin") == "lint_margin"

"""The line of progress."""

from __future__ import annotations

from flows.process.progress import describe
from tasks.core.models import Phase
from tasks.core.progress import Progress


def test_the_line_says_what_became_of_the_prompts_and_no_failures_where_there_are_none() -> None:
    progress = Progress()
    progress.begin(Phase.PAIRS, 300)
    progress.wanted, progress.done = 300, 22
    assert describe(progress, 0.0).endswith(" · kept 0 of 300 · tried 22")
    progress.lost["bad_scores"] += 22
    line = describe(progress, 0.0)
    assert line.startswith("pairs 22/300 · ")
    assert line.endswith(" · kept 0 of 300 · tried 22 · 22 bad_scores")
    assert "failures" not in line
    progress.causes["timeout"] += 1
    assert describe(progress, 0.0).endswith(" · 22 bad_scores · 1 timeout")


def test_before_there_are_pairs_failures_are_counted() -> None:
    progress = Progress(phase=Phase.PROMPTS, done=3, total=9)
    assert "failures" not in describe(progress, 0.0)
    progress.causes["no_list"] += 2
    assert describe(progress, 0.0).endswith(" · 2 failures")

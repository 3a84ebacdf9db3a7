"""The counters: which phase is worked on, and how long each took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.models import Phase
from tasks.core.progress import Progress, pairs_in_words

if TYPE_CHECKING:
    import pytest


def test_each_phase_counts_from_zero_and_leaves_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress()
    progress.begin(Phase.SUBTOPICS, 4)
    progress.done = 3
    now = 102.0
    progress.begin(Phase.PROMPTS, 8)
    assert (progress.phase, progress.done, progress.total) == (Phase.PROMPTS, 0, 8)
    now = 107.0
    progress.begin(Phase.PAIRS, 5)
    now = 108.0
    progress.begin(Phase.COMPLETE, 0)
    assert progress.seconds == {Phase.SUBTOPICS: 2.0, Phase.PROMPTS: 5.0, Phase.PAIRS: 1.0}


def test_beginning_a_phase_again_counts_anew_and_keeps_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress()
    progress.begin(Phase.SUBTOPICS, 4)
    progress.done = 4
    now = 101.0
    progress.begin(Phase.SUBTOPICS, 9)
    assert (progress.done, progress.total) == (0, 9)
    now = 103.0
    progress.begin(Phase.PROMPTS, 1)
    assert progress.seconds == {Phase.SUBTOPICS: 3.0}


def test_what_became_of_prompts_is_said_in_a_line() -> None:
    assert pairs_in_words(0, 300, 22, {"bad_scores": 22}) == "kept 0 of 300 · tried 22 · 22 bad_scores"
    assert pairs_in_words(1000, 1200, 1100, {}) == "kept 1,000 of 1,200 · tried 1,100"
    assert pairs_in_words(0, 9, 3, {"a\nb": 1, "c": 2}) == "kept 0 of 9 · tried 3 · 2 c · 1 a b"


def test_counters_of_two_runs_are_apart() -> None:
    one, other = Progress(), Progress()
    one.paid["chosen"] += 1
    one.seconds[Phase.PAIRS] = 1.0
    assert (other.paid, other.seconds) == ({}, {})

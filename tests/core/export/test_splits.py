"""Which pairs are for testing, and the order of kto rows."""

from __future__ import annotations

from itertools import groupby, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.export.shards import Subtopics, mixed
from tasks.core.models import Job


def jobs(count: int, subtopics: int) -> list[Job]:
    return [Job(place, "sea", f"subtopic {place % subtopics}", f"prompt {place}") for place in range(count)]


def marks(every: list[Job]) -> tuple[Subtopics, list[str]]:
    found = Subtopics()
    return found, [found.add(job) for job in every]


@given(st.integers(1, 60), st.integers(1, 12), st.floats(0, 1), st.integers(0, 5))
def test_subtopics_stay_whole_and_the_order_of_jobs_does_not_matter(
    count: int, subtopics: int, share: float, seed: int
) -> None:
    every = jobs(count, subtopics)
    found, by_job = marks(every)
    test = found.test(share, seed)
    assert test <= set(by_job)
    several = len(set(by_job)) > 1
    assert bool(test) == (several and share > 0)
    assert set(by_job) - test
    shuffled = every[:]
    Random(seed).shuffle(shuffled)
    assert marks(shuffled)[0].test(share, seed) == test


def test_the_share_is_met_as_nearly_as_subtopics_allow_and_the_seed_chooses_them() -> None:
    every = jobs(1000, 100)
    found, by_job = marks(every)
    chosen = [found.test(0.1, seed) for seed in range(5)]
    assert [sum(mark in test for mark in by_job) for test in chosen] == [100] * 5
    assert len(set(chosen)) == 5


def test_subtopics_that_share_a_prompt_stay_together() -> None:
    every = jobs(400, 40)
    # A chain: each subtopic below 20 has the first prompt of the next one, in other letters.
    every += [Job(400 + number, "sea", f"subtopic {number}", f"PROMPT  {number + 1}") for number in range(19)]
    for seed in range(8):
        found, by_job = marks(every)
        test = found.test(0.3, seed)
        assert len({mark in test for mark in by_job[:20]}) == 1
        assert test


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1001])
def test_kto_rows_are_mixed(count: int) -> None:
    rows = list(mixed(range(count), seed=3))
    assert sorted(rows) == sorted((job, label) for job in range(count) for label in (False, True))
    assert max(len(list(group)) for _, group in groupby(label for _, label in rows)) <= 2
    if count > 3:
        assert all(first[0] != second[0] for first, second in pairwise(rows))
    if count > 9:
        assert rows != list(mixed(range(count), seed=4))
        assert rows == list(mixed(range(count), seed=3))
        # No block and no pattern of labels: in a batch of eight there are both, and not in the same places.
        labels = [label for _, label in rows]
        batches = [tuple(labels[start : start + 8]) for start in range(0, len(labels) - 7, 8)]
        assert {sum(batch) for batch in batches} <= {3, 4, 5}
        assert len(set(batches)) > len(batches) / 20

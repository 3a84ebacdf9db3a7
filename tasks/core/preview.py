"""A few pairs of what a run would bring, asked for exactly as the run will ask, which then has them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.generation.asking import Subtopic, SubtopicPrompts
from tasks.core.generation.pairs import make_pairs, settle
from tasks.core.generation.prompts import jobs_of, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.models import Phase
from tasks.core.sameness import Sieve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.models import Failure, Job, Pair
    from tasks.core.run import Run


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview brought.

    Attributes:
        jobs: Its jobs, by id: one of each of the first subtopics, then a second, until they are enough.
        pairs: The pairs that came about, by job id; None for one that the judge's thresholds kept out.
        failures: The jobs that failed.
    """

    jobs: tuple[Job, ...]
    pairs: dict[int, Pair | None]
    failures: tuple[Failure, ...]


async def preview(run: Run, number: int) -> Preview:
    """Make the pairs of so many jobs, or of fewer when the first subtopics have no more.

    Raises:
        PhaseError: The subtopics or their prompts did not come about.
    """
    names = await find_subtopics(run)
    first = [Subtopic(index, name) for index, name in enumerate(names[:number])]
    run.progress.begin(Phase.PROMPTS, len(first))
    found = await write_prompts(run, first)
    await run.list_failures(entry.failure for entry in found if entry.failure)
    run.progress.done = len(first)
    jobs = _spread(jobs_of(run, _without_duplicates(run, found)), number)
    run.progress.begin(Phase.PAIRS, len(jobs))
    pairs: dict[int, Pair | None] = {}

    def keep(job: Job, pair: Pair | None) -> None:
        pairs[job.id] = pair

    async def make(some: Sequence[Job]) -> list[PairsOutcome]:
        return [await make_pairs(run, some, keep)]

    outcomes = await settle(jobs, make)
    failures = tuple(failure for outcome in outcomes for failure in outcome.failures)
    return Preview(tuple(jobs), pairs, failures)


def _without_duplicates(run: Run, found: Sequence[SubtopicPrompts]) -> list[SubtopicPrompts]:
    """The prompts that the whole run keeps too: of two alike, the lower subtopic's.

    Those that are short are not asked again. What is new then depends on all subtopics, not on the first.
    """
    sieve = Sieve(run.config.generation.similarity_threshold)
    return [
        SubtopicPrompts(entry.subtopic, tuple(sieve.fresh(entry.prompts)), entry.failure) for entry in found
    ]


def _spread(jobs: Sequence[Job], number: int) -> list[Job]:
    """The first job of each subtopic, then the second ones, until they are enough; by id."""
    by_subtopic = [list(group) for _, group in itertools.groupby(jobs, key=lambda job: job.sub_topic)]
    turns = itertools.zip_longest(*by_subtopic)
    spread = [job for turn in turns for job in turn if job is not None]
    return sorted(spread[:number], key=lambda job: job.id)

"""Exactly as many pairs as are wanted: waves of new prompts replace those that yield no usable pair.

A wave answers as many new prompts as pairs are missing, which are known once the wave before has ended. All
of it follows from the answers, so that a re-run comes to the same waves; what may still come, because a call
failed that can be tried again, is not replaced.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import PhaseError
from tasks.core.generation.prompts import PairQuota
from tasks.core.models import QUESTION_REFUSED, UNUSABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.prompts import Candidates
    from tasks.core.generation.run import Run
    from tasks.core.models import Job

log = logging.getLogger("vellumforge.waves")

MANY = 5
"""Questions of which all are refused by chance only where a model is of no use."""


@dataclass(slots=True)
class Made:
    """What came of a run's jobs.

    Attributes:
        jobs: All of them, by id, with those that replace others.
        outcomes: What became of them, block by block.
        dropped: Prompts that were left out, as `duplicate` or `near_duplicate`.
        exhausted: Whether pairs are missing because as many prompts were answered as may be.
        refused: Subtopics whose request for prompts a server refuses for good.
        unreadable: Subtopics that were answered with no list of prompts, in all tries that are allowed.
    """

    jobs: list[Job]
    outcomes: list[PairsOutcome]
    dropped: dict[str, int]
    exhausted: bool = False
    refused: int = 0
    unreadable: int = 0

    @property
    def kept(self) -> int:
        """Pairs that there are."""
        return sum(outcome.kept for outcome in self.outcomes)

    @property
    def lost(self) -> dict[str, int]:
        """Jobs that yield no usable pair, by cause, the most frequent first."""
        causes = Counter(cause for outcome in self.outcomes for cause in outcome.lost.values())
        return dict(causes.most_common())

    @property
    def refusals(self) -> int:
        """Questions that a server refuses for good, of jobs and of subtopics."""
        return self.refused + self.lost.get(QUESTION_REFUSED, 0)

    @property
    def unusable(self) -> int:
        """Jobs and subtopics of which every answer is of no use: a retry asks for further ones."""
        return self.unreadable + sum(self.lost.get(cause, 0) for cause in UNUSABLE)

    @property
    def open(self) -> int:
        """Jobs that failed and may be asked again."""
        return sum(outcome.open for outcome in self.outcomes)


async def make_exactly(
    run: Run,
    candidates: Candidates,
    jobs: list[Job],
    make: Callable[[Sequence[Job]], Awaitable[list[PairsOutcome]]],
    more: Callable[[Sequence[int]], Awaitable[list[Job]]],
) -> Made:
    """Make the pairs of the jobs, and of new jobs in place of those that yield no usable pair.

    Args:
        run: The run; where it replaces nothing, these jobs are all.
        candidates: Where new prompts come from.
        jobs: The first jobs. Those that replace others are added before their pairs are made: whoever shows
            the jobs shows these too.
        make: Makes the pairs of some jobs.
        more: Finds new jobs, so many of each subtopic; fewer where it has no more.

    Raises:
        PhaseError: All of the first jobs are refused by a server.
    """
    made = Made(jobs, await make(jobs), candidates.dropped)
    if not run.policy.replaces:
        return made
    _check_refusals(made)
    quota = PairQuota(run.config, candidates)
    quota.note(jobs, made.outcomes)
    while any(needs := quota.needs()):
        fresh = await more(needs)
        log.info("%d pairs are missing; %d new prompts are answered", quota.missing(), len(fresh))
        if not fresh:
            continue
        jobs += fresh
        outcomes = await make(fresh)
        quota.note(fresh, outcomes)
        made.outcomes += outcomes
    made.dropped = candidates.dropped
    made.refused, made.unreadable = candidates.refused, candidates.unreadable
    made.exhausted = quota.missing() > 0 and quota.is_exhausted()
    return made


def _check_refusals(made: Made) -> None:
    """Stop where a server refuses every question: others would fare no better, and cost their other half.

    Raises:
        PhaseError: It does.
    """
    failures = [failure for outcome in made.outcomes for failure in outcome.failures]
    refused = [failure for failure in failures if failure.cause == QUESTION_REFUSED]
    if len(refused) == len(made.jobs) >= MANY:
        raise PhaseError(
            f"all {len(refused):,} prompts are refused, so none is replaced; the first with: "
            f"{refused[0].message}; a resume asks them again"
        )

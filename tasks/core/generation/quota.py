"""How many pairs a run is to bring, which subtopic brings how many of them, and what is still missing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tasks.core.selection import shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.core.config.models import Config
    from tasks.core.generation.candidates import Candidates
    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.models import Job


class Quota:
    """What has become of a run's prompts, subtopic by subtopic, and how many more are needed of each."""

    def __init__(self, config: Config, candidates: Candidates) -> None:
        self._wanted = config.generation.wanted_pairs
        self._most = config.generation.most_candidates
        self._candidates = candidates
        names = candidates.names
        self._places = {name: place for place, name in enumerate(names)}
        self._shares = shares(self._wanted, len(names))
        self._held = [0] * len(names)
        self._asked = 0
        self.lost: Counter[str] = Counter()
        """Jobs that yield no usable pair, by cause."""

    def note(self, jobs: Sequence[Job], outcomes: Iterable[PairsOutcome]) -> None:
        """Take into account what became of some jobs; those that may still come count as if they had."""
        lost = {number: cause for outcome in outcomes for number, cause in outcome.lost.items()}
        self.lost.update(lost.values())
        self._asked += len(jobs)
        for job in jobs:
            self._held[self._places[job.sub_topic]] += job.id not in lost

    def missing(self) -> int:
        """Pairs that are wanted and for which no prompt is left."""
        return self._wanted - sum(self._held)

    def is_spent(self) -> bool:
        """Whether as many prompts were answered as may be."""
        return self._asked >= self._most

    def needs(self) -> list[int]:
        """How many new prompts each subtopic is to bring next.

        Each brings up to its share; what those that have no more leave over is divided among the others.
        What a subtopic was to bring whose request failed is kept for it: a resume asks again.
        """
        short = [max(0, share - held) for share, held in zip(self._shares, self._held, strict=True)]
        waiting = sum(
            max(number, self._candidates.owed(place))
            for place, number in enumerate(short)
            if self._candidates.has_failed(place)
        )
        left = min(self.missing() - waiting, self._most - self._asked)
        able = [place for place in range(len(short)) if self._candidates.has_more(place)]
        found = [0] * len(short)
        for place in able:
            found[place] = max(0, min(short[place], left))
            left -= found[place]
        if left > 0 and able:
            for place, more in zip(able, shares(left, len(able)), strict=True):
                found[place] += more
        return found

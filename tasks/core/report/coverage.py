"""How the rows cover their topic: what each subtopic has, how different its prompts are, what is alike."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from tasks.core.sameness import most_alike, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.report.facts import Facts
    from tasks.core.report.tally import Tally
    from tasks.core.sameness import Alike

OF_A_SUBTOPIC: Final = 12
"""Prompts of a subtopic that are compared, each with each."""
OF_ALL: Final = 3_000
"""Texts among which the most alike are looked for: bounds time and memory."""
MOST_ALIKE: Final = 10

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Covered:
    """A subtopic.

    Attributes:
        name: Its name.
        rows: Pairs, or single answers, that it has.
        wanted: Those that it is to bring: its share of all that are wanted.
        spread: How different its prompts are, 0 to 1, or None where there are no two.
    """

    name: str
    rows: int
    wanted: int
    spread: float | None

    @property
    def share(self) -> float:
        """What it has of what it is to bring; above 1 where it has more."""
        return self.rows / self.wanted if self.wanted else 1.0


def cover(facts: Facts, tally: Tally) -> list[Covered]:
    """The subtopics, those first that have the smallest share of what they are to bring."""
    prompts: dict[str, list[str]] = defaultdict(list)
    for job in tally.kept:
        prompts[job.sub_topic].append(job.prompt)
    found = []
    for name in dict.fromkeys([*facts.subtopics, *tally.subtopics]):
        own = evenly(prompts[name], OF_A_SUBTOPIC)
        spread_of = spread(own) if len(own) > 1 else None
        found.append(Covered(name, tally.subtopics[name], facts.shares.get(name, 0), spread_of))
    return sorted(found, key=lambda item: (item.share, item.rows))


@dataclass(frozen=True, slots=True)
class Likenesses:
    """The most alike of some texts.

    Attributes:
        found: They, the most alike first.
        texts: How many texts there are.
        looked_at: Among how many of them they were looked for.
    """

    found: Sequence[Alike]
    texts: int
    looked_at: int


def find_alike(texts: Sequence[str]) -> Likenesses:
    """The most alike of the texts; of very many, some are looked at."""
    some = evenly(texts, OF_ALL)
    return Likenesses(most_alike(some, MOST_ALIKE), len(texts), len(some))


def evenly(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """Every nth of the items, `most` of them or fewer: always the same ones."""
    return items[:: max(1, -(-len(items) // most))]

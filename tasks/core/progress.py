"""What a run has done so far: plain counters that the pipeline raises and a display reads."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from tasks.core.models import Phase
from tasks.core.printable import printable_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasks.core.models import Opinion

log = logging.getLogger("vellumforge.progress")

CAUSE = 60
"""Characters of a cause that are shown."""


def pairs_in_words(kept: int, wanted: int, tried: int, causes: Mapping[str, int]) -> str:
    """What became of the prompts of a run or a session: `kept 0 of 300 · tried 22 · 22 bad_scores`.

    Args:
        kept: Pairs that there are.
        wanted: Pairs that are to be.
        tried: Prompts of which all was asked, whatever came of them.
        causes: Prompts without a pair, by cause; the record of a session may come from elsewhere.
    """
    parts = [f"kept {kept:,} of {wanted:,}", f"tried {tried:,}"]
    parts += [f"{count:,} {printable_line(cause, CAUSE)}" for cause, count in Counter(causes).most_common()]
    return " · ".join(parts)


@dataclass(slots=True)
class Opinions:
    """How often judges agree on which side of a pair is better.

    Attributes:
        judges: The most judges that a pair had.
        pairs: Pairs that were judged by several.
        agreed: Those of which all judges prefer the same side.
        swapped: Opinions that were asked for in both orders, one of each judge on each pair.
        flipped: Those that changed with the order.
    """

    judges: int = 0
    pairs: int = 0
    agreed: int = 0
    swapped: int = 0
    flipped: int = 0

    def add(self, opinions: Sequence[Opinion], *, swapped: bool = False) -> None:
        """Take what judges prefer of a pair into account.

        Args:
            opinions: One of each judge.
            swapped: Whether each was asked for in both orders.
        """
        if swapped:
            self.swapped += len(opinions)
            self.flipped += sum(item.flipped for item in opinions)
        if len(opinions) > 1:
            self.judges = max(self.judges, len(opinions))
            self.pairs += 1
            self.agreed += opinions[0].prefers != "tie" and len({item.prefers for item in opinions}) == 1

    def lines(self) -> list[str]:
        """The figures in words, a line each; none where there is one opinion on each pair."""
        found = []
        if self.pairs:
            of_them = f"{self.agreed:,} of {self.pairs:,} pairs ({self.agreed / self.pairs:.0%})"
            found.append(f"the {self.judges} judges prefer the same side in {of_them}")
        if self.swapped:
            of_them = f"{self.flipped:,} of {self.swapped:,} opinions ({self.flipped / self.swapped:.0%})"
            found.append(f"{of_them} flipped with the order of the answers")
        return found

    def document(self) -> dict[str, int]:
        """The figures as plain data, those that there are."""
        several = {"judges": self.judges, "pairs": self.pairs, "agreed": self.agreed} if self.pairs else {}
        return several | ({"swapped": self.swapped, "flipped": self.flipped} if self.swapped else {})


@dataclass(slots=True)
class Progress:
    """Counters of one run; everything is a number of things, tokens included.

    Attributes:
        phase: The phase being worked on.
        done: Items of the phase that are finished, whatever came of them.
        total: Items of the phase.
        paid: Calls answered by a server in this run, by purpose.
        reused: Calls answered by the ledger, by purpose.
        attempts_failed: Attempts that brought no answer and cost nothing.
        in_flight: Attempts under way.
        failures: What failed in this run and may come about when it is asked again.
        causes: The same by cause.
        lost: Jobs that yield no usable pair and are replaced, or were kept out on purpose, by cause.
        kept: Jobs that have a pair.
        wanted: Pairs that the run is to bring; 0 before it is known.
        opinions: How often judges agree.
        truncated: Accepted answers that stopped at the token limit.
        rows: Rows written to the dataset.
        blocks: Blocks handed to Prefect, done or not.
        prompt_tokens: Input tokens paid for, as reported.
        completion_tokens: Output tokens paid for, as reported.
        waits: Calls that wait to be tried again: until when, on the monotonic clock, and whether their server
            asked for it.
        held: What holds requests back, by model: "limit", "backoff" or "server" (it has enough to do).
        seconds: Wall time of each phase that was left, by phase.
    """

    phase: Phase = Phase.SUBTOPICS
    done: int = 0
    total: int = 0
    paid: Counter[str] = field(default_factory=Counter)
    reused: Counter[str] = field(default_factory=Counter)
    attempts_failed: int = 0
    in_flight: int = 0
    failures: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    wanted: int = 0
    opinions: Opinions = field(default_factory=Opinions)
    truncated: int = 0
    rows: int = 0
    blocks: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    waits: dict[int, tuple[float, bool]] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _began: float = 0.0
    _numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def waiting(self, seconds: float, *, asked: bool) -> Iterator[None]:
        """A call waits to be tried again, at most as long as the block lasts.

        Args:
            seconds: How long.
            asked: Whether its server asked for that.
        """
        number = next(self._numbers)
        self.waits[number] = time.monotonic() + seconds, asked
        try:
            yield
        finally:
            del self.waits[number]

    def begin(self, phase: Phase, total: int) -> None:
        """Enter a phase with `total` items ahead; entering the one it is in begins its count anew."""
        now = time.monotonic()
        if phase is not self.phase:
            self.seconds[self.phase] = now - self._began
            if total:
                log.info("%s: %d items", phase, total)
        if phase is not self.phase or not self.total:
            self._began = now
        self.phase = phase
        self.done = 0
        self.total = total

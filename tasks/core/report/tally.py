"""The rows of a dataset as counts and a sample, in one pass and bounded memory, however long they are."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Final

from tasks.core.lint.rows import BadLine, Sample, read_samples
from tasks.core.printable import visible_text
from tasks.core.thinking import split_thinking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tasks.core.models import Job

SAMPLED: Final = 20
"""Pairs that are shown."""
LONGEST: Final = 4_000
"""Characters of a text that are shown."""
MOST_CRITERIA: Final = 20
MOST_SUBTOPICS: Final = 100_000
"""Names that are counted: those that a file has beyond are no names but noise."""
LENGTH_BINS: Final = 6
"""Bins of lengths for each doubling."""
MARGIN_BINS: Final = 4
"""Bins of margins for each point."""
WIDEST_MARGIN: Final = 4.0
"""Scores are 1 to 5; a margin beyond that is counted at the end."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as the page shows it.

    Attributes:
        text: Its beginning, hidden characters made visible.
        length: Characters of the whole.
    """

    text: str
    length: int

    @property
    def is_cut(self) -> bool:
        """Whether there is more of it."""
        return self.length > LONGEST


@dataclass(frozen=True, slots=True)
class Side:
    """An answer as the page shows it; `reasoning` is None where there is none."""

    answer: Shown
    reasoning: Shown | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A pair as the page shows it; its rows begin in line `row` of the file, from 1, and are `rows` many."""

    row: int
    rows: int
    sub_topic: str
    prompt: Shown
    chosen: Side | None
    rejected: Side | None
    margin: float | None


@dataclass(slots=True)
class Scored:
    """The scores of one criterion as sums: how many answers of each side, and their points."""

    chosen: float = 0.0
    chosen_count: int = 0
    rejected: float = 0.0
    rejected_count: int = 0


class Tally:
    """What stands in the rows.

    Attributes:
        samples: Pairs, or single answers.
        bad_lines: Lines that are no rows.
        chosen_lengths: Chosen answers by `length_bin`.
        rejected_lengths: Rejected answers by the same.
        margins: Pairs by their margin in steps of `1 / MARGIN_BINS`, rounded down.
        scores: The judge's scores by criterion.
        subtopics: Samples by subtopic, as far as it is known.
        kept: The jobs of the samples, in their order, as far as they are known.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        """Begin with nothing.

        Args:
            jobs: Those of the rows: they tell the subtopics where rows do not.
        """
        self.samples = self.bad_lines = 0
        self.chosen_lengths: Counter[int] = Counter()
        self.rejected_lengths: Counter[int] = Counter()
        self.margins: Counter[int] = Counter()
        self.scores: dict[str, Scored] = {}
        self.subtopics: Counter[str] = Counter()
        self.kept: list[Job] = []
        self._jobs = {job.prompt: job for job in jobs}
        self._drawn: list[tuple[int, int, Example]] = []

    def add(self, item: Sample | BadLine) -> None:
        """Take a sample into the counts."""
        if isinstance(item, BadLine):
            self.bad_lines += 1
            return
        self.samples += 1
        if item.chosen is not None:
            self.chosen_lengths[length_bin(len(item.chosen))] += 1
        if item.rejected is not None:
            self.rejected_lengths[length_bin(len(item.rejected))] += 1
        if item.margin is not None:
            margin = min(max(item.margin, -WIDEST_MARGIN), WIDEST_MARGIN)
            self.margins[math.floor(margin * MARGIN_BINS)] += 1
        self._score(item)
        job = self._jobs.get(item.prompt)
        if job is not None:
            self.kept.append(job)
        sub_topic = item.sub_topic or (job.sub_topic if job is not None else "")
        if sub_topic and (sub_topic in self.subtopics or len(self.subtopics) < MOST_SUBTOPICS):
            self.subtopics[sub_topic] += 1
        self._draw(item, sub_topic)

    def examples(self) -> list[Example]:
        """The sample of pairs, in the order of their rows: drawn at random, and always the same of a file."""
        return sorted((example for _, _, example in self._drawn), key=lambda example: example.row)

    def replace_examples(self, by_row: Mapping[int, Example]) -> None:
        """Show these texts in place of those that were drawn, as far as there are any."""
        self._drawn = [
            (order, row, replace(example, chosen=new.chosen, rejected=new.rejected))
            if (new := by_row.get(row))
            else (order, row, example)
            for order, row, example in self._drawn
        ]

    def _score(self, item: Sample) -> None:
        for side, scores in (("chosen", item.chosen_scores), ("rejected", item.rejected_scores)):
            for name, score in scores.items():
                scored = self.scores.get(name)
                if scored is None:
                    if len(self.scores) >= MOST_CRITERIA:
                        continue
                    scored = self.scores[name] = Scored()
                if side == "chosen":
                    scored.chosen, scored.chosen_count = scored.chosen + score, scored.chosen_count + 1
                else:
                    scored.rejected, scored.rejected_count = (
                        scored.rejected + score,
                        scored.rejected_count + 1,
                    )

    def _draw(self, item: Sample, sub_topic: str) -> None:
        # The greatest is the first that goes: what stays are the rows with the smallest digests.
        order = -int.from_bytes(blake2b(str(item.row).encode(), digest_size=8).digest())
        if len(self._drawn) < SAMPLED:
            heappush(self._drawn, (order, item.row, example_of(item, sub_topic)))
        elif order > self._drawn[0][0]:
            heappushpop(self._drawn, (order, item.row, example_of(item, sub_topic)))


def tally_session(folder: Path, jobs: Iterable[Job]) -> Tally:
    """The tally of a session's dataset; its sample shows the reasoning, where there is a file with it.

    Args:
        folder: The session's folder.
        jobs: Its jobs.

    Raises:
        UsageError: The dataset cannot be read.
    """
    tally = Tally(jobs)
    for item in read_samples(folder / "dataset.jsonl"):
        tally.add(item)
    reasoning = folder / "dataset_reasoning.jsonl"
    if reasoning.is_file():
        # The same rows in the same order; the two of a kto pair stand below each other.
        lines = {line for item in tally.examples() for line in range(item.row, item.row + item.rows)}
        found = (item for item in read_samples(reasoning, lines) if isinstance(item, Sample))
        tally.replace_examples({item.row: example_of(item, "") for item in found})
    return tally


def length_bin(characters: int) -> int:
    """The bin that a length belongs to: `LENGTH_BINS` for each doubling."""
    return math.floor(LENGTH_BINS * math.log2(max(characters, 1)))


def example_of(item: Sample, sub_topic: str) -> Example:
    """A sample as the page shows it; nothing of its long texts is held."""
    return Example(
        row=item.row,
        rows=item.rows,
        sub_topic=sub_topic,
        prompt=_shown(item.prompt),
        chosen=_side(item.chosen),
        rejected=_side(item.rejected),
        margin=item.margin,
    )


def _side(text: str | None) -> Side | None:
    if text is None:
        return None
    thought = split_thinking(text)
    # Spoken about, or all there is: then it is shown as it stands.
    if not thought.reasoning or not thought.answer:
        return Side(_shown(text))
    return Side(_shown(thought.answer), _shown(thought.reasoning))


def _shown(text: str) -> Shown:
    return Shown(visible_text(text, LONGEST), len(text))

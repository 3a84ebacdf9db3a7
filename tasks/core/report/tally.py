"""What a report says: its facts, the rows as counts and a sample, and how they cover their topic.

The rows are read in one pass and in bounded memory, however long they are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from heapq import heappush, heappushpop
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Float, Integer, cast, func, select

from tasks.core.answers.thinking import split_thinking
from tasks.core.cost import Bill, Prices
from tasks.core.ledger.schema import calls
from tasks.core.ledger.sessions import spent_by
from tasks.core.printable import visible_text
from tasks.core.questions import kinds_of, model_of
from tasks.core.rows.formats import text_of
from tasks.core.rows.samples import BadLine, Sample, read_samples
from tasks.core.sameness import most_alike, shares, spread
from tasks.core.session.retrying import unusable_answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Job
    from tasks.core.progress import Opinions
    from tasks.core.sameness import Alike
    from tasks.core.session.record import SessionRecord
    from tasks.core.session.retrying import Answered


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
class PageText:
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

    answer: PageText
    reasoning: PageText | None = None


@dataclass(frozen=True, slots=True)
class PageExample:
    """A pair as the page shows it; its rows begin in line `row` of the file, from 1, and are `rows` many."""

    row: int
    rows: int
    sub_topic: str
    prompt: PageText
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
        self._jobs = {text_of(job): job for job in jobs}
        self._drawn: list[tuple[int, int, PageExample]] = []

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

    def examples(self) -> list[PageExample]:
        """The sample of pairs, in the order of their rows: drawn at random, and always the same of a file."""
        return sorted((example for _, _, example in self._drawn), key=lambda example: example.row)

    def show_reasoning(self, path: Path) -> None:
        """Show the sample with its reasoning, from the file with the same rows in the same order."""
        # The two of a kto pair stand below each other.
        lines = {line for item in self.examples() for line in range(item.row, item.row + item.rows)}
        found = (item for item in read_samples(path, lines) if isinstance(item, Sample))
        self.replace_examples({item.row: example_of(item, "") for item in found})

    def replace_examples(self, by_row: Mapping[int, PageExample]) -> None:
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


def length_bin(characters: int) -> int:
    """The bin that a length belongs to: `LENGTH_BINS` for each doubling."""
    return math.floor(LENGTH_BINS * math.log2(max(characters, 1)))


def example_of(item: Sample, sub_topic: str) -> PageExample:
    """A sample as the page shows it; nothing of its long texts is held."""
    return PageExample(
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


def _shown(text: str) -> PageText:
    return PageText(visible_text(text, LONGEST), len(text))


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


def cover(facts: ReportFacts, tally: Tally) -> list[Covered]:
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


BINS: Final = 80
"""Stretches of time that the rate is counted in."""
SHORTEST: Final = 0.25
"""Seconds of such a stretch, at least."""


@dataclass(frozen=True, slots=True)
class AnswerRate:
    """Answers over time.

    Attributes:
        began: When the first one came, in seconds since 1970.
        step: Seconds of each stretch of time.
        counts: Answers in each stretch, by the purpose of their calls; all are equally many.
    """

    began: float
    step: float
    counts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What is known of a session.

    Attributes:
        session: Its name.
        topic: What it is about.
        mode: Its dataset mode.
        created: When it began, in seconds since 1970.
        seconds: Wall time of its runs, all together.
        hosts: The host of the model behind each kind of call, by purpose and name.
        wanted: Pairs that the configuration asks for.
        subtopics: The subtopics, in their order.
        shares: Pairs that each of them is to bring.
        jobs: The prompts that were answered, or should have been.
        dropped: Prompts that were left out before they were answered, as `duplicate` or `near_duplicate`.
        lost: Jobs that yielded no usable pair, by cause: `filtered` by the judge's thresholds, refused, …
        failed: Jobs that may yet come to a pair, by the cause of their failure.
        bill: What was paid for.
        prices: What that is charged at.
        rate: Answers over time; None when nothing was paid for.
        answered: An answer of each cause that could not be used.
        opinions: How often judges agree, in words.
    """

    session: str
    topic: str
    mode: str
    created: float
    seconds: float
    hosts: Mapping[tuple[str, str], str]
    wanted: int
    subtopics: Sequence[str]
    shares: Mapping[str, int]
    jobs: Sequence[Job]
    dropped: Mapping[str, int]
    lost: Mapping[str, int]
    failed: Mapping[str, int]
    bill: Bill = field(default_factory=Bill)
    prices: Prices = field(default_factory=lambda: Prices({}))
    rate: AnswerRate | None = None
    answered: Sequence[Answered] = ()
    opinions: Sequence[str] = ()


async def facts_of(
    ledger: Ledger,
    record: SessionRecord,
    name: str,
    config: Config,
    *,
    subtopics: Sequence[str],
    jobs: Sequence[Job],
    dropped: Mapping[str, int],
    lost: Mapping[str, int],
    failed: Mapping[str, int],
    opinions: Opinions,
) -> ReportFacts:
    """The facts of a session, with what the ledger knows of it.

    Args:
        ledger: The ledger.
        record: The session's record.
        name: Its name.
        config: Its configuration.
        subtopics: See `ReportFacts`.
        jobs: See `ReportFacts`.
        dropped: See `ReportFacts`.
        lost: See `ReportFacts`.
        failed: See `ReportFacts`.
        opinions: How often its judges agree.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    generation = config.generation
    hosts = {}
    for kind in kinds_of(config):
        model = model_of(config, kind)
        hosts[str(kind.purpose), model.model_name] = urlsplit(model.base_url).netloc
    return ReportFacts(
        session=name,
        topic=generation.main_topic,
        mode=generation.dataset_mode,
        created=record.created,
        seconds=record.seconds,
        hosts=hosts,
        wanted=len(jobs) if record.adopted else generation.wanted_pairs,
        subtopics=subtopics,
        shares=Counter(job.sub_topic for job in jobs)
        if record.adopted
        else shares_of(subtopics, generation.wanted_pairs),
        jobs=jobs,
        dropped=dropped,
        lost=lost,
        failed=failed,
        bill=await spent_by(ledger, record.id),
        prices=Prices(config.pricing),
        rate=await rate_of(ledger, record.id),
        answered=await unusable_answers(ledger, record, of_each=1, jobs=jobs),
        opinions=opinions.lines(),
    )


def shares_of(subtopics: Sequence[str], wanted: int) -> dict[str, int]:
    """How many pairs each subtopic is to bring; nothing those beyond as many as pairs are wanted."""
    asked = subtopics[:wanted]
    return dict(zip(asked, shares(wanted, len(asked)), strict=True)) if asked else {}


async def rate_of(ledger: Ledger, session: str) -> AnswerRate | None:
    """When the answers that a session paid for came; None when there are none.

    Args:
        ledger: The ledger.
        session: The session's id.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    ours = calls.c.session == session
    ends = select(func.min(calls.c.finished), func.max(calls.c.finished)).where(ours)
    async with ledger.transaction("read") as connection:
        began, ended = (await connection.execute(ends)).tuples().one()
        if began is None:
            return None
        step = max(SHORTEST, (ended - began) / BINS)
        # Every database rounds to the nearest, and not every one has a floor.
        place = cast(func.round(cast((calls.c.finished - began) / step, Float) - 0.5), Integer)
        query = select(calls.c.purpose, place, func.count()).where(ours).group_by(calls.c.purpose, place)
        found: dict[str, Counter[int]] = {}
        for purpose, at, count in (await connection.execute(query)).tuples():
            found.setdefault(purpose, Counter())[min(max(0, at), BINS - 1)] += count
    length = 1 + max(max(counts) for counts in found.values())
    return AnswerRate(
        began, step, {name: [counts[at] for at in range(length)] for name, counts in found.items()}
    )

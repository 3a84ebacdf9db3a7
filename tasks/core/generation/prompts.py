"""Phase 2: the prompts that may be answered, each subtopic's own, in order, without what is double.

What a subtopic is asked does not depend on how many of its prompts are needed: every request asks for
`num_prompts_per_subtopic`, and what is not needed yet waits. So a re-run that needs more of them, or fewer,
walks the same path through the ledger. A subtopic that came out short is asked again, for other prompts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.core.answers.usable import read_items
from tasks.core.errors import CallError, PhaseError
from tasks.core.generation.run import all_of, failure_of
from tasks.core.models import QUESTION_REFUSED, UNUSABLE, Job, Phase, Purpose
from tasks.core.sameness import Sieve, drop_duplicates, shares

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.run import Run
    from tasks.core.models import Failure


log = logging.getLogger("vellumforge.candidates")

SAMPLES_A_ROUND = 1 << 16
"""Samples of a subtopic that belong to one round, whether or not its messages differ from those before: more
than any subtopic is tried. It is no setting's business, so that a re-run with other retries asks the same."""


@dataclass(frozen=True, slots=True)
class Subtopic:
    """A subtopic with its place in the list, which decides the ids of its jobs."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class SubtopicPrompts:
    """The prompts that a subtopic was answered with, in order, or why there are none."""

    subtopic: Subtopic
    prompts: tuple[str, ...]
    failure: Failure | None = None

    def with_prompts(self, prompts: Iterable[str], failure: Failure | None) -> SubtopicPrompts:
        """The same subtopic with other prompts."""
        return SubtopicPrompts(self.subtopic, tuple(prompts), self.failure or failure)


@dataclass(frozen=True, slots=True)
class PromptWish:
    """What a subtopic is asked for: prompts other than these, in a round counted from 0."""

    subtopic: Subtopic
    exclude: tuple[str, ...] = ()
    round: int = 0


async def ask_all(run: Run, wishes: Sequence[PromptWish]) -> list[SubtopicPrompts]:
    """Ask subtopics for prompts, each in a slot of its own; those that failed are tried again.

    That is done before any answer is looked at: which prompts are double must not depend on what failed.
    Those that a server refused are asked until it is known whether it refuses them for good.
    """
    found = await _ask_once(run, wishes)
    for again in itertools.count():
        used_up = again >= run.config.generation.prompt_retry_attempts
        failed = [
            place
            for place, entry in enumerate(found)
            if entry.failure and (run.is_in_doubt(entry.failure) or not (used_up or entry.failure.is_final))
        ]
        if not failed:
            break
        # The same requests: a re-run, in which the first of them is answered, must not ask anything else.
        answers = await _ask_once(run, [wishes[place] for place in failed])
        for place, answer in zip(failed, answers, strict=True):
            found[place] = answer
    return found


async def _ask_once(run: Run, wishes: Sequence[PromptWish]) -> list[SubtopicPrompts]:
    known = await run.client.recall(_request(run, wish, 0) for wish in wishes)
    return await all_of(_ask(run, wish, known) for wish in wishes)


def _request(run: Run, wish: PromptWish, sample: int) -> ChatRequest:
    wanted = run.config.generation.num_prompts_per_subtopic
    first = wish.round * SAMPLES_A_ROUND
    return run.questions.prompts(wish.subtopic.name, wanted, wish.exclude, first + sample)


async def _ask(run: Run, wish: PromptWish, known: dict[bytes, Answer | None]) -> SubtopicPrompts:
    subtopic = wish.subtopic
    try:
        async with run.generating:
            prompts = await run.ask_until_usable(
                lambda sample: _request(run, wish, sample), _read_prompts, known
            )
    except CallError as error:
        failure = failure_of(error, Phase.PROMPTS, subtopic.name, Purpose.PROMPTS)
        return SubtopicPrompts(subtopic, (), failure)
    wanted = run.config.generation.num_prompts_per_subtopic
    return SubtopicPrompts(subtopic, tuple(drop_duplicates(prompts, set())[:wanted]))


def _read_prompts(answer: Answer) -> tuple[str, ...]:
    return read_items(answer, "prompts")


def numbered(config: Config, names: Sequence[str]) -> list[Subtopic]:
    """The subtopics that are asked for prompts: no more of them than pairs are wanted."""
    return [Subtopic(index, name) for index, name in enumerate(names[: config.generation.wanted_pairs])]


async def write_prompts(run: Run, subtopics: Sequence[Subtopic]) -> list[SubtopicPrompts]:
    """Ask for the prompts of some subtopics, all at once; those that failed are tried again.

    Returns:
        One entry a subtopic, in their order, each with at most `num_prompts_per_subtopic` prompts,
        without duplicates of its own.
    """
    return await ask_all(run, [PromptWish(subtopic) for subtopic in subtopics])


async def complete_prompts(run: Run, found: Sequence[SubtopicPrompts]) -> Candidates:
    """Drop what is double over the whole run and ask the subtopics that are short for other prompts.

    Args:
        run: The run.
        found: All subtopics' prompts, in the order of subtopics.
    """
    candidates = Candidates(run, found)
    await candidates.begin()
    return candidates


def jobs_of(run: Run, found: Sequence[SubtopicPrompts]) -> list[Job]:
    """The jobs of the run, by id.

    Raises:
        PhaseError: Fewer subtopics than `min_success_rate` have prompts.
    """
    generation = run.config.generation
    answered = sum(1 for entry in found if entry.prompts)
    rate = answered / len(found)
    if rate < generation.min_success_rate or not answered:
        failures = [entry.failure for entry in found if entry.failure]
        reason = f"; the first failed with: {failures[0].message}" if failures else ""
        raise PhaseError(
            f"only {answered} of {len(found)} subtopics have prompts: {rate:.0%}, "
            f"where generation.min_success_rate asks for {generation.min_success_rate:.0%}{reason}; "
            "what was answered is kept, run again to go on"
        )
    return [
        Job(
            id=entry.subtopic.index * generation.num_prompts_per_subtopic + position,
            main_topic=generation.main_topic,
            sub_topic=entry.subtopic.name,
            prompt=prompt,
        )
        for entry in found
        for position, prompt in enumerate(entry.prompts)
    ]


BARREN_ROUNDS = 2
"""Requests in a row that may bring nothing new before a subtopic is taken to have no more."""

AT_ONCE = 100
"""Prompts that are looked at, in some ten milliseconds, before a run that is stopped is looked for."""


@dataclass(slots=True)
class _Line:
    """A subtopic's prompts: those that count, and those that wait to be looked at.

    Attributes:
        entry: What it was first answered with.
        kept: The prompts that count.
        waiting: What came and is not needed yet.
        round: The number of the next request.
        barren: Requests in a row that brought nothing new.
        failure: Why its last request brought nothing, or None.
        owed: Prompts that it was to bring when that failed.
    """

    entry: SubtopicPrompts
    kept: list[str] = field(default_factory=list)
    waiting: deque[str] = field(default_factory=deque)
    round: int = 1
    barren: int = 0
    failure: Failure | None = None
    owed: int = 0


class Candidates:
    """The prompts of a run, of which more can be had."""

    def __init__(self, run: Run, found: Sequence[SubtopicPrompts]) -> None:
        """Begin with what the subtopics were answered with, in their order."""
        self._run = run
        self._sieve = Sieve(run.config.generation.similarity_threshold)
        self._lines = [_Line(entry, waiting=deque(entry.prompts), failure=entry.failure) for entry in found]
        generation = run.config.generation
        self._next_id = generation.num_subtopics * generation.num_prompts_per_subtopic

    @property
    def names(self) -> list[str]:
        """The subtopics, in their order."""
        return [line.entry.subtopic.name for line in self._lines]

    @property
    def found(self) -> list[SubtopicPrompts]:
        """The subtopics with the prompts that count, those of lower subtopics first."""
        return [line.entry.with_prompts(line.kept, line.failure) for line in self._lines]

    @property
    def dropped(self) -> dict[str, int]:
        """Prompts that were left out, as `duplicate` or `near_duplicate`."""
        return dict(self._sieve.dropped)

    def has_more(self, place: int) -> bool:
        """Whether a subtopic may bring another prompt."""
        line = self._lines[place]
        return bool(line.waiting) or (line.failure is None and line.barren < BARREN_ROUNDS)

    def has_failed(self, place: int) -> bool:
        """Whether a subtopic's request failed in a way that asking again may mend."""
        failure = self._lines[place].failure
        return failure is not None and not failure.is_final

    @property
    def failed(self) -> set[int]:
        """The places of the subtopics whose request failed so."""
        return {place for place in range(len(self._lines)) if self.has_failed(place)}

    @property
    def refused(self) -> int:
        """Subtopics whose last request a server refuses for good."""
        return self._failed_by({QUESTION_REFUSED})

    @property
    def unreadable(self) -> int:
        """Subtopics whose last request brought no list, in all tries that are allowed."""
        return self._failed_by(UNUSABLE)

    def _failed_by(self, causes: Container[str]) -> int:
        failures = (line.failure for line in self._lines)
        return sum(failure is not None and failure.cause in causes for failure in failures)

    def owed(self, place: int) -> int:
        """Prompts for which a subtopic is still to be asked, by a resume."""
        return self._lines[place].owed if self.has_failed(place) else 0

    async def begin(self) -> None:
        """Give each subtopic its share of prompts, up to `num_prompts_per_subtopic`.

        Those that are short are asked again, `prompt_retry_attempts` times; one whose last request failed is
        put on the list of failures.
        """
        generation = self._run.config.generation
        most = generation.num_prompts_per_subtopic
        wanted = [most] * len(self._lines)
        if generation.target_pairs:
            wanted = [min(share, most) for share in shares(generation.target_pairs, len(self._lines))]
        for line, count in zip(self._lines, wanted, strict=True):
            await self._take(line, count)
        asked = [place for place, line in enumerate(self._lines) if line.failure is None]
        for _ in range(generation.prompt_retry_attempts):
            lines = {place: self._lines[place] for place in asked}
            # One that failed waits for a resume: what it brings now would come in another order then.
            short = [at for at, line in lines.items() if not line.failure and len(line.kept) < wanted[at]]
            if not short:
                break
            log.info("%d subtopics are short of prompts and asked again", len(short))
            await self._ask(short, wanted)
        await self._end(asked, wanted)

    async def more(self, needs: Sequence[int]) -> list[Job]:
        """As many further jobs of each subtopic as are needed, or fewer where it has no more that are new."""
        goals = [len(line.kept) + need for line, need in zip(self._lines, needs, strict=True)]
        before = [len(line.kept) for line in self._lines]
        for line, goal in zip(self._lines, goals, strict=True):
            await self._take(line, goal)
        asked = set()
        while short := [
            place
            for place, line in enumerate(self._lines)
            if len(line.kept) < goals[place] and self.has_more(place)
        ]:
            log.info("%d subtopics are asked for further prompts", len(short))
            asked.update(short)
            await self._ask(short, goals)
        await self._end(sorted(asked), goals)
        topic, jobs = self._run.config.generation.main_topic, []
        for line, start in zip(self._lines, before, strict=True):
            for prompt in line.kept[start:]:
                jobs.append(Job(self._next_id, topic, line.entry.subtopic.name, prompt))
                self._next_id += 1
        return jobs

    async def _take(self, line: _Line, count: int) -> None:
        """Let prompts count until they are enough; what is too many waits, for another may need it."""
        while line.waiting and len(line.kept) < count:
            most = min(count - len(line.kept), len(line.waiting), AT_ONCE)
            looked_at = [line.waiting.popleft() for _ in range(most)]
            # Elsewhere, for it takes a while: calls and signals go on meanwhile.
            line.kept.extend(await asyncio.to_thread(self._sieve.fresh, looked_at))

    async def _ask(self, places: Sequence[int], goals: Sequence[int]) -> None:
        """Ask subtopics for prompts other than those that they have, and take what is needed."""
        lines = [self._lines[place] for place in places]
        wishes = [PromptWish(line.entry.subtopic, self._exclusion(line), line.round) for line in lines]
        for place, answer in zip(places, await ask_all(self._run, wishes), strict=True):
            line, before = self._lines[place], len(self._lines[place].kept)
            line.failure = answer.failure
            if answer.failure:
                continue  # The next time it is asked the same, as a re-run will.
            line.round += 1
            line.waiting.extend(answer.prompts)
            await self._take(line, goals[place])
            line.barren = 0 if len(line.kept) > before else line.barren + 1

    def _exclusion(self, line: _Line) -> tuple[str, ...]:
        """The prompts that a subtopic is told not to repeat: those that count, and the first that came."""
        limit = self._run.config.generation.max_exclusion_list_size
        return tuple([*line.kept, *line.entry.prompts][-limit:] if limit else ())

    async def _end(self, places: Sequence[int], goals: Sequence[int]) -> None:
        """Note what of the subtopics that were asked failed."""
        failures = []
        for place in places:
            line = self._lines[place]
            if line.failure is not None:
                line.owed = goals[place] - len(line.kept)
                failures.append(line.failure)
        await self._run.list_failures(failures)


class PairQuota:
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

    def is_exhausted(self) -> bool:
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

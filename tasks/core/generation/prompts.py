"""Phase 2: the prompts of each subtopic.

A subtopic is asked for its prompts on its own; then duplicates over the whole run are dropped in the order
of subtopics, and those that came out short are asked again, for other prompts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import CallError, PhaseError, UnusableAnswerError
from tasks.core.models import Job, Phase, Purpose
from tasks.core.parsing import parse_items
from tasks.core.run import all_of, failure_of
from tasks.core.selection import drop_duplicates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.models import Failure
    from tasks.core.run import Run

log = logging.getLogger("vellumforge.prompts")

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


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a subtopic is asked for: prompts other than these, in a round counted from 0."""

    subtopic: Subtopic
    exclude: tuple[str, ...] = ()
    round: int = 0


async def write_prompts(run: Run, subtopics: Sequence[Subtopic]) -> list[SubtopicPrompts]:
    """Ask for the prompts of some subtopics, all at once; those that failed are tried again.

    Returns:
        One entry a subtopic, in their order, each with at most `num_prompts_per_subtopic` prompts,
        without duplicates of its own.
    """
    found = await _ask_all(run, [_Wish(subtopic) for subtopic in subtopics])
    for _ in range(run.config.generation.prompt_retry_attempts):
        failed = [place for place, entry in enumerate(found) if entry.failure]
        if not failed:
            break
        # The same requests: a re-run, in which the first of them is answered, must not ask anything else.
        answers = await _ask_all(run, [_Wish(found[place].subtopic) for place in failed])
        for place, answer in zip(failed, answers, strict=True):
            found[place] = answer
    return found


async def complete_prompts(run: Run, found: Sequence[SubtopicPrompts]) -> list[SubtopicPrompts]:
    """Drop duplicates over the whole run and ask those that are short for other prompts.

    Args:
        run: The run.
        found: All subtopics' prompts, in the order of subtopics.

    Returns:
        The same subtopics with the prompts that count; those of a lower subtopic win. One that stays
        short because its last request failed is put on the list of failures.
    """
    wanted = run.config.generation.num_prompts_per_subtopic
    seen: set[str] = set()
    kept = [drop_duplicates(entry.prompts, seen) for entry in found]
    rounds = [1] * len(found)
    failed: dict[int, Failure] = {}
    for _ in range(run.config.generation.prompt_retry_attempts):
        short = [
            place for place, entry in enumerate(found) if not entry.failure and len(kept[place]) < wanted
        ]
        if not short:
            break
        log.info("%d subtopics are short of prompts and asked again", len(short))
        wishes = [
            _Wish(found[place].subtopic, _exclusion(run, kept[place], found[place]), rounds[place])
            for place in short
        ]
        for place, answer in zip(short, await _ask_all(run, wishes), strict=True):
            failed.pop(place, None)
            if answer.failure:
                failed[place] = answer.failure
                continue  # The next time it is asked the same, as a re-run will.
            rounds[place] += 1
            for prompt in answer.prompts:
                # What is too many is not marked as seen: another subtopic may need it.
                if len(kept[place]) < wanted:
                    kept[place].extend(drop_duplicates([prompt], seen))
    await run.list_failures(failed.values())
    return [
        SubtopicPrompts(entry.subtopic, tuple(prompts), entry.failure or failed.get(place))
        for place, (entry, prompts) in enumerate(zip(found, kept, strict=True))
    ]


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


def _exclusion(run: Run, kept: Sequence[str], entry: SubtopicPrompts) -> tuple[str, ...]:
    """The prompts that a subtopic is told not to repeat: those that count, and those it first came with."""
    limit = run.config.generation.max_exclusion_list_size
    return tuple([*kept, *entry.prompts][-limit:] if limit else ())


async def _ask_all(run: Run, wishes: Sequence[_Wish]) -> list[SubtopicPrompts]:
    """Ask subtopics for prompts, each in a slot of its own."""
    known = await run.client.recall(_request(run, wish, 0) for wish in wishes)
    return await all_of(_ask(run, wish, known) for wish in wishes)


def _request(run: Run, wish: _Wish, sample: int) -> ChatRequest:
    wanted = run.config.generation.num_prompts_per_subtopic
    first = wish.round * SAMPLES_A_ROUND
    return run.questions.prompts(wish.subtopic.name, wanted, wish.exclude, first + sample)


async def _ask(run: Run, wish: _Wish, known: dict[bytes, Answer | None]) -> SubtopicPrompts:
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
    if items := parse_items(answer.content):
        return items
    raise UnusableAnswerError("no_list", "the answer holds no list of prompts")

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

    from tasks.core.llm.types import Answer
    from tasks.core.models import Failure
    from tasks.core.run import Run

log = logging.getLogger("vellumforge.prompts")


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


async def write_prompts(run: Run, subtopics: Sequence[Subtopic]) -> list[SubtopicPrompts]:
    """Ask for the prompts of some subtopics, all at once.

    Returns:
        One entry a subtopic, in their order, each with at most `num_prompts_per_subtopic` prompts,
        without duplicates of its own.
    """
    return await _ask_all(run, [(subtopic, ()) for subtopic in subtopics], round_number=0)


async def complete_prompts(run: Run, found: Sequence[SubtopicPrompts]) -> list[SubtopicPrompts]:
    """Drop duplicates over the whole run and ask those that are short for other prompts.

    Args:
        run: The run.
        found: All subtopics' prompts, in the order of subtopics.

    Returns:
        The same subtopics with the prompts that count; those of a lower subtopic win.
    """
    wanted = run.config.generation.num_prompts_per_subtopic
    seen: set[str] = set()
    kept = [drop_duplicates(entry.prompts, seen) for entry in found]
    for round_number in range(1, run.config.generation.prompt_retry_attempts + 1):
        short = [
            place for place, entry in enumerate(found) if not entry.failure and len(kept[place]) < wanted
        ]
        if not short:
            break
        log.info("%d subtopics are short of prompts and asked again", len(short))
        limit = run.config.generation.max_exclusion_list_size
        asked = [
            (found[place].subtopic, tuple([*kept[place], *found[place].prompts][-limit:] if limit else ()))
            for place in short
        ]
        answers = await _ask_all(run, asked, round_number=round_number)
        for place, answer in zip(short, answers, strict=True):
            fresh = drop_duplicates(answer.prompts, seen)
            kept[place].extend(fresh[: wanted - len(kept[place])])
    return [
        SubtopicPrompts(entry.subtopic, tuple(prompts), entry.failure)
        for entry, prompts in zip(found, kept, strict=True)
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


async def _ask_all(
    run: Run, asked: Sequence[tuple[Subtopic, tuple[str, ...]]], *, round_number: int
) -> list[SubtopicPrompts]:
    """Ask subtopics for prompts other than those excluded, each in a slot of its own."""
    first = _first_sample(run, round_number)
    wanted = run.config.generation.num_prompts_per_subtopic
    known = await run.client.recall(
        run.questions.prompts(subtopic.name, wanted, exclude, first) for subtopic, exclude in asked
    )
    return await all_of(_ask(run, subtopic, exclude, first, known) for subtopic, exclude in asked)


def _first_sample(run: Run, round_number: int) -> int:
    """Each round has samples of its own, whether or not its messages differ."""
    return round_number * (run.tries(Purpose.PROMPTS) + 1)


async def _ask(
    run: Run,
    subtopic: Subtopic,
    exclude: tuple[str, ...],
    first: int,
    known: dict[bytes, Answer | None],
) -> SubtopicPrompts:
    wanted = run.config.generation.num_prompts_per_subtopic
    try:
        async with run.generating:
            prompts = await run.ask_until_usable(
                lambda sample: run.questions.prompts(subtopic.name, wanted, exclude, first + sample),
                _read_prompts,
                known,
            )
    except CallError as error:
        failure = failure_of(error, Phase.PROMPTS, subtopic.name, Purpose.PROMPTS)
        return SubtopicPrompts(subtopic, (), failure)
    return SubtopicPrompts(subtopic, tuple(drop_duplicates(prompts, set())[:wanted]))


def _read_prompts(answer: Answer) -> tuple[str, ...]:
    if items := parse_items(answer.content):
        return items
    raise UnusableAnswerError("no_list", "the answer holds no list of prompts")

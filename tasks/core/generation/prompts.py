"""Phase 2: the prompts of each subtopic.

A subtopic is asked for its prompts on its own; then what is double over the whole run is dropped in the order
of subtopics, and those that came out short are asked again, for other prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.errors import PhaseError
from tasks.core.generation.asking import Subtopic, Wish, ask_all
from tasks.core.generation.candidates import Candidates
from tasks.core.models import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.models import Config
    from tasks.core.generation.asking import SubtopicPrompts
    from tasks.core.run import Run


def numbered(config: Config, names: Sequence[str]) -> list[Subtopic]:
    """The subtopics that are asked for prompts: no more of them than pairs are wanted."""
    return [Subtopic(index, name) for index, name in enumerate(names[: config.generation.wanted_pairs])]


async def write_prompts(run: Run, subtopics: Sequence[Subtopic]) -> list[SubtopicPrompts]:
    """Ask for the prompts of some subtopics, all at once; those that failed are tried again.

    Returns:
        One entry a subtopic, in their order, each with at most `num_prompts_per_subtopic` prompts,
        without duplicates of its own.
    """
    return await ask_all(run, [Wish(subtopic) for subtopic in subtopics])


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

"""Asking subtopics for prompts: one request a subtopic and round."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from tasks.core.answers.usable import read_items
from tasks.core.errors import CallError
from tasks.core.generation.run import all_of, failure_of
from tasks.core.models import Phase, Purpose
from tasks.core.sameness import drop_duplicates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.run import Run
    from tasks.core.models import Failure


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
    for again in count():
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

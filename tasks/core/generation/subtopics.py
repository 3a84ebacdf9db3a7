"""Phase 1: the subtopics of a topic.

The list is grown: chunks are asked for all at once, what is new is taken over in the order of the chunks,
and what is missing is asked for again with the exclusion list. A count that the list was once grown to is
a milestone: a longer list is grown through the same milestones, so that its beginning is the shorter one
and only what is new is paid for; a shorter list is cut from the longer one and costs nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING

import orjson

from tasks.core.answers.usable import read_items
from tasks.core.errors import CallError, PhaseError, UnusableAnswerError
from tasks.core.generation.run import REFUSED, all_of, failure_of, is_broken
from tasks.core.models import Failure, Phase, Purpose
from tasks.core.sameness import Sieve, chunk_sizes, exclusion_list, with_buffer

if TYPE_CHECKING:
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.run import Run

log = logging.getLogger("vellumforge.subtopics")

BARREN_ROUNDS = 3
"""Rounds in a row that may bring nothing new before the model is taken to have no more."""


BROKEN_ROUNDS = 4
"""Rounds that are not counted among those, where an answer was broken by the form it was asked for in: two
for each step from a schema to none."""


async def find_subtopics(run: Run) -> tuple[str, ...]:
    """The subtopics of the configuration's topic, in order.

    Returns:
        As many as were asked for, or fewer when the model has no more that are new; those that were given,
        where they were.

    Raises:
        PhaseError: A request failed for good, or no subtopic came at all. Answers are kept; run again.
    """
    if given := run.config.input.subtopics:
        return tuple(given)
    wanted = run.config.generation.num_subtopics
    run.progress.begin(Phase.SUBTOPICS, wanted)
    question = _question(run)
    reached = await run.reached(question)
    grown = _Growth(run)
    for target in _path(reached, wanted):
        await grown.grow_to(target)
    if not grown.items:
        raise PhaseError("no subtopic came out of the model's answers; look at the subtopic template")
    # A shorter list was cut from a longer one: as a milestone it would lead the longer one astray.
    if wanted > max(reached, default=0):
        await run.remember_reached(question, wanted)
    if len(grown.items) < wanted:
        log.warning("the model has %d subtopics of %d; going on with those", len(grown.items), wanted)
    return tuple(grown.items[:wanted])


def _path(reached: list[int], wanted: int) -> list[int]:
    """The counts to grow through: every earlier one up to the first that is enough, else the wanted one."""
    enough = next((count for count in reached if count >= wanted), wanted)
    return [count for count in reached if count < enough] + [enough]


def _question(run: Run) -> bytes:
    """What identifies the list whatever its length: all that its requests are made of, but the count."""
    generation = run.config.generation
    settings = {
        "chunk": generation.subtopic_chunk_size,
        "buffer": generation.over_generation_buffer,
        "exclusion": generation.max_exclusion_list_size,
    }
    sample = run.questions.subtopics(0, "", 0).key + run.questions.subtopics(0, "\N{WHITE SQUARE}", 0).key
    return hashlib.sha256(sample + orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).digest()


class _Growth:
    """The list while it grows; the number of the next chunk makes its request differ from all before."""

    def __init__(self, run: Run) -> None:
        self.items: list[str] = []
        self._run = run
        self._sieve = Sieve(run.config.generation.similarity_threshold)
        self._chunk = 0
        self._broken = False

    async def grow_to(self, target: int) -> None:
        """Ask in rounds until there are `target` items or the model has no more that are new."""
        barren = excused = 0
        while len(self.items) < target and barren < BARREN_ROUNDS:
            before = len(self.items)
            self._broken = False
            await self._round(target - before)
            self._run.progress.done = min(len(self.items), self._run.progress.total)
            if (
                self._broken
                and excused < BROKEN_ROUNDS
                and len(self.items) == before
                and (
                    self._run.policy.mends_forms
                    or await self._run.is_paid(self._requests(target - before)[0])
                )
            ):
                # It is the form that is at fault, which is weakened meanwhile.
                excused += 1
                continue
            barren = barren + 1 if len(self.items) == before else 0

    async def _round(self, missing: int) -> None:
        """Ask for what is missing, chunk by chunk at the same time, and take over what is new."""
        first, requests = self._chunk, self._requests(missing)
        self._chunk += len(requests)
        for items in await self._answers(requests, first):
            # Elsewhere, as for prompts: from some hundred items on it takes a while.
            self.items.extend(await asyncio.to_thread(self._sieve.fresh, items))

    def _requests(self, missing: int) -> list[ChatRequest]:
        """The requests of the next round."""
        generation = self._run.config.generation
        sizes = chunk_sizes(
            with_buffer(missing, generation.over_generation_buffer), generation.subtopic_chunk_size
        )
        exclude = exclusion_list(self.items, generation.max_exclusion_list_size)
        return [
            self._run.questions.subtopics(size, exclude, number)
            for number, size in enumerate(sizes, self._chunk)
        ]

    async def _answers(self, requests: list[ChatRequest], first: int) -> list[tuple[str, ...]]:
        """The items of each chunk, numbered from `first`; an answer without a list, or a refusal, has none.

        Raises:
            PhaseError: A chunk was not answered. Going on without it would build the list on another
                path than a re-run, where the chunk is answered, and throw away what was paid for.
        """
        run = self._run
        known = await run.client.recall(requests)
        outcomes = await all_of(
            self._ask(number, request, known) for number, request in enumerate(requests, first)
        )
        for place, outcome in enumerate(outcomes):
            # What a server refused may have been refused for a moment only.
            if isinstance(outcome, Failure) and run.is_in_doubt(outcome):
                outcomes[place] = await self._ask(first + place, requests[place], known)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        if failures:
            await run.list_failures(failures)
            raise PhaseError(
                f"{len(failures)} of {len(requests)} subtopic requests failed: {failures[0].message}; "
                "what was answered is kept, run again to go on"
            )
        return [outcome for outcome in outcomes if not isinstance(outcome, Failure)]

    async def _ask(
        self, number: int, request: ChatRequest, known: dict[bytes, Answer | None]
    ) -> tuple[str, ...] | Failure:
        async with self._run.generating:
            try:
                answer = await self._run.client.ask(request, known)
            except CallError as error:
                return failure_of(error, Phase.SUBTOPICS, f"chunk {number}", Purpose.SUBTOPICS)
        items: tuple[str, ...] = ()
        broken = False
        try:
            items = read_items(answer, "subtopics")
        except UnusableAnswerError as error:
            broken = error.cause != REFUSED and is_broken(answer)
        self._broken = self._broken or broken
        self._run.client.kept_form(request, kept=not broken)
        return items

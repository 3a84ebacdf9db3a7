"""The three stages of a run: blocks are cut, their tasks awaited, their results collected.

Tasks are awaited in this event loop and never submitted: Prefect gives every submitted task a thread and
a loop of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.core.generation.candidates import spots_of
from tasks.core.generation.pairs import settle
from tasks.core.generation.prompts import jobs_of, numbered
from tasks.core.generation.run import Block, all_of, cut, pair_block_size, prompt_block_size
from tasks.core.generation.waves import make_exactly
from tasks.core.keys import phase_key
from tasks.core.models import Phase
from tasks.core.questions import is_judged
from tasks.phases import completed_prompts, pairs, prompts, replacements, subtopics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.prompts import Candidates, Subtopic, SubtopicPrompts
    from tasks.core.generation.run import Run
    from tasks.core.generation.waves import Made
    from tasks.core.models import Job, Pair
    from tasks.options import BlockTask

JUDGE_BACKLOG = 4096
"""Pairs that may wait for the judge while generating goes on. When it is full the judge is what the whole
run waits for, and waiting costs nothing."""

STRAGGLERS = 256
"""Jobs beyond those at work whose blocks may be begun: a job that waits to try a call again holds up the end
of its block, and must not hold up others."""

_What = TypeVar("_What")


async def find_all_subtopics(run: Run) -> tuple[str, ...]:
    """Stage 1: the subtopics, in order."""
    topic = run.config.generation.main_topic
    block = Block(Phase.SUBTOPICS, _hash(run, Phase.SUBTOPICS), [topic], label="subtopics")
    return await through(run, subtopics, run, block=block)


async def write_all_prompts(run: Run, names: Sequence[str]) -> tuple[Candidates, list[Job]]:
    """Stage 2: the prompts of all subtopics, and the jobs made of them, by id."""
    every = numbered(run.config, names)
    run.progress.begin(Phase.PROMPTS, len(every))
    phase_hash = _hash(run, Phase.PROMPTS)

    async def write(some: Sequence[Subtopic]) -> list[SubtopicPrompts]:
        block = Block(Phase.PROMPTS, phase_hash, some, _label("subtopics", some[0].index, some[-1].index))
        found = await through(run, prompts, run, block=block)
        run.progress.done += len(some)
        return found

    parts = await all_of(write(some) for some in cut(every, prompt_block_size(len(every))))
    found = [entry for part in parts for entry in part]
    await run.list_failures(entry.failure for entry in found if entry.failure)
    block = Block(Phase.PROMPTS, phase_hash, found, label="duplicates and shortages")
    candidates = await through(run, completed_prompts, run, block=block)
    return candidates, jobs_of(run, candidates.found)


async def make_wanted_pairs(
    run: Run, candidates: Candidates, jobs: list[Job], keep: Callable[[Job, Pair | None], None]
) -> Made:
    """Stage 3 where prompts can be replaced: exactly as many pairs as are wanted, as far as they are had.

    The jobs that replace others are added to `jobs`.
    """
    phase_hash = _hash(run, Phase.PROMPTS)
    run.progress.begin(Phase.PAIRS, 0)
    run.progress.wanted = run.config.generation.wanted_pairs
    waves = itertools.count(1)

    async def make(some: Sequence[Job]) -> list[PairsOutcome]:
        return await make_all_pairs(run, some, keep, further=True)

    async def more(needs: Sequence[int]) -> list[Job]:
        wave = next(waves)
        block = Block(Phase.PROMPTS, phase_hash, [[wave, *needs]], label=f"replacements {wave}")
        return await through(run, replacements, candidates, block=block)

    return await make_exactly(run, candidates, jobs, make, more)


async def make_all_pairs(
    run: Run, jobs: Sequence[Job], keep: Callable[[Job, Pair | None], None], *, further: bool = False
) -> list[PairsOutcome]:
    """Stage 3: the pairs of some jobs, handed to `keep`; returns the outcomes of the blocks.

    Those that a server refuses are asked once more when all others are done.

    Args:
        run: The run.
        jobs: The jobs.
        keep: See `make_pairs`.
        further: Whether they come on top of others, which have their place in the progress.
    """
    if further:
        run.progress.total += len(jobs)
    else:
        run.progress.begin(Phase.PAIRS, len(jobs))
        run.progress.wanted = len(jobs)
    phase_hash = _hash(run, Phase.PAIRS)

    async def make(some: Sequence[Job]) -> list[PairsOutcome]:
        size = pair_block_size(len(some))
        window = asyncio.Semaphore(_blocks_at_once(run, size))
        return await all_of(make_block(block, window) for block in cut(some, size))

    async def make_block(some: Sequence[Job], window: asyncio.Semaphore) -> PairsOutcome:
        async with window:
            run.stop.check()
            run.ledger.check()
            block = Block(Phase.PAIRS, phase_hash, some, _label("jobs", some[0].id, some[-1].id))
            return await through(run, pairs, run, keep, block=block)

    return await settle(jobs, make)


def _blocks_at_once(run: Run, size: int) -> int:
    """Enough blocks that `concurrency` jobs are in flight although some blocks are almost done."""
    jobs = 2 * run.config.generation.concurrency + STRAGGLERS
    # A job that waits holds all of its answers.
    jobs += 2 * JUDGE_BACKLOG // max(2, len(spots_of(run.config))) if is_judged(run.config) else 0
    return 1 + -(-jobs // size)


async def through(run: Run, task: BlockTask[_What], *given: Any, block: Block[Any]) -> _What:
    """Put a block through its task, and take what it brought."""
    run.progress.blocks += 1
    return await task(*given, block=block)


def _hash(run: Run, phase: Phase) -> str:
    return phase_key(run.config, phase, run.ledger.id)


def _label(word: str, first: int, last: int) -> str:
    return f"{word[:-1]} {first}" if first == last else f"{word} {first}-{last}"

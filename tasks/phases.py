"""The phases of a run, and a transform, as Prefect tasks over one block each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import complete_prompts, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tasks.options import Found, block_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.prompts import Candidates, Subtopic, SubtopicPrompts
    from tasks.core.generation.run import Block, Run
    from tasks.core.models import Job, Pair
    from tasks.core.rows.transformed import InputRow
    from tasks.core.transform.session import Transform, Transformed


@block_task("subtopics")
async def subtopics(run: Run, _block: Block[str]) -> Found[tuple[str, ...]]:
    """Find the subtopics."""
    found = await find_subtopics(run)
    return Found(found, {"subtopics": len(found)})


@block_task("prompts")
async def prompts(run: Run, block: Block[Subtopic]) -> Found[list[SubtopicPrompts]]:
    """Ask for the prompts of some subtopics; failed when some have none."""
    found = await write_prompts(run, block.items)
    failed = _failed(run, found)
    return Found(
        found, _count(found), f"{failed} of {len(found)} subtopics have no prompts" if failed else ""
    )


@block_task("complete prompts")
async def completed_prompts(run: Run, block: Block[SubtopicPrompts]) -> Found[Candidates]:
    """Replace what is double over the whole run; failed when a request failed and left a subtopic short."""
    candidates = await complete_prompts(run, block.items)
    found = candidates.found
    failed = _failed(run, found)
    return Found(
        candidates,
        _count(found) | candidates.dropped,
        f"{failed} of {len(found)} subtopics are short of prompts" if failed else "",
    )


@block_task("replacements")
async def replacements(candidates: Candidates, block: Block[list[int]]) -> Found[list[Job]]:
    """Find new prompts in place of those that yielded no usable pair; failed when a request failed.

    The block's item is the number of the wave, then how many prompts each subtopic is to bring.
    """
    _, *needs = block.items[0]
    before = candidates.failed
    found = await candidates.more(needs)
    failed = len(candidates.failed - before)
    return Found(
        found,
        {"prompts": len(found)},
        f"{failed} of {len(needs)} subtopics could not be asked for further prompts" if failed else "",
    )


def _failed(run: Run, found: Sequence[SubtopicPrompts]) -> int:
    return sum(1 for entry in found if entry.failure and not run.gives_up(entry.failure))


def _count(found: Sequence[SubtopicPrompts]) -> dict[str, int]:
    return {"prompts": sum(len(entry.prompts) for entry in found)}


@block_task("pairs")
async def pairs(run: Run, keep: Callable[[Job, Pair | None], None], block: Block[Job]) -> Found[PairsOutcome]:
    """Make the pairs of some jobs and hand them to `keep`; failed when some may come about if asked again."""
    outcome = await make_pairs(run, block.items, keep)
    return Found(
        outcome, {"kept": outcome.kept, "lost": len(outcome.lost)}, _failure(outcome, len(block.items))
    )


def _failure(outcome: PairsOutcome, jobs: int) -> str:
    if outcome.in_doubt:
        return (
            f"{len(outcome.in_doubt)} of {jobs} jobs were refused by a server; they are asked "
            "once more when all others are done"
        )
    if outcome.open:
        return f"{outcome.open} of {jobs} jobs failed, the first with: {outcome.failures[0].message}"
    return ""


@block_task("transform")
async def transformed(work: Transform, block: Block[InputRow]) -> Found[Transformed]:
    """Transform some rows; failed when some of them failed."""
    outcome = await work.work(block.items)
    failure = ""
    if outcome.failures:
        failure = (
            f"{len(outcome.failures)} of {len(block.items)} rows failed, "
            f"the first with: {outcome.failures[0].message}"
        )
    return Found(outcome, {"rows": outcome.rows}, failure)

"""Phase 2 as Prefect tasks: one for each block of subtopics, then one over the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.prompts import complete_prompts, write_prompts
from tasks.options import BlockFailedError, block_task

if TYPE_CHECKING:
    from tasks.core.generation.asking import Subtopic, SubtopicPrompts
    from tasks.core.generation.prompts import Candidates
    from tasks.core.generation.run import Block, Run


@block_task("prompts")
async def prompts(run: Run, block: Block[Subtopic]) -> dict[str, int]:
    """Ask for the prompts of some subtopics; returns how many came.

    Raises:
        BlockFailedError: Some subtopics have none.
    """
    found = run.results[block.key] = await write_prompts(run, block.items)
    failed = sum(1 for entry in found if entry.failure and not run.gives_up(entry.failure))
    if failed:
        raise BlockFailedError(f"{failed} of {len(found)} subtopics have no prompts")
    return {"prompts": sum(len(entry.prompts) for entry in found)}


@block_task("complete prompts")
async def completed_prompts(run: Run, block: Block[SubtopicPrompts]) -> dict[str, int]:
    """Replace what is double over the whole run; returns how many prompts there are.

    Raises:
        BlockFailedError: A subtopic stayed short because its request failed.
    """
    candidates = run.results[block.key] = await complete_prompts(run, block.items)
    found = candidates.found
    failed = sum(1 for entry in found if entry.failure and not run.gives_up(entry.failure))
    if failed:
        raise BlockFailedError(f"{failed} of {len(found)} subtopics are short of prompts")
    return {"prompts": sum(len(entry.prompts) for entry in found)} | candidates.dropped


@block_task("replacements")
async def replacements(run: Run, candidates: Candidates, block: Block[list[int]]) -> dict[str, int]:
    """Find new prompts in place of those that yielded no usable pair; returns how many there are.

    The block's item is the number of the wave, then how many prompts each subtopic is to bring.

    Raises:
        BlockFailedError: A request failed.
    """
    _, *needs = block.items[0]
    before = candidates.failed
    found = run.results[block.key] = await candidates.more(needs)
    if failed := len(candidates.failed - before):
        raise BlockFailedError(f"{failed} of {len(needs)} subtopics could not be asked for further prompts")
    return {"prompts": len(found)}

"""Phase 2 as Prefect tasks: one for each block of subtopics, then one over the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.prompts import complete_prompts, write_prompts
from tasks.options import Found, block_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.generation.asking import Subtopic, SubtopicPrompts
    from tasks.core.generation.prompts import Candidates
    from tasks.core.generation.run import Block, Run
    from tasks.core.models import Job


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

"""Phase 1 as a Prefect task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.subtopics import find_subtopics
from tasks.options import block_task

if TYPE_CHECKING:
    from tasks.core.generation.run import Block, Run


@block_task("subtopics")
async def subtopics(run: Run, block: Block[str]) -> dict[str, int]:
    """Find the subtopics; returns how many there are."""
    found = run.results[block.key] = await find_subtopics(run)
    return {"subtopics": len(found)}

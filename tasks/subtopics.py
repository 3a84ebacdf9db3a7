"""Phase 1 as a Prefect task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.subtopics import find_subtopics
from tasks.options import Found, block_task

if TYPE_CHECKING:
    from tasks.core.generation.run import Block, Run


@block_task("subtopics")
async def subtopics(run: Run, _block: Block[str]) -> Found[tuple[str, ...]]:
    """Find the subtopics."""
    found = await find_subtopics(run)
    return Found(found, {"subtopics": len(found)})

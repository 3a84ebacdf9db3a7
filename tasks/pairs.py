"""Phase 3 as a Prefect task over a block of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.pairs import make_pairs
from tasks.options import BlockFailedError, block_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.core.generation.run import Block, Run
    from tasks.core.models import Job, Pair


@block_task("pairs")
async def pairs(run: Run, keep: Callable[[Job, Pair | None], None], block: Block[Job]) -> dict[str, int]:
    """Make the pairs of some jobs and hand them to `keep`; returns how many were kept and lost.

    Raises:
        BlockFailedError: Some jobs failed, and may come about when they are asked again.
    """
    outcome = run.results[block.key] = await make_pairs(run, block.items, keep)
    if outcome.in_doubt:
        raise BlockFailedError(
            f"{len(outcome.in_doubt)} of {len(block.items)} jobs were refused by a server; they are asked "
            "once more when all others are done"
        )
    if outcome.open:
        raise BlockFailedError(
            f"{outcome.open} of {len(block.items)} jobs failed, the first with: {outcome.failures[0].message}"
        )
    return {"kept": outcome.kept, "lost": len(outcome.lost)}

"""Phase 3 as a Prefect task over a block of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.generation.pairs import make_pairs
from tasks.options import Found, block_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.run import Block, Run
    from tasks.core.models import Job, Pair


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

"""A transform as a Prefect task over a block of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.options import Found, block_task

if TYPE_CHECKING:
    from tasks.core.generation.run import Block
    from tasks.core.rows.transformed import InputRow
    from tasks.core.transform.session import Transform, Transformed


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

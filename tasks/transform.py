"""A transform as a Prefect task over a block of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.options import BlockFailedError, block_task

if TYPE_CHECKING:
    from tasks.core.generation.run import Block
    from tasks.core.rows.transformed import InputRow
    from tasks.core.transform.session import Transform


@block_task("transform")
async def transformed(work: Transform, block: Block[InputRow]) -> dict[str, int]:
    """Transform some rows; returns how many there are.

    Raises:
        BlockFailedError: Some rows failed.
    """
    outcome = work.run.results[block.key] = await work.work(block.items)
    if outcome.failures:
        raise BlockFailedError(
            f"{len(outcome.failures)} of {len(block.items)} rows failed, "
            f"the first with: {outcome.failures[0].message}"
        )
    return {"rows": outcome.rows}

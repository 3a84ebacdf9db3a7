"""The flow run as a worker runs it, and again under the same id: `_flow_run [ID]` prints id and state."""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry

from flows.generate import generate


async def _flow_run(known: str) -> str:
    async with get_client() as client:
        if known:
            # What `prefect flow-run retry` and the button in the UI do.
            await client.set_flow_run_state(UUID(known), AwaitingRetry(), force=True)
            flow_run = await client.read_flow_run(UUID(known))
        else:
            flow_run = await client.create_flow_run(generate)
    # The parameters are those of a run in the current folder: there are none.
    state: Any = await run_flow_async(generate, flow_run=flow_run, parameters={}, return_type="state")
    return f"{flow_run.id} {state.type.value}"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(_flow_run("".join(sys.argv[1:]))))

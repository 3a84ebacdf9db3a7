"""A flow of quick tasks on an embedded server, twice; prints what the server recorded of each run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.process.server import EmbeddedServer, settle
from flows.process.settings import set_defaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def main() -> None:
    """`_quick_flow.py HOME COUNT`: writes `[[settled, {state name: task runs}], ...]`."""
    home, count = Path(sys.argv[1]), int(sys.argv[2])
    set_defaults(home)
    with EmbeddedServer(home) as server:
        os.environ.update(server.client_settings)
        quick_flow = _flow(home / "results")
        server.wait_ready()
        json.dump(asyncio.run(_twice(quick_flow, count)), sys.stdout)


def _flow(results: Path) -> Callable[[int], Awaitable[str]]:
    # Only now: the environment is complete.
    from prefect import flow, task  # noqa: PLC0415
    from prefect.runtime import flow_run  # noqa: PLC0415
    from prefect.serializers import JSONSerializer  # noqa: PLC0415

    @task(
        persist_result=True,
        result_storage=results,
        result_serializer=JSONSerializer(object_encoder=None, object_decoder=None),
        cache_key_fn=lambda _, parameters: f"quick-{parameters['number']}",
    )
    async def quick(number: int) -> dict[str, int]:
        return {"number": number}

    @flow
    async def quick_flow(count: int) -> str:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(quick(number))
        return str(flow_run.get_id())

    return quick_flow


async def _twice(quick_flow: Callable[[int], Awaitable[str]], count: int) -> list[Any]:
    answers = []
    for _ in range(2):
        flow_run_id = UUID(await quick_flow(count))
        settled = await settle([flow_run_id], count, timeout=60)
        answers.append([settled, await _states(flow_run_id)])
    return answers


async def _states(flow_run_id: UUID) -> Counter[str]:
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - as above

    chosen = {"flow_run_id": {"any_": [str(flow_run_id)]}}
    async with get_client() as client:
        response = await client.request("POST", "/task_runs/filter", json={"task_runs": chosen})
    return Counter(task_run["state_name"] for task_run in response.json())


if __name__ == "__main__":
    main()

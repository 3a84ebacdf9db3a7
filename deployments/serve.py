"""Serve the deployments of `prefect.yaml` from here, without a work pool: `python -m deployments.serve`.

Each has a name of its own, with `-served` behind it: those of a pool go on beside them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.late import when_used
from flows.process import settings as environment
from flows.process.console import SIGNALS
from flows.process.server import check_api
from flows.process.terminal import PROGRAM, say
from tasks.core.errors import UsageError, VellumforgeError
from tasks.core.printable import reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.deployments.runner import RunnerDeployment

# With Prefect's settings made, and not before.
client, exceptions, automations, objects, runners, runners_deployments, schedules = when_used(
    "prefect.client.orchestration",
    "prefect.exceptions",
    "prefect.events.schemas.automations",
    "prefect.client.schemas.objects",
    "prefect.runner",
    "prefect.deployments.runner",
    "prefect.schedules",
)

DEPLOYMENTS = Path("prefect.yaml")
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
SERVED = "-served"
"""Behind the name of a deployment that is served."""

_COMPARED = ("description", "trigger", "actions")


def main() -> int:
    """Serve until Ctrl+C or SIGTERM; returns the exit code."""
    try:
        listed = read_deployments(DEPLOYMENTS)
        url = environment.configured_api_url()
        if url is None:
            raise UsageError(
                "deployments are served to a Prefect server, and none is configured: start one with "
                "`prefect server start`, and set PREFECT_API_URL to http://127.0.0.1:4200/api"
            )
        # Sets what the user left open; the home is the user's own, for there is a server.
        environment.set_defaults(Path.home() / ".prefect")
        asyncio.run(check_api(url))
        asyncio.run(_serve(listed))
    except VellumforgeError as error:
        return say(error)
    return 0


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """The deployments as `prefect deploy` reads them.

    Raises:
        UsageError: The file cannot be read, or lists none.
    """
    try:
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = reason_of(error)
        raise UsageError(f"{path} cannot be read here, in {Path.cwd()}: {reason}") from error
    listed: list[dict[str, Any]] = (document or {}).get("deployments") or []
    if not listed:
        raise UsageError(f"{path} lists no deployments")
    return listed


async def make_automations() -> None:
    """Have Prefect's server mark runs as crashed whose process is gone: a build step of `prefect.yaml`.

    What is there and the same is left alone, and what somebody switched off stays so. A server that refuses
    is no reason to have no deployments.
    """
    try:
        async with client.get_client() as api:
            for entry in YAML(typ="safe").load(AUTOMATIONS.read_text(encoding="utf-8"))["automations"]:
                wanted = automations.AutomationCore.model_validate(entry)
                known = await api.read_automations_by_name(wanted.name)
                if not known:
                    await api.create_automation(wanted)
                elif any(getattr(known[0], field) != getattr(wanted, field) for field in _COMPARED):
                    await api.update_automation(
                        known[0].id, wanted.model_copy(update={"enabled": known[0].enabled})
                    )
    except (OSError, RuntimeError, httpx.HTTPError, exceptions.PrefectException) as error:
        # Prefect's log may not be shown at all.
        sys.stderr.write(
            f"{PROGRAM}: runs whose process is gone will stay Running, for {AUTOMATIONS.name} is not taken: "
            f"{reason_of(error)}; try `prefect automation create --from-file {AUTOMATIONS}`\n"
        )


async def _serve(listed: list[dict[str, Any]]) -> None:
    """Take runs until SIGINT or SIGTERM, then cancel those that are there, and wait for them."""
    await make_automations()
    # A schedule goes on when nobody serves it for a while, as with a work pool.
    runner = runners.Runner(pause_on_shutdown=False)
    for entry in listed:
        deployment = _deployment(entry)
        await runner.aadd_deployment(deployment)
        sys.stdout.write(f"serving {deployment.flow_name}/{deployment.name}\n")
    sys.stdout.flush()
    serving, told, loop = asyncio.create_task(runner.start()), asyncio.Event(), asyncio.get_running_loop()
    # At its first step it takes SIGTERM, and would kill its runs at it.
    await asyncio.sleep(0)
    for number in SIGNALS:
        loop.add_signal_handler(number, _tell, told, number)
    stop = asyncio.create_task(told.wait())
    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if told.is_set():
        runner.stopping = True
        # All at once: one after the other, as its own `cancel_all` does it, each may take its grace.
        cancel = runner._cancellation_manager.cancel_by_id  # noqa: SLF001 - as above
        await asyncio.gather(*map(cancel, runner._process_manager.flow_run_ids()))  # noqa: SLF001
        await runner.astop()
    await serving


def _tell(told: asyncio.Event, number: int) -> None:
    if told.is_set():
        os._exit(128 + number)
    sys.stderr.write("stopping: runs are cancelled; once more to leave at once\n")
    told.set()


def _deployment(entry: Mapping[str, Any]) -> RunnerDeployment:
    """A deployment like the listed one, but for the work pool, which is not needed here, and the name.

    One name would be one deployment, which who came last takes the runs of.
    """
    limit = entry.get("concurrency_limit")
    made: RunnerDeployment = runners_deployments.RunnerDeployment.from_entrypoint(
        entry["entrypoint"],
        f"{entry['name']}{SERVED}",
        description=entry["description"],
        tags=entry["tags"],
        parameters=entry.get("parameters"),
        concurrency_limit=objects.ConcurrencyLimitConfig(**limit) if limit else None,
        schedules=[schedules.Schedule(**schedule) for schedule in entry.get("schedules") or ()],
    )
    return made


if __name__ == "__main__":
    sys.exit(main())

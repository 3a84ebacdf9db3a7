"""Serve the deployments of `prefect.yaml` from here, without a work pool: `python -m deployments.serve`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.process import settings as environment
from flows.process.server import check_api
from flows.process.terminal import say
from tasks.core.errors import UsageError, VellumforgeError
from tasks.core.printable import reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.deployments.runner import RunnerDeployment

DEPLOYMENTS = Path("prefect.yaml")


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
        _serve(listed)
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


def _serve(listed: list[dict[str, Any]]) -> None:
    # Only now, with Prefect's settings made.
    from prefect import serve  # noqa: PLC0415

    # A schedule goes on when nobody serves it for a while, as with a work pool.
    serve(*map(_deployment, listed), pause_on_shutdown=False)


def _deployment(entry: Mapping[str, Any]) -> RunnerDeployment:
    """A deployment like the listed one, but for the work pool, which is not needed here."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig  # noqa: PLC0415 - as above
    from prefect.deployments.runner import RunnerDeployment  # noqa: PLC0415
    from prefect.schedules import Schedule  # noqa: PLC0415

    limit = entry.get("concurrency_limit")
    return RunnerDeployment.from_entrypoint(
        entry["entrypoint"],
        entry["name"],
        description=entry["description"],
        tags=entry["tags"],
        parameters=entry.get("parameters"),
        concurrency_limit=ConcurrencyLimitConfig(**limit) if limit else None,
        schedules=[Schedule(**schedule) for schedule in entry.get("schedules") or ()],
    )


if __name__ == "__main__":
    sys.exit(main())

"""The flow runs of shards, as Prefect's server knows them: which deployment starts them, and how they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.deployments.flow_runs import arun_deployment
from prefect.exceptions import PrefectException

from tasks.core.errors import PhaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from tasks.core.config.models import Config

log = logging.getLogger("vellumforge.shards")

SHARD_FLOW = "generate-shard"

PREFECT_ERRORS = (PrefectException, httpx.HTTPError, OSError, RuntimeError)


async def check_shards(config: Config) -> None:
    """Refuse shards that no worker could take, before anything is paid for.

    Raises:
        UsageError: There is no deployment for the work pool, or Prefect's server does not say.
    """
    if config.execution.shards:
        await _deployment(config.execution.work_pool)


async def start_shard(config: Config, session: str, number: int, key: str) -> UUID:
    """Ask for a worker for a shard; what was asked for under the same key is only found.

    Args:
        config: The configuration.
        session: The session's id.
        number: The shard's number, from 1.
        key: What Prefect's server knows the request by, however often it is made.

    Returns:
        The flow run's id.

    Raises:
        PhaseError: Prefect's server does not start it.
        UsageError: There is no deployment for the work pool.
    """
    execution = config.execution
    try:
        flow_run = await arun_deployment(
            await _deployment(execution.work_pool),
            parameters={"session": session, "shard": number, "ledger": config.output.ledger},
            flow_run_name=f"shard {number} of {execution.shards}",
            timeout=0,
            idempotency_key=key,
        )
    except PREFECT_ERRORS as error:
        raise PhaseError(
            f"Prefect's server does not start shard {number}: {_reason(error)}. "
            "What was paid for is kept: resume when it answers"
        ) from error
    return flow_run.id


async def states_of(flow_runs: Sequence[UUID]) -> Mapping[UUID, State]:
    """The states of some flow runs, as far as Prefect's server answers."""
    try:
        async with get_client() as client:
            runs = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(flow_runs)))
            )
    except PREFECT_ERRORS as error:
        log.debug("Prefect's server does not tell how shards are: %s", _reason(error))
        return {}
    return {run.id: run.state for run in runs if run.state is not None}


async def _deployment(work_pool: str) -> UUID:
    """The deployment that starts shards on a work pool.

    Raises:
        UsageError: There is none, or Prefect's server does not say.
    """
    try:
        async with get_client() as client:
            found = await client.read_deployments(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[SHARD_FLOW])),
                deployment_filter=DeploymentFilter(),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[work_pool])),
            )
    except PREFECT_ERRORS as error:
        raise UsageError(f"Prefect's server does not say who takes shards: {_reason(error)}") from error
    if not found:
        raise UsageError(
            f"execution.shards needs a deployment of {SHARD_FLOW} on the work pool {work_pool}, and Prefect "
            "has none: run `prefect deploy --all`, with PREFECT_API_URL set to a server that has workers"
        )
    return found[0].id


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

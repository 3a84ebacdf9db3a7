"""Pairs on several workers: the flow runs of shards, what they are given, and what becomes of them.

Everything between parent and shards goes through the ledger (`tasks/core/ledger/shards.py`). Prefect's
server is asked to start shards, and looked at for those that ended before they could say so.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Self

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

from tasks.core.errors import LedgerError, PhaseError, SessionError, UsageError, VellumforgeError
from tasks.core.ledger import shards as ledger_shards
from tasks.core.ledger.shards import PARENT
from tasks.core.models import Phase
from tasks.core.printable import reason_of
from tasks.core.questions import is_judged
from tasks.core.session.ledger import divided, plan_of
from tasks.core.traffic.quota import WINDOW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from tasks.core.config.settings import Config
    from tasks.core.generation.run import Run
    from tasks.core.ledger.shards import Shard
    from tasks.core.models import Job


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
            f"Prefect's server does not start shard {number}: {reason_of(error)}. "
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
        log.debug("Prefect's server does not tell how shards are: %s", reason_of(error))
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
        raise UsageError(f"Prefect's server does not say who takes shards: {reason_of(error)}") from error
    if not found:
        raise UsageError(
            f"execution.shards needs a deployment of {SHARD_FLOW} on the work pool {work_pool}, and Prefect "
            "has none: run `prefect deploy --all`, with PREFECT_API_URL set to a server that has workers"
        )
    return found[0].id


WATCH_SECONDS = 1.0
"""Between two looks at the rows."""

ASK_SECONDS = 10.0
"""Between two questions to Prefect's server about shards that nobody has taken yet."""

UNTAKEN_SECONDS = 60.0
"""After which it is said that no worker takes a shard."""

STUCK_SECONDS = 60.0
"""How long a flow run may have left the queue before its shard is taken on, the first time: a worker that was
killed then leaves it pending for ever, and a container's image may take its time."""

MOST_ATTEMPTS = 5
"""Times that a run starts a shard before it gives it up."""

FEW_ROUNDS = 10
"""Workers are asked for when so many rounds of requests for prompts are left: some ten seconds, for a process
and Prefect's flow run in it need about as long to begin."""


class Shards:
    """The parent of a session's shards: it divides the work and watches over it. A context manager.

    In the block workers are asked for as soon as the jobs will soon be known, so that their processes are
    up when there is work; what ends the block with an error ends the shards, too.
    """

    def __init__(self, run: Run) -> None:
        self.name = str(uuid.uuid4())
        self._run = run
        self._flow_runs: dict[int, UUID] = {}
        self._started: Counter[int] = Counter()
        self._asked = 0.0
        self._left_queue: dict[UUID, float] = {}
        self._leads = False
        self._inviting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._run.config.execution.shards:
            self._inviting = asyncio.create_task(self._invite())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._end_inviting()
        if not self._leads:
            return
        with suppress(LedgerError):
            if kind is None:
                # Those that were asked for and not needed find nothing to take on.
                await ledger_shards.clear(self._run.ledger, self._run.session)
            else:
                # Whoever resumes gets the shards as they are; those at work are told to stop.
                await ledger_shards.call_off(self._run.ledger, self._run.session)
                await ledger_shards.release(self._run.ledger, self._run.session, PARENT, self.name)

    async def work(self, jobs: Sequence[Job]) -> None:
        """Have workers pay for what the jobs need; what they leave undone is left to the caller.

        Raises:
            SessionError: Another run works on the session.
            PhaseError: A shard failed `MOST_ATTEMPTS` times.
            LedgerError: The ledger failed.
            VellumforgeError: The run was told to stop; so are its shards.
        """
        run = self._run
        await self._end_inviting()
        # What is left is looked up only where it could be much: that takes a look at each job's answers.
        if not self._is_much(len(jobs)) or not self._is_much(await _left(run, jobs)):
            return
        # Others buy for this run; where it has bought nothing yet itself, its models are not checked.
        await run.client.gate.passed()
        await self._lead()
        try:
            await self._watch(jobs)
        finally:
            await _take_account(run)
        # Others have asked in the last minute, and now all limits are this process's own.
        if run.gateway is not None:
            run.gateway.rest(asyncio.get_running_loop().time(), WINDOW)

    def _is_much(self, jobs: int) -> bool:
        """Whether so many jobs are worth other processes."""
        config = self._run.config
        return bool(config.execution.shards) and jobs > max(
            config.generation.concurrency, config.execution.shards
        )

    async def _invite(self) -> None:
        """Ask for workers shortly before there is work for them; what fails here stops the run."""
        run, generation = self._run, self._run.config.generation
        if not self._is_much(generation.wanted_pairs):
            return
        try:
            while not self._is_soon():
                await run.stop.sleep(WATCH_SECONDS)
            await self._lead()
            for shard in await ledger_shards.invite(run.ledger, run.session, run.config.execution.shards):
                await self._start(shard, again=not shard.attempts)
            while True:
                await run.stop.sleep(WATCH_SECONDS)
                await self._lead_on()
        except VellumforgeError as error:
            run.stop.request(error)

    def _is_soon(self) -> bool:
        """Whether the pairs are near, in a run that pays: one that repeats what is known needs no worker."""
        progress = self._run.progress
        few = FEW_ROUNDS * self._run.config.generation.concurrency
        return (
            progress.phase is Phase.PROMPTS
            and progress.paid.total() > 0
            and progress.total - progress.done <= few
        )

    async def _end_inviting(self) -> None:
        if self._inviting is not None:
            self._inviting.cancel()
            await asyncio.gather(self._inviting, return_exceptions=True)

    async def _lead(self) -> None:
        """Become the session's parent; one that is silent for long enough is replaced.

        Raises:
            SessionError: Another one is at work.
        """
        run = self._run
        await ledger_shards.prepare(run.ledger, run.session)
        before = await ledger_shards.lead(run.ledger, run.session, self.name)
        while before is not None:
            await run.stop.sleep(WATCH_SECONDS)
            silent = await ledger_shards.lead(run.ledger, run.session, self.name)
            if silent is not None and silent < before:
                raise SessionError(
                    "another run works on this session, on this machine or elsewhere; "
                    "wait for it to end, or cancel it"
                )
            before = silent
        self._leads = True

    async def _lead_on(self) -> None:
        """Say that one still leads.

        Raises:
            SessionError: Another run does.
        """
        if await ledger_shards.lead(self._run.ledger, self._run.session, self.name) is not None:
            self._leads = False
            raise SessionError("another run has taken this session over")

    async def _watch(self, jobs: Sequence[Job]) -> None:
        """Divide the jobs, have every shard taken, and wait until all have ended."""
        run = self._run
        run.progress.begin(Phase.PAIRS, len(jobs))
        parts = divided(run.config, run.budget, jobs)
        plan = plan_of(run.config, jobs, run.ledger.id)
        resting = run.progress.paid.total() > 0
        shards = await ledger_shards.divide(run.ledger, run.session, plan, parts, resting=resting)
        for shard in shards:
            await self._start(shard, again=not shard.attempts)
        began = asyncio.get_running_loop().time()
        while not all(shard.ended for shard in shards):
            await run.stop.sleep(WATCH_SECONDS)
            await self._lead_on()
            shards = await ledger_shards.look(run.ledger, run.session)
            run.progress.done = sum(shard.done for shard in shards)
            for shard in await self._fallen(shards):
                await self._start(shard, again=True)
            began = self._say_if_untaken(shards, began)
        for shard in shards:
            if shard.note:
                log.warning("shard %d ended early: %s", shard.number, shard.note)

    async def _start(self, shard: Shard, *, again: bool) -> None:
        """Ask for a worker; a shard that was asked for already, and goes on, is only found."""
        run = self._run
        if shard.ended:
            return
        self._started[shard.number] += again
        if self._started[shard.number] > MOST_ATTEMPTS:
            raise PhaseError(
                f"shard {shard.number} failed {MOST_ATTEMPTS} times; the logs of its flow runs say why. "
                "What was paid for is kept: mend the cause, then resume"
            )
        attempt = await ledger_shards.ask_anew(run.ledger, run.session, shard) if again else shard.attempts
        if attempt > 1 and again:
            log.warning("shard %d is gone; it is given to another worker", shard.number)
        key = f"{shard.token}-{shard.number}-{attempt}"
        self._flow_runs[shard.number] = await start_shard(run.config, run.session, shard.number, key)

    async def _fallen(self, shards: Sequence[Shard]) -> list[Shard]:
        """Shards whose process is gone: it was silent for too long, or Prefect's server shows it."""
        lost = [shard for shard in shards if shard.lost]
        idle = [shard for shard in shards if not shard.ended and not shard.holder]
        now = asyncio.get_running_loop().time()
        if not idle or now - self._asked < ASK_SECONDS:
            return lost
        self._asked = now
        states = await states_of([self._flow_runs[shard.number] for shard in idle])
        return lost + [
            shard
            for shard in idle
            if self._is_gone(states.get(self._flow_runs[shard.number]), self._flow_runs[shard.number], shard)
        ]

    def _is_gone(self, state: State | None, flow_run: UUID, shard: Shard) -> bool:
        """Whether nobody will come for a shard that nobody holds, as far as its flow run's state tells."""
        if state is None or state.is_scheduled():
            return False
        if state.is_final():
            return True
        now = asyncio.get_running_loop().time()
        return now - self._left_queue.setdefault(flow_run, now) > STUCK_SECONDS * shard.attempts

    def _say_if_untaken(self, shards: Sequence[Shard], since: float) -> float:
        """Say now and then that workers are missing; returns since when nothing was said."""
        now = asyncio.get_running_loop().time()
        untaken = [str(shard.number) for shard in shards if not shard.holder and not shard.ended]
        if not untaken:
            return now
        if now - since < UNTAKEN_SECONDS:
            return since
        log.warning(
            "no worker has taken shard %s for a minute: start one with `prefect worker start --pool %s`",
            ", ".join(untaken),
            self._run.config.execution.work_pool,
        )
        return now


async def _left(run: Run, jobs: Sequence[Job]) -> int:
    """Jobs that are not answered in the ledger yet, or may not be judged."""
    if is_judged(run.config):
        return len(jobs)
    questions = run.questions
    known = await run.client.recall(questions.chosen(job, 0) for job in jobs)
    unanswered = sum(answer is None for answer in known.values())
    if run.config.generation.dataset_mode != "sft":
        known = await run.client.recall(questions.rejected(job, 0) for job in jobs)
        unanswered = max(unanswered, sum(answer is None for answer in known.values()))
    return unanswered


async def _take_account(run: Run) -> None:
    """Count as this run's what its shards paid for."""
    with suppress(LedgerError):
        for _, purpose, usage in await run.budget.catch_up(run.ledger, run.session):
            run.progress.paid[purpose] += usage.calls
            run.progress.prompt_tokens += usage.prompt_tokens
            run.progress.completion_tokens += usage.completion_tokens

"""The flow `generate-shard`: a worker pays for one part of a session's pairs. `flows/shards.py` starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations
from prefect.runtime import flow_run

from flows.checking import take_keys
from flows.pages.log import logged
from flows.pages.run_page import failed
from flows.pages.secret_blocks import read_blocks
from flows.process.console import Console
from flows.process.end import bounded_end
from flows.stages import make_all_pairs
from tasks.core.chat.budget import SessionBudget
from tasks.core.config.settings import Config
from tasks.core.errors import LedgerError, RunInterrupted, SessionError, UsageError, VellumforgeError
from tasks.core.generation.run import Policy, open_run
from tasks.core.ledger import shards as ledger_shards
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.shards import LOST
from tasks.core.session.adoption import unpack_jobs
from tasks.core.session.ledger import read_bill, write_bill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tasks.core.generation.run import Run
    from tasks.core.ledger.shards import Assignment
    from tasks.core.models import Job, Pair
    from tasks.core.traffic.stop import Stop

log = logging.getLogger("vellumforge.shard")

BEAT_SECONDS = 2.0
"""Between two signs of life."""

WAIT_SECONDS = 0.5
"""Between two questions for work."""

ALONE_SECONDS = 3 * LOST
"""Of the parent's silence, after which a shard without work waits no longer."""

LEDGER_VARIABLE = "VELLUMFORGE__OUTPUT__LEDGER"
"""Where the ledger is seen from the worker's machine, when that is not where its parent sees it."""


@flow(name="generate-shard", persist_result=False)
async def generate_shard(session: str, shard: int, ledger: str) -> dict[str, int] | State[Any]:
    """Pay for one part of a session's pairs, and leave the answers in the ledger.

    Args:
        session: The session's id.
        shard: The number of the part, from 1.
        ledger: The ledger's URL, without its password; VELLUMFORGE__OUTPUT__LEDGER of the worker's
            environment stands in its place.

    Returns:
        How many jobs are done and how many of them failed.

    Raises:
        SessionError: Somebody else works on this part, or it is done.
        LedgerError: The ledger cannot be opened, read or written.
        VellumforgeError: What ended the work.
    """
    console = Console()
    holder = str(flow_run.id)
    try:
        with logged(holder), bounded_end(holder), console.work():
            async with await Ledger.open(os.environ.get(LEDGER_VARIABLE) or ledger) as opened:
                return await _take_on(_Shard(opened, session, shard, holder), console)
    except VellumforgeError as error:
        return failed(error)


async def _take_on(shard: _Shard, console: Console) -> dict[str, int]:
    """Claim a shard, work on it, and say how that ended."""
    try:
        done = await shard.work(await shard.claim(console.stop), console)
    except (LedgerError, RunInterrupted, SessionError):
        with suppress(LedgerError):
            await shard.release()
        raise
    except VellumforgeError as error:
        # Another process would come to the same end; what is left, the parent tries.
        await shard.end(str(error))
        raise
    await shard.end()
    return done


class _Shard:
    """A shard that this process works on, under the name of its flow run."""

    def __init__(self, ledger: Ledger, session: str, number: int, holder: str) -> None:
        self._ledger = ledger
        self._session = session
        self._number = number
        self._holder = holder

    async def claim(self, stop: Stop) -> Assignment:
        """Take the shard on, and wait until its work is known.

        Raises:
            SessionError: It is not there to be taken on, or its parent is gone.
            RunInterrupted: The process was told to stop meanwhile.
        """
        while True:
            task = await ledger_shards.claim(self._ledger, self._session, self._number, self._holder)
            if task is None:
                raise SessionError(
                    f"shard {self._number} is done, called off, or worked on by another process"
                )
            if task.settings:
                return task
            if task.parent_silent > ALONE_SECONDS:
                raise SessionError(
                    f"shard {self._number} has no work, and its parent is gone; resume the run"
                )
            await stop.sleep(WAIT_SECONDS)

    async def release(self) -> None:
        """Give the shard back: somebody else may take it on at once."""
        await ledger_shards.release(self._ledger, self._session, self._number, self._holder)

    async def end(self, note: str = "") -> None:
        """Say that the shard has done what it can, and why that is not all."""
        await ledger_shards.end(self._ledger, self._session, self._number, self._holder, note)

    async def work(self, task: Assignment, console: Console) -> dict[str, int]:
        """Pay for what the shard's jobs need; returns how many are done and how many of them failed."""
        try:
            config = Config.model_validate_json(task.settings)
        except ValueError as error:
            raise UsageError(
                f"shard {self._number} cannot be read: its parent has another version"
            ) from error
        console.grace_seconds = config.execution.grace_seconds
        _, jobs = unpack_jobs(task.jobs)
        async with open_run(
            config,
            # The settings come from a ledger that a parameter names.
            await take_keys(config, "", read_blocks, by_parameters=True),
            session=self._session,
            ledger=self._ledger,
            stop=console.stop,
            progress=console.progress,
            budget=SessionBudget(config, console.stop, read_bill(task.spent)),
            policy=Policy(lists_failures=False),
        ) as run:
            _share(run, config.execution.shards)
            if run.gateway is not None and task.waits:
                run.gateway.rest(asyncio.get_running_loop().time(), task.waits)
            async with self._heard(run):
                await make_all_pairs(run, jobs or (), _leave)
        return {"jobs": console.progress.done, "failures": console.progress.failures}

    @asynccontextmanager
    async def _heard(self, run: Run) -> AsyncIterator[None]:
        """Be heard while the block runs, and at its end."""

        async def beat() -> None:
            while True:
                await self._beat(run)
                await asyncio.sleep(BEAT_SECONDS)

        beating: asyncio.Task[Any] = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        await self._beat(run)

    async def _beat(self, run: Run) -> None:
        """Say how far the shard is, and heed what is heard."""
        progress = run.progress
        heard = await ledger_shards.beat(
            run.ledger,
            self._session,
            self._number,
            self._holder,
            done=progress.done,
            failed=progress.failures,
            spent=write_bill(run.budget.session),
        )
        if heard is None:
            run.stop.request(SessionError(f"shard {self._number} was given to another process"))
        elif heard.called_off:
            run.stop.request(RunInterrupted(signal.SIGTERM))
        else:
            _share(run, heard.sharers)


def _share(run: Run, sharers: int) -> None:
    if run.gateway is not None:
        run.gateway.share(sharers)


def _leave(_job: Job, _pair: Pair | None) -> None:
    """A finished pair stays in the ledger, where the parent finds it."""

"""The flow `transform`: rows that are there, made into others. `python -m flows.transform` runs it here."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from flows.commands.app import main

    sys.exit(main(["transform", *sys.argv[1:]]))

import asyncio
import logging
from collections import deque
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations
from prefect.runtime import flow_run

from flows.checking import check_transform, with_blocks
from flows.pages.log import logged
from flows.pages.run_page import failed
from flows.pages.secret_blocks import read_blocks
from flows.process import progress as display
from flows.process.console import Console, current
from flows.process.end import bounded_end
from flows.request import TransformRequest, takes
from flows.stages import STRAGGLERS, through
from tasks.core.errors import SessionError, UnfinishedError, UsageError, VellumforgeError
from tasks.core.generation.run import Block, open_run, pair_block_size
from tasks.core.keys import phase_key
from tasks.core.ledger.schema import ledger_url
from tasks.core.models import Phase, Purpose
from tasks.core.preflight import checked_first
from tasks.core.session.ledger import open_ledger
from tasks.core.session.record import record_session
from tasks.core.summary import Stopwatch
from tasks.core.transform.reading import MOST_ROWS, in_blocks
from tasks.core.transform.session import Transform, open_transform
from tasks.core.transform.summary import TransformSummary, summarize_transform
from tasks.phases import transformed

if TYPE_CHECKING:
    from flows.checking import CheckedTransform
    from tasks.core.generation.run import Run
    from tasks.core.transform.session import Transformed, TransformSession

log = logging.getLogger("vellumforge.transform")


@flow(name="transform", persist_result=False)
@takes(TransformRequest)
async def transform(request: TransformRequest) -> TransformSummary | State[Any]:
    """Make a dataset that is there into another one.

    Returns:
        The numbers of the run.

    Raises:
        UsageError: Something given cannot be used, or lines are bad.
        UnfinishedError: Some rows failed.
        VellumforgeError: What ended the work.
    """
    here = current.get(None)
    console = here or Console()
    this_run = str(flow_run.id or "")
    try:
        with logged(this_run), bounded_end(this_run), console.work():
            if console.checked is None:
                checked = await check_transform(request, read_blocks, by_parameters=here is None)
            else:
                checked = await with_blocks(console.checked, request, read_blocks)
            console.grace_seconds = checked.config.execution.grace_seconds
            summary = console.summary = await _carry_out(checked, console, this_run, request.command())
            if not summary.complete:
                raise UnfinishedError(summary.shortfall())
    except VellumforgeError as error:
        return failed(error)
    return summary


async def _carry_out(
    checked: CheckedTransform, console: Console, this_run: str, command: str
) -> TransformSummary:
    config, watch = checked.config, Stopwatch()
    # There are no phases before it.
    console.progress.phase = Phase.PAIRS
    async with await open_ledger(ledger_url(config), Path(config.output.folder)) as ledger:
        with open_transform(config, command=command, ledger=ledger.id, flow_run=this_run) as session:
            console.folder = session.folder
            await record_session(ledger, session.folder.name, session.record)
            async with (
                open_run(
                    config,
                    checked.keys,
                    session=session.record.id,
                    ledger=ledger,
                    stop=console.stop,
                    progress=console.progress,
                    purposes=[checked.source.mode.purpose],
                ) as run,
                checked_first(run, [checked.source.mode.purpose]),
                display.shown(console.progress),
            ):
                run.client.used = session.note
                await _write_rows(run, checked, session)
                outputs = await _hand_out(checked, session)
                return summarize_transform(
                    run,
                    session,
                    checked.source.mode,
                    outputs=outputs,
                    wanted=checked.first_pass.rows,
                    taken=watch.read(),
                )


async def _write_rows(run: Run, checked: CheckedTransform, session: TransformSession) -> None:
    """Every row, in order, into the session's folder; which is put in order whatever happens."""
    complete = False
    try:
        await transform_rows(run, checked, session)
        if checked.source.stamp() != checked.first_pass.stamp:
            raise UsageError(f"{checked.source.files[0]} was changed while it was read; run again")
        complete = not run.progress.failures
    finally:
        spent = run.budget.session.document(run.budget.prices)
        session.record = replace(session.record, spent=spent)
        try:
            await session.finish(complete=complete)
            await record_session(run.ledger, session.folder.name, session.record)
        except VellumforgeError as error:
            if complete:
                raise
            # What ended the run is what people must read.
            log.info(error)


async def _hand_out(checked: CheckedTransform, session: TransformSession) -> list[str]:
    for name, path in checked.outputs:
        await session.hand_out(name, path)
    return [str(path) for _, path in checked.outputs]


async def transform_rows(run: Run, checked: CheckedTransform, session: TransformSession) -> None:
    """Work through the input block by block, some of them at a time, and write their rows in order."""
    work = Transform(run, checked.source.mode)
    rows = checked.first_pass.rows
    run.progress.begin(Phase.PAIRS, rows)
    size = min(pair_block_size(rows), MOST_ROWS)
    at_once = 1 + -(-(2 * run.config.generation.concurrency + STRAGGLERS) // size)
    phase_hash = f"{phase_key(run.config, Phase.PAIRS, run.ledger.id)}-{checked.source.mode.name}"
    if checked.source.mode.purpose is Purpose.REASONING:
        # No phase of generating depends on them.
        templates = run.config.prompt_templates
        asked = [templates.reasoning_generation, templates.reasoning_system_prompt]
        phase_hash += f"-{sha256(repr(asked).encode()).hexdigest()[:16]}"
    blocks = in_blocks(checked.source.read(), size, session.skip)
    begun: deque[asyncio.Task[Transformed]] = deque()
    try:
        while some := await asyncio.to_thread(next, blocks, None):
            run.stop.check()
            run.ledger.check()
            label = f"lines {some[0].line}-{some[-1].line}" if some[1:] else f"line {some[0].line}"
            block = Block(Phase.PAIRS, phase_hash, some, label)
            begun.append(asyncio.create_task(through(run, transformed, work, block=block)))
            if len(begun) >= at_once:
                _keep(run, session, await begun[0])
                begun.popleft()
        while begun:
            _keep(run, session, await begun[0])
            begun.popleft()
    finally:
        # Calls in flight are paid for: they are waited for, also when something has failed.
        await asyncio.gather(*begun, return_exceptions=True)


def _keep(run: Run, session: TransformSession, done: Transformed) -> None:
    try:
        session.add(done)
    except SessionError as error:
        # The other rows would be paid for, and the run would fail all the same.
        run.stop.request(error)
        raise

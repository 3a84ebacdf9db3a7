"""The flow `generate`: subtopics, prompts, pairs, dataset. `python -m flows.generate` runs it here."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Before anything else is imported: `--help` answers at once, and Prefect finds its settings made.
    from flows.commands.app import main

    sys.exit(main(["run", *sys.argv[1:]]))

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations
from prefect.runtime import flow_run

from flows.checking import check_run, with_blocks
from flows.pages.log import logged
from flows.pages.run_page import Page, failed
from flows.pages.secret_blocks import read_blocks
from flows.process import progress as display
from flows.process.console import Console, current
from flows.process.end import bounded_end
from flows.request import FlowRequest, takes
from flows.setup import opened
from flows.shards import Shards, check_shards
from flows.stages import find_all_subtopics, make_all_pairs, make_wanted_pairs, write_all_prompts
from tasks.core.config.load import Inline
from tasks.core.errors import SessionError, UnfinishedError, VellumforgeError
from tasks.core.generation.pairs import is_left_alone
from tasks.core.generation.waves import Made
from tasks.core.models import Phase
from tasks.core.printable import reason_of
from tasks.core.report.page import Review, write_report
from tasks.core.report.tally import facts_of
from tasks.core.session.record import Counts
from tasks.core.summary import (
    Stopwatch,
    Summary,
    is_complete,
    missing_from,
    summarize,
)

if TYPE_CHECKING:
    from flows.setup import OpenRun

log = logging.getLogger("vellumforge.generate")


@flow(name="generate", persist_result=False)
@takes(FlowRequest, "config", "settings", "prompts", "skip_bad", "resume", "accept_changes", "trust_session")
async def generate(request: FlowRequest, *, settings: Inline | None = None) -> Summary | State[Any]:
    """Generate a preference dataset.

    Args:
        settings: The configuration itself, in place of the file. Keys have no place in it: name the variable
            that holds one.

    Returns:
        The numbers of the run.

    Raises:
        ConfigError: The configuration cannot be used.
        PhaseError: A phase could not go on.
        UnfinishedError: The run came to its end, and some rows did not come about.
        BudgetError: What the session may spend is spent.
        RunInterrupted: The run was stopped by a signal.
    """
    here = current.get(None)
    console = here or Console()
    this_run = str(flow_run.id or "")
    page = Page(this_run, str(flow_run.name or ""))
    try:
        with logged(this_run), bounded_end(this_run), console.work():
            if console.checked is None:
                checked = await check_run(request, settings, read_blocks, by_parameters=here is None)
            else:
                checked = await with_blocks(console.checked, request, read_blocks)
            await check_shards(checked.config)
            console.grace_seconds = checked.config.execution.grace_seconds
            async with (
                opened(checked, console, this_run) as work,
                display.shown(console.progress),
                page.follows(work),
            ):
                console.folder = work.session.folder
                for warning in checked.warnings:
                    log.warning(warning)
                summary = console.summary = await _stages(work)
            if not summary.complete:
                raise UnfinishedError(summary.shortfall(), tries_used_up=summary.tries_used_up)
    except VellumforgeError as error:
        return failed(error)
    finally:
        await page.close(console.error)
    return summary


async def _stages(work: OpenRun) -> Summary:
    """Phase after phase; the session folder is finished here, whatever Prefect's server does meanwhile."""
    watch = Stopwatch()
    run, session = work.run, work.session
    state = session.checkpoint.state
    try:
        state.subtopics = await find_all_subtopics(run) if work.subtopics is None else work.subtopics
        await session.enter(Phase.PROMPTS)
        work.copy_soon()
        candidates = None
        async with Shards(run) as shards:
            if work.jobs is None:
                candidates, jobs = await write_all_prompts(run, state.subtopics)
                found = candidates.found
                state.failed_subtopics = [entry.subtopic.name for entry in found if not entry.prompts]
                state.prompt_success_rate = 1 - len(state.failed_subtopics) / len(found)
            else:
                jobs = list(work.jobs)
            state.jobs = jobs
            await session.enter(Phase.PAIRS)
            work.copy_soon()
            await shards.work([job for job in jobs if not is_left_alone(run, job)])
        if candidates is None:
            made = Made(jobs, await make_all_pairs(run, jobs, session.keep), dict(work.dropped))
        else:
            made = await make_wanted_pairs(run, candidates, jobs, session.keep)
        state.failures = made.open
    except BaseException:
        # Also after an interruption or a failure: what is there is put in order, and can be used.
        _note_numbers(work, through=False)
        try:
            await session.finish(complete=False)
        except SessionError as error:
            # What ended the run is what people must read; on a full disk this is only what follows.
            log.info(error)
        raise
    _note_numbers(work, through=True)
    taken_over = work.jobs is not None
    missing = missing_from(run, made, taken_over=taken_over)
    session.record = replace(session.record, missing=missing)
    await session.finish(complete=is_complete(run, made, taken_over=taken_over))
    await _review(work, made)
    return summarize(run, session, made, watch, taken_over=taken_over)


LOOKED_AT_ONCE = 500
"""Rows that are looked at, in some ten milliseconds, before a run that is stopped is looked for."""


async def _review(work: OpenRun, made: Made) -> None:
    """Look at the finished dataset, and write its report; the dataset is there whatever comes of that."""
    session, state = work.session, work.session.checkpoint.state
    review = Review(session.folder, state.jobs, max_tokens=work.run.config.lint.max_tokens or None)
    try:
        # In a thread: signals, the page and the mirror have their turn meanwhile.
        while await asyncio.to_thread(review.go_on, LOOKED_AT_ONCE):
            pass
        session.lint = review.lint()
    except Exception as error:  # noqa: BLE001 - the dataset is there, whatever cannot be read in it
        log.warning("the dataset was not looked at, and no report was written: %s", reason_of(error))
        return
    if line := session.lint.brief():
        log.info("%s", line)
    failures = Counter(failure.cause for outcome in made.outcomes for failure in outcome.failures)
    try:
        facts = await facts_of(
            work.run.ledger,
            session.record,
            session.name,
            work.run.config,
            subtopics=state.subtopics,
            jobs=state.jobs,
            dropped=made.dropped,
            lost=made.lost,
            failed=dict((failures - Counter(made.lost)).most_common()),
            opinions=work.run.progress.opinions,
        )
        session.report = await asyncio.to_thread(write_report, session.folder, facts, review)
    except Exception as error:  # noqa: BLE001 - the dataset is there, whatever is wrong with its picture
        log.warning("no report was written: %s", reason_of(error))


def _note_numbers(work: OpenRun, *, through: bool) -> None:
    """Put into the record what the session has paid for so far, and what became of its prompts.

    Args:
        work: The run.
        through: Whether it went through all of them.
    """
    budget, progress = work.run.budget, work.run.progress
    record = replace(work.session.record, spent=budget.session.document(budget.prices))
    if progress.phase is Phase.PAIRS and progress.wanted:
        causes = dict(progress.lost.most_common()), dict(progress.causes.most_common())
        counts = Counts(progress.wanted, progress.kept, progress.done, *causes)
        # A resume that is cut off has read again only some of what there is.
        if through or record.counts is None or counts.tried >= record.counts.tried:
            record = replace(record, counts=counts)
    work.session.record = record

"""What a run does with its finished dataset: it looks at it with lint, and writes its report."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from tasks.core.errors import UsageError
from tasks.core.lint.linter import Linter
from tasks.core.printable import reason_of
from tasks.core.report.page import write_report
from tasks.core.report.tally import facts_of
from tasks.core.rows.samples import read_samples

if TYPE_CHECKING:
    from flows.setup import OpenRun
    from tasks.core.generation.waves import Made

log = logging.getLogger("vellumforge.generate")

LINTED_AT_ONCE = 100
"""Rows that lint looks at, in some ten milliseconds, before signals and the page have their turn."""


async def lint_dataset(work: OpenRun) -> None:
    """Look at the finished dataset; it is there whatever comes of that."""
    linter = Linter(max_tokens=work.run.config.lint.max_tokens or None)
    path = work.session.dataset.path
    try:
        for number, sample in enumerate(read_samples(path)):
            linter.add(sample)
            if not number % LINTED_AT_ONCE:
                await asyncio.sleep(0)
    except UsageError as error:
        log.warning("the dataset was not looked at by lint: %s", error)
        return
    work.session.lint = linter.report()
    if line := work.session.lint.brief():
        log.info("%s", line)


async def report_run(work: OpenRun, made: Made) -> None:
    """Write the report of a run that has come to its end; one that cannot be written is a warning."""
    session = work.session
    state = session.checkpoint.state
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
        )
        # In a thread: signals, the page and the mirror have their turn meanwhile.
        session.report = await asyncio.to_thread(write_report, session.folder, facts, session.lint)
    except Exception as error:  # noqa: BLE001 - the dataset is there, whatever is wrong with its picture
        reason = reason_of(error)
        log.warning("no report was written: %s", reason)

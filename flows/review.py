"""What a run does with its finished dataset: it looks at it with lint, and writes its report."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from tasks.core.printable import reason_of
from tasks.core.report.page import Review, write_report
from tasks.core.report.tally import facts_of

if TYPE_CHECKING:
    from flows.setup import OpenRun
    from tasks.core.generation.waves import Made

log = logging.getLogger("vellumforge.generate")

LOOKED_AT_ONCE = 500
"""Rows that are looked at, in some ten milliseconds, before a run that is stopped is looked for."""


async def review_dataset(work: OpenRun, made: Made) -> None:
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
        )
        session.report = await asyncio.to_thread(write_report, session.folder, facts, review)
    except Exception as error:  # noqa: BLE001 - the dataset is there, whatever is wrong with its picture
        log.warning("no report was written: %s", reason_of(error))

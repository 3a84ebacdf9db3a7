"""The command `vellumforge2 report`, and the report that a run writes at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flows.opening import Opened
    from flows.place import Place
    from tasks.core.generation.waves import Made
    from tasks.core.llm.ledger import Ledger
    from tasks.core.models import Job, Pair

MOST_FAILURES = 1_000_000


def report(session: str, /, *, config: str | None = None, output: str | None = None) -> int:
    """Write the session's report.html: a page about its rows, its cost and what lint found. It asks no model.

    Args:
        session: The session's name, as the list shows it.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    # Imported here: help is there at once.
    import asyncio  # noqa: PLC0415

    from flows.place import Place  # noqa: PLC0415

    print(asyncio.run(_write(Place(config, output), session)))  # noqa: T201 - the command's output
    return 0


async def _write(place: Place, session: str) -> Path:
    """Write the report of a session from its files and the ledger.

    Raises:
        UsageError: There is no such session, no ledger, no record of the session, or no dataset.
        LedgerError: The ledger cannot be read.
        SessionError: The report cannot be written.
    """
    from collections import Counter  # noqa: PLC0415 - help is there at once

    from tasks.core.errors import UsageError  # noqa: PLC0415 - the same
    from tasks.core.report.facts import facts_of  # noqa: PLC0415 - the same
    from tasks.core.report.page import write_report  # noqa: PLC0415 - the same
    from tasks.core.session.find import find_session  # noqa: PLC0415 - the same
    from tasks.core.session.restoring import restore_record  # noqa: PLC0415 - the same
    from tasks.core.session.resuming import find_resumption, survey_session  # noqa: PLC0415 - the same

    folder = find_session(place.folder, session)
    async with place.ledger() as ledger:
        await restore_record(folder, ledger)
        found = find_resumption(folder)
        if found.foreign or found.before is None:
            raise UsageError(
                f"session {session} is VellumForge2's; resume it first, then its report is there"
            )
        done: set[int] = set()

        def note(job: Job, _pair: Pair | None) -> None:
            done.add(job.id)

        walked = await survey_session(found.record, found.before, ledger, note)
        facts = await facts_of(
            ledger,
            found.record,
            folder.name,
            found.before,
            subtopics=walked.subtopics,
            jobs=walked.jobs,
            dropped=walked.dropped,
            lost=dict(Counter(walked.lost.values()).most_common()),
            failed=await _failed(ledger, found.record.id, walked.jobs, done),
        )
    return write_report(folder, facts)


async def _failed(ledger: Ledger, session: str, jobs: Iterable[Job], done: set[int]) -> dict[str, int]:
    """Why jobs are not done, by the cause that was listed last."""
    from collections import Counter  # noqa: PLC0415 - help is there at once

    from tasks.core.llm.ledger_failures import last_failures  # noqa: PLC0415 - the same

    left = {f"job {job.id}": "not asked yet" for job in jobs if job.id not in done}
    for failure in await last_failures(ledger, session, 0.0, MOST_FAILURES) if left else ():
        if failure.item in left:
            left[failure.item] = failure.cause
    return dict(Counter(left.values()).most_common())


async def report_run(work: Opened, made: Made) -> None:
    """Write the report of a run that has come to its end; one that cannot be written is a warning."""
    import asyncio  # noqa: PLC0415 - help is there at once
    import logging  # noqa: PLC0415 - the same
    from collections import Counter  # noqa: PLC0415 - the same

    from tasks.core.report.facts import facts_of  # noqa: PLC0415 - the same
    from tasks.core.report.page import write_report  # noqa: PLC0415 - the same

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
        reason = " ".join(str(error).split()) or type(error).__name__
        logging.getLogger("vellumforge.report").warning("no report was written: %s", reason)

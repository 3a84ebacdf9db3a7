"""What a run opens before its first stage and closes after its last: ledger, session, HTTP client."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import SessionError, UsageError
from tasks.core.generation.run import Policy, open_run
from tasks.core.ledger.schema import ledger_url
from tasks.core.ledger.sessions import find_session_row
from tasks.core.portable.mirror import mirrored
from tasks.core.preflight import checked_first
from tasks.core.questions import Questions
from tasks.core.session.adoption import brings_jobs, pack_jobs, take_over, unpack_jobs
from tasks.core.session.folder import find_session, locked
from tasks.core.session.ledger import open_ledger
from tasks.core.session.record import record_session, restore_record
from tasks.core.session.resuming import check_resumption, find_resumption, settled_refusals, with_seed_of
from tasks.core.session.retrying import plan_further, plan_retry
from tasks.core.session.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from flows.checking import CheckedRequest
    from flows.process.console import Console
    from tasks.core.config.settings import Config
    from tasks.core.generation.run import Run
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Failure, Job
    from tasks.core.session.resuming import Resumption
    from tasks.core.session.retrying import Retry
    from tasks.core.session.session import Session

log = logging.getLogger("vellumforge.opening")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """An open run.

    Attributes:
        run: What its operations work with.
        session: The session that is written.
        subtopics: Subtopics that were taken over from elsewhere; None when they are to be found.
        jobs: Jobs that were taken over or given; None when their prompts are to be written.
        dropped: Prompts that were given and left out, as `duplicate` or `near_duplicate`.
        copy_soon: Asks for a copy to the mirror, if there is one: called at the end of a phase.
    """

    run: Run
    session: Session
    subtopics: Sequence[str] | None
    jobs: Sequence[Job] | None
    dropped: Mapping[str, int]
    copy_soon: Callable[[], None]


async def check_ledger(checked: CheckedRequest) -> None:
    """Refuse a resume that is not what the user wants, before anything is started for it.

    Raises:
        UsageError: See `check_resumption` and `plan_retry`.
        LedgerError: The ledger cannot be opened.
    """
    if checked.resumption is not None:
        async with await open_ledger(
            ledger_url(checked.config), Path(checked.config.output.folder)
        ) as ledger:
            accept = checked.accept_changes
            await check_resumption(
                checked.resumption, checked.config, ledger, accept_changes=accept, given=_given(checked)
            )
            await _retry(checked, ledger)


@asynccontextmanager
async def opened(checked: CheckedRequest, console: Console, flow_run: str) -> AsyncIterator[OpenRun]:
    """Open the ledger, the session folder and the HTTP client, and close them on leaving.

    Args:
        checked: What is to be done.
        console: The run's counters and stop switch.
        flow_run: Id of the Prefect flow run: one that is retried goes on in the session that it began.

    Raises:
        LedgerError: The ledger cannot be opened.
        SessionError: The folder cannot be made, or another process writes to it.
        UsageError: The session cannot be resumed as it is.
    """
    config, progress, retry = checked.config, console.progress, None
    output = Path(config.output.folder)
    async with await open_ledger(ledger_url(config), output) as ledger, AsyncExitStack() as stack:
        retried = None if checked.resumption else await _begun_by(ledger, flow_run, output)
        resumption = checked.resumption or retried
        if resumption is not None:
            stack.enter_context(locked(resumption.folder))
            # Another process may have finished it since the first look.
            resumption = find_resumption(resumption.folder)
        if retried is not None:
            config = with_seed_of(retried, config, always=True)
        elif resumption is not None:
            accept = checked.accept_changes
            await check_resumption(resumption, config, ledger, accept_changes=accept, given=_given(checked))
            retry = await _retry(replace(checked, resumption=resumption), ledger)
        given = _given(checked)
        if resumption is not None and given is not None:
            # Before the session says that its prompts are others: else a kill in between leaves the old ones
            # under the new digest.
            record = replace(resumption.record, adopted=True)
            await record_session(ledger, resumption.folder.name, record, pack_jobs((), given))
        with open_session(
            config,
            progress,
            text=checked.text,
            overridden=checked.overridden,
            ledger=ledger.id,
            flow_run=flow_run,
            resumption=resumption,
            held=resumption is not None,
        ) as session:
            has_jobs = given is not None or await _has_jobs(session, resumption, ledger)
            policy = Policy(
                replaces=config.generation.replaces and not has_jobs,
                mends_forms=resumption is None or not resumption.record.complete,
                further=() if retry is None else retry.further,
                left_alone=await _left_alone(config, session, resumption, retry, ledger, has_jobs=has_jobs),
            )
            async with (
                open_run(
                    config if retry is None or not retry.is_special else _in_this_process(config),
                    checked.keys,
                    session=session.record.id,
                    ledger=ledger,
                    stop=console.stop,
                    progress=progress,
                    policy=policy,
                ) as run,
                checked_first(run),
                mirrored(run, session) as copy_soon,
            ):
                subtopics, jobs = await _taken_over(run, session, resumption, given)
                if retry is not None and retry.note:
                    log.warning(retry.note)
                dropped = {} if checked.prompts is None else checked.prompts.dropped
                yield OpenRun(run, session, subtopics, jobs, dropped, copy_soon)
            await record_session(ledger, session.name, session.record)


def _given(checked: CheckedRequest) -> Sequence[Job] | None:
    return None if checked.prompts is None else checked.prompts.jobs


async def _retry(checked: CheckedRequest, ledger: Ledger) -> Retry | None:
    """What a retry does otherwise than a resume; None for a resume."""
    if checked.resumption is None or (checked.only is None and not checked.further):
        return None
    if checked.only is None:
        return await plan_further(checked.resumption, checked.config, ledger)
    return await plan_retry(checked.only, checked.resumption, checked.config, ledger)


def _in_this_process(config: Config) -> Config:
    """The configuration without shards, which know nothing of what is left alone or asked further."""
    execution = config.execution.model_copy(update={"shards": 0})
    return config.model_copy(update={"execution": execution})


async def _begun_by(ledger: Ledger, flow_run: str, output: Path) -> Resumption | None:
    """The session that this flow run began when it ran before; None when it runs for the first time."""
    row = await find_session_row(ledger, flow_run=flow_run) if flow_run else None
    if row is None:
        return None
    try:
        folder = find_session(output, row.name)
        await restore_record(folder, ledger)
        return find_resumption(folder)
    except (UsageError, SessionError) as error:
        log.warning("the session of this run is gone (%s); a new one is made", error)
        return None


async def _has_jobs(session: Session, resumption: Resumption | None, ledger: Ledger) -> bool:
    """Whether the jobs of a session come from elsewhere, so that it does not find its own prompts."""
    if resumption is not None and resumption.foreign:
        return brings_jobs(session.folder)
    return session.record.adopted and (await _adopted(session, ledger))[1] is not None


async def _left_alone(
    config: Config,
    session: Session,
    resumption: Resumption | None,
    retry: Retry | None,
    ledger: Ledger,
    *,
    has_jobs: bool,
) -> Mapping[bytes, Failure]:
    """What is not asked again, by key."""
    if retry is not None and retry.left_alone is not None:
        return retry.left_alone
    if has_jobs:
        return {}
    # They were replaced: a resume must come to the same.
    complete = resumption is not None and resumption.record.complete
    return await settled_refusals(replace(session.record, complete=complete), config, ledger)


async def _adopted(session: Session, ledger: Ledger) -> tuple[Sequence[str], Sequence[Job] | None]:
    """The subtopics and jobs that a session took over, as the ledger has them.

    Raises:
        SessionError: This ledger does not have them.
    """
    row = await find_session_row(ledger, session.record.id)
    if row is None or row.jobs is None:
        raise SessionError(f"the jobs of session {session.name} are not in this ledger; use its own")
    return unpack_jobs(row.jobs)


async def _taken_over(
    run: Run, session: Session, resumption: Resumption | None, given: Sequence[Job] | None
) -> tuple[Sequence[str] | None, Sequence[Job] | None]:
    """The subtopics and jobs of a session that has them from elsewhere, and the session recorded."""
    if given is not None:
        # What was in the file stays the session's, whatever becomes of the file.
        session.record = replace(session.record, adopted=True)
        packed = pack_jobs((), given) if resumption is None else None  # of one that is resumed, it has them
        await record_session(run.ledger, session.name, session.record, packed)
        session.write_description()
        return (), given
    if resumption is not None and resumption.foreign:
        # Under the settings that bought them: where those changed, the old rows are not the new answers.
        config = resumption.before or run.config
        # As nobody's calls: the session did not pay for them, and its budget does not count them.
        taken = await take_over(session.folder, config, Questions(config), run.ledger, "")
        for line in taken.lines():
            log.warning(line)
        session.record = replace(session.record, adopted=bool(taken.subtopics))
        packed = pack_jobs(taken.subtopics, taken.jobs) if taken.subtopics else None
        await record_session(run.ledger, session.name, session.record, packed)
        # Last of all: with its record, the session is ours, and is not taken over again.
        session.write_description()
    else:
        await record_session(run.ledger, session.name, session.record)
    if not session.record.adopted:
        return None, None
    return await _adopted(session, run.ledger)

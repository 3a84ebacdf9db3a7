"""What the commands of `vellumforge2 checkpoint` do: a few lines each over an operation of core."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.checking import DEFAULT_CONFIG, load_here, take_prompts
from flows.commands.estimate import spending_lines
from flows.process.terminal import tell, tell_json
from flows.request import Location, RunRequest
from flows.workspace import Workspace
from tasks.core.cost import prices_for
from tasks.core.errors import UsageError
from tasks.core.files import check_file
from tasks.core.forecast.survey import survey
from tasks.core.ledger.failures import failures_of
from tasks.core.ledger.sessions import find_session_row, spent_by
from tasks.core.portable.archive import export_session, import_session
from tasks.core.portable.merging import merge_sessions
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.folder import find_session
from tasks.core.session.ledger import prune_ledger
from tasks.core.session.listing import (
    clean_sessions,
    is_finished,
    list_sessions,
    render_checkpoint,
    render_ending,
    render_list,
)
from tasks.core.session.record import read_record, restore_record, settings_of
from tasks.core.session.resuming import (
    changes_between,
    cost_lines,
    find_resumption,
    lines_of_changes,
    survey_resumption,
    survey_session,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.request import CleanRequest, LocatedSettings
    from tasks.core.config.settings import Config
    from tasks.core.models import Job
    from tasks.core.portable.merging import Merged
    from tasks.core.session.ledger import Pruned
    from tasks.core.session.record import SessionRecord

SUFFIX = ".vellumforge.zip"


def list_all(location: Location, *, json: bool) -> int:
    """Print the sessions, newest first."""
    found = list_sessions(Workspace(location).folder)
    if json:
        tell_json(found)
    else:
        tell(*render_list(found))
    return 0


def inspect(session: str, location: Location, *, json: bool) -> int:
    """Print a session in detail."""
    place = Workspace(location)
    folder = asyncio.run(_whole(place, session))
    checkpoint = read_checkpoint(folder)
    record = read_record(folder)
    spent = asyncio.run(_spending(place, record)) if record else None
    complete = is_finished(folder)
    if json:
        counts = record.counts if record else None
        document: dict[str, Any] = {"session": session, "complete": complete, "spent": spent, "pairs": counts}
        document["checkpoint"] = checkpoint.model_dump(mode="json", by_alias=True) if checkpoint else None
        tell_json(document)
        return 0
    if checkpoint is not None:
        tell(*render_checkpoint(session, checkpoint))
    elif record is None:
        tell(f"Session {session} has neither a record nor a checkpoint: there is nothing to go on with.")
        return 0
    else:
        tell(f"Session {session} has no checkpoint.")
    if record is not None and record.counts is not None:
        tell(f"  Pairs:             {record.counts.in_words()}")
    if spent:
        for line in spending_lines(spent):
            tell(line)
        for cause, count in spent["failures"].items():
            tell(f"  Failures:          {count:,} {cause}")
    tell("", *render_ending(session, complete=complete))
    return 0


async def _whole(place: Workspace, session: str) -> Path:
    """The session's folder, its record put back from the ledger where it is missing or damaged."""
    folder = find_session(place.folder, session)
    if read_record(folder) is None:
        # Without a ledger here, the folder is all that is known of it.
        with suppress(UsageError):
            async with place.ledger() as ledger:
                await restore_record(folder, ledger)
    return folder


async def _spending(place: Workspace, record: SessionRecord) -> dict[str, Any] | None:
    try:
        async with place.ledger() as ledger:
            bill = await spent_by(ledger, record.id)
            spent = bill.document(prices_for(place.config, settings_of(record)))
            return spent | {"failures": await failures_of(ledger, record.id)}
    except UsageError:
        return None  # The session was made with another ledger.


def clean(request: CleanRequest) -> int:
    """Remove sessions, or say which would be removed."""
    verdicts = clean_sessions(
        Workspace(request).folder,
        older_than=request.older_than,
        keep_last=request.keep_last,
        dry_run=request.dry_run,
        force=request.force,
    )
    for verdict in verdicts:
        tell(verdict.line(dry_run=request.dry_run))
    return 0


def diff(session: str, other: str, request: LocatedSettings) -> int:
    """Print how a session differs from another one or from the configuration, with what lies over it."""
    if other and (request.overrides or request.prompts):
        raise UsageError(f"session {other} has settings of its own: leave out --set and --prompts")
    place = Workspace(Location(config=request.config, output=request.output))
    first = find_resumption(asyncio.run(_whole(place, session)))
    if first.before is None:
        raise UsageError(f"the settings of session {session} are not known")
    if not other:
        if place.config is None:
            raise UsageError("name a second session, or a configuration with --config")
        # Of this one, all must be said: what it is silent on would be taken for other settings.
        config = load_here(Path(request.config or DEFAULT_CONFIG), request.settings).config
        after, prompts = take_prompts(config, first)
        title = f"{session} -> {request.config or DEFAULT_CONFIG}"
    else:
        second = find_resumption(asyncio.run(_whole(place, other)))
        if second.before is None:
            raise UsageError(f"the settings of session {other} are not known")
        after, prompts, title = second.before, None, f"{session} -> {other}"
    tell(title)
    changes = changes_between(first.before, after, idle=True)
    tell(*(lines_of_changes(changes) or ["  the settings are the same"]))
    if not other:
        jobs = None if prompts is None else prompts.jobs
        for line in asyncio.run(_costs(place, first.record, after, jobs)):
            tell(f"  {line}")
    else:
        for line in _progress_lines(place.folder, session, other):
            tell(f"  {line}")
    return 0


async def _costs(
    place: Workspace, record: SessionRecord, config: Config, jobs: Sequence[Job] | None
) -> list[str]:
    async with place.ledger() as ledger:
        if jobs is not None:
            return cost_lines(await survey(config, ledger, jobs=jobs))
        return cost_lines(await survey_resumption(record, config, ledger))


def _progress_lines(output: Path, *names: str) -> list[str]:
    lines = []
    for name in names:
        checkpoint = read_checkpoint(find_session(output, name))
        if checkpoint is None:
            lines.append(f"{name}: no checkpoint")
        else:
            lines.append(
                f"{name}: {len(checkpoint.subtopics):,} subtopics, {len(checkpoint.prompts):,} prompts, "
                f"{len(checkpoint.completed):,} pairs done, phase {checkpoint.current_phase}"
            )
    first, second = (read_checkpoint(find_session(output, name)) for name in names)
    if first and second:
        for what in ("subtopics", "prompts"):
            one, two = (_texts(getattr(item, what)) for item in (first, second))
            common = len(one & two)
            lines.append(f"{what}: {common:,} common, {len(one - two):,} and {len(two - one):,} not")
    return lines


def _texts(items: Sequence[Any]) -> set[str]:
    return {item if isinstance(item, str) else item.prompt for item in items}


def export(session: str, to: Path | None, location: Location) -> int:
    """Write a session into one file."""
    place = Workspace(location)
    target = to or Path(f"{session}{SUFFIX}")
    check_file(target)
    calls = asyncio.run(_export(place, session, target))
    tell(f"{target}: session {session} with {calls:,} calls; `checkpoint import` brings it in elsewhere")
    return 0


async def _export(place: Workspace, session: str, target: Path) -> int:
    folder = find_session(place.folder, session)
    async with place.ledger() as ledger:
        await restore_record(folder, ledger)
        found = find_resumption(folder)
        if found.foreign or found.before is None:
            raise UsageError(f"session {session} is VellumForge2's; resume it first, then export it")
        row = await find_session_row(ledger, found.record.id)
        walked = await survey_session(found.record, found.before, ledger)
        return await export_session(
            target,
            folder,
            found.record,
            ledger,
            keys=sorted(walked.keys),
            questions=sorted(walked.questions),
            jobs=row.jobs if row else None,
        )


def merge(sessions: Sequence[str], into: str, location: Location) -> int:
    """Make one session of several, and print what of each is in it and what is still to be paid for."""
    merged = asyncio.run(_merge(Workspace(location, writes=True), sessions, into))
    for line in merged.lines():
        tell(line)
    return 0


async def _merge(place: Workspace, sessions: Sequence[str], into: str) -> Merged:
    async with place.ledger() as ledger:
        return await merge_sessions(sessions, into, place.folder, ledger)


def prune(location: Location, *, dry_run: bool) -> int:
    """Remove the calls that no session in the output folder uses, and say how many."""
    found = asyncio.run(_prune(Workspace(location), dry_run=dry_run))
    gone = "" if dry_run else " and were removed"
    tell(f"{found.unused:,} of {found.total:,} answers are used by no session{gone}")
    for note in found.notes:
        tell(note)
    return 0


async def _prune(place: Workspace, *, dry_run: bool) -> Pruned:
    if place.ledger_file.resolve().parent != place.folder.resolve():
        raise UsageError(
            f"the ledger is not in {place.folder}: sessions elsewhere may use it; nothing was removed"
        )
    async with place.ledger() as ledger:
        return await prune_ledger(ledger, place.folder, dry_run=dry_run)


def import_(file: Path, name: str, location: Location) -> int:
    """Bring a session in from a file."""
    folder = asyncio.run(_import(Workspace(location, writes=True), file, name))
    again = RunRequest(config=location.config, output=location.output).again(folder.name)
    tell(f"{folder}: imported; to go on with it: {again}")
    return 0


async def _import(place: Workspace, file: Path, name: str) -> Path:
    async with place.ledger(make=True) as ledger:
        return await import_session(file, place.folder, ledger, name or None)

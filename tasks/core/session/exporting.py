"""A session's dataset in any format, read again from the ledger: no model is asked, nothing is paid for."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.core import files
from tasks.core.errors import SessionError, UsageError
from tasks.core.export.rows import RANKED, allowed_modes, in_mode
from tasks.core.export.writing import Spool, Wanted, write_export
from tasks.core.questions import chooses
from tasks.core.session.folder import locked
from tasks.core.session.record import restore_record
from tasks.core.session.resuming import find_resumption, survey_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.core.config.settings import Config, DatasetMode, FileType, Reasoning
    from tasks.core.export.rows import Exported, ExportFormat
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Job, Pair
    from tasks.core.session.resuming import Resumption


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is to be exported; what is None is as the session's own settings say.

    Attributes:
        output_format: The form of the rows.
        mode: Their mode.
        file_type: The form of the files.
        reasoning: Where the reasoning of answers goes.
        test_share: Share of the pairs that is for testing.
        seed: Decides which subtopics these are, and how kto rows are mixed.
        into: A folder that is not there yet, or empty; None for one in the session's own folder.
        partial: Whether a session that is not finished is exported as far as it is.
    """

    output_format: ExportFormat
    mode: DatasetMode | None = None
    file_type: FileType | None = None
    reasoning: Reasoning | None = None
    test_share: float | None = None
    seed: int | None = None
    into: Path | None = None
    partial: bool = False


def export_to(target: Path, pairs: Spool, wanted: Wanted) -> Exported:
    """Write pairs into a folder, which takes its place when it is whole.

    Raises:
        UsageError: Such rows cannot be.
        SessionError: The folder cannot be written.
    """
    try:
        with files.folder_replaced(target) as folder:
            exported = write_export(pairs, wanted, folder)
    except OSError as error:
        raise SessionError(f"{target} cannot be written: {error.strerror or error}") from error
    return replace(exported, folder=target)


async def export_dataset(folder: Path, ledger: Ledger, order: ExportRequest) -> Exported:
    """Write the dataset of a session from its calls in the ledger.

    Args:
        folder: The session's folder.
        ledger: The ledger that holds its answers.
        order: What is wanted.

    Raises:
        UsageError: The session is not finished, its calls do not hold what is wanted, or the folder for it is
            not empty.
        SessionLockedError: The session is being written.
        SessionError: The session cannot be read, or the files not be written.
        LedgerError: The ledger cannot be read.
    """
    await restore_record(folder, ledger)
    session = find_resumption(folder)
    before = _settings(session, ledger, order)
    wanted = _wanted(folder.name, before, order)
    target = order.into or folder / _name(order, before)
    await asyncio.to_thread(_make_place, order.into)
    # In the session's own folder there is one writer at a time.
    alone = _alone(folder) if order.into is None else nullcontext()
    with alone, Spool(target.parent, with_candidates=order.output_format == RANKED) as pairs:
        await _collect(session, before, ledger, wanted.config, pairs, partial=order.partial)
        if wanted.test_share and not pairs.subtopics.test(wanted.test_share, wanted.seed):
            raise UsageError(
                f"session {folder.name} has one subtopic, and a test split takes whole ones: "
                "leave --test-share out"
            )
        return await asyncio.to_thread(export_to, target, pairs, wanted)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with locked(folder):
        files.sweep(folder)
        yield


def _settings(session: Resumption, ledger: Ledger, order: ExportRequest) -> Config:
    """The settings that a session was made with, where it can be exported."""
    name = session.folder.name
    if session.foreign:
        raise UsageError(f"session {name} is VellumForge2's; resume it first, then export it")
    if session.before is None:
        raise UsageError(f"the settings of session {name} are not known")
    if session.record.ledger not in {"", ledger.id}:
        raise UsageError(f"session {name} has its answers in another ledger than this one")
    if not session.record.complete and not order.partial:
        raise UsageError(
            f"session {name} is not finished: go on with `vellumforge2 checkpoint resume {name}`, or export "
            "what there is of it with --partial"
        )
    return session.before


def _wanted(name: str, before: Config, order: ExportRequest) -> Wanted:
    mode = order.mode or before.generation.dataset_mode
    if order.output_format == RANKED and not chooses(before):
        raise UsageError(
            f"session {name} has one answer of each model to a prompt, and nothing to rank; [candidates] "
            "asks for several"
        )
    if order.output_format == RANKED and mode != before.generation.dataset_mode:
        raise UsageError(f"--mode {mode}: all answers are ranked, whatever the mode; leave it out")
    allowed = allowed_modes(before)
    if mode not in allowed:
        raise UsageError(
            f"session {name} was made in mode {before.generation.dataset_mode}, whose calls do not hold what "
            f"{mode} needs; they allow {' and '.join(allowed)}"
        )
    given: dict[str, Any] = {
        "file_type": order.file_type,
        "reasoning": order.reasoning,
        "test_share": order.test_share,
        "seed": order.seed,
    }
    wanted = Wanted.by_settings(in_mode(before, mode), order.output_format)
    wanted = replace(wanted, **{key: value for key, value in given.items() if value is not None})
    if order.output_format == "native" and order.reasoning is None:
        # The settings mean what trainers are given.
        wanted = replace(wanted, reasoning="none")
    wanted.check()
    return wanted


def _name(order: ExportRequest, before: Config) -> str:
    own = order.mode in {None, before.generation.dataset_mode}
    return order.output_format if own else f"{order.output_format}-{order.mode}"


def _make_place(into: Path | None) -> None:
    """See that an export can go there, before anything is read for it."""
    if into is None:
        return
    files.check_folder(into, writes=True)
    try:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise UsageError(f"there is something at {into}: name a folder that is not there yet")
        into.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SessionError(f"{into} cannot be written: {error.strerror}") from error


async def _collect(
    session: Resumption, before: Config, ledger: Ledger, config: Config, pairs: Spool, *, partial: bool
) -> None:
    """Put into the spool what a run with the settings `config` would make of the session's answers."""

    def keep(_job: Job, pair: Pair | None) -> None:
        if pair is not None:
            pairs.add(pair)

    own = config.generation.dataset_mode == before.generation.dataset_mode
    found = await survey_session(session.record, before, ledger, keep if own else None)
    name = session.folder.name
    if not partial and (found.to_pay.total() or found.done < len(found.jobs)):
        raise UsageError(
            f"the ledger lacks calls of session {name}: resume it with --accept-changes to pay for them, or "
            "export what is there with --partial"
        )
    if not own:
        # Another mode keeps other prompts out and replaces others; what it would still ask for is left out.
        await survey_session(session.record, config, ledger, keep)
    if not pairs:
        raise UsageError(f"session {name} has no pairs to export")

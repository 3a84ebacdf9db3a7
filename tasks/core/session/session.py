"""An open session: the folder's files, and the projection of pairs into them."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import files
from tasks.core.errors import SessionError
from tasks.core.export.rows import TRL
from tasks.core.export.writing import Spool, Wanted
from tasks.core.models import Phase
from tasks.core.questions import chooses
from tasks.core.rows.formats import candidates_line, lines_of, with_reasoning
from tasks.core.session.checkpoint import CheckpointState, CheckpointWriter, config_hash
from tasks.core.session.dataset import CANDIDATES, DATASET, REASONING, DatasetFile, journal
from tasks.core.session.exporting import export_to
from tasks.core.session.folder import create_folder, locked
from tasks.core.session.record import BACKUP, SessionRecord, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.core.config.settings import Config
    from tasks.core.export.rows import Exported
    from tasks.core.lint.report import Report
    from tasks.core.models import Job, Pair
    from tasks.core.progress import Progress
    from tasks.core.session.resuming import Resumption

log = logging.getLogger("vellumforge.session")

FLUSH_SECONDS = 1.0
"""How often the growing files are handed to the system, so that people can follow them."""


class Session:
    """One session folder that is being written.

    Attributes:
        folder: The folder.
        record: What is recorded of it; `id` is its UUID.
        backup: The text of its `config.toml.bak`; "" to leave what is there.
        dataset: `dataset.jsonl`.
        reasoning: `dataset_reasoning.jsonl`, or None without reasoning capture.
        candidates: `candidates.jsonl`, or None where each model answers once.
        checkpoint: `checkpoint.json`.
        lint: What lint found in the finished dataset; None before that.
        exported: What was written for trainers, once the session is complete; None without that format.
        report: The page about it; None before that, or where it could not be written.
    """

    def __init__(
        self, folder: Path, config: Config, progress: Progress, record: SessionRecord, *, done_before: int = 0
    ) -> None:
        generation = config.generation
        self.folder = folder
        self.record = record
        self.backup = ""
        self.lint: Report | None = None
        self.exported: Exported | None = None
        self.report: Path | None = None
        self.dataset = DatasetFile(folder / DATASET)
        capture = generation.enable_reasoning_capture
        self.reasoning = DatasetFile(folder / REASONING) if capture else None
        several = chooses(config)
        self.candidates = DatasetFile(folder / CANDIDATES) if several else None
        self._pairs = Spool(folder) if TRL in config.output.formats else None
        self.checkpoint = CheckpointWriter(
            folder / "checkpoint.json",
            CheckpointState(
                record.id,
                config_hash(config),
                started=record.created,
                seconds_before=record.seconds,
                resumed=time.time(),
            ),
            enabled=generation.enable_checkpointing,
            interval=generation.checkpoint_interval,
            floor=done_before,
        )
        self._config = config
        self._progress = progress
        self._finished: set[int] = set()
        self._opened = self._flushed = time.monotonic()

    @property
    def name(self) -> str:
        """The folder's name, under which people and the ledger know the session."""
        return self.folder.name

    def keep(self, job: Job, pair: Pair | None) -> None:
        """Take over a finished job: its rows go into the dataset, its id into the checkpoint.

        Args:
            job: The job; one that was taken over before changes nothing.
            pair: Its pair, or None when it yields no usable pair.
        """
        if job.id in self._finished:
            return
        self._finished.add(job.id)
        state = self.checkpoint.state
        if pair is None:
            state.filtered += 1
        else:
            lines = lines_of(self._config, pair)
            self.dataset.add(job.id, lines)
            self._progress.rows += lines.count(b"\n")
            if self.reasoning is not None:
                self.reasoning.add(job.id, lines_of(self._config, with_reasoning(self._config, pair)))
            if self.candidates is not None:
                self.candidates.add(job.id, candidates_line(self._config, pair))
            if self._pairs is not None:
                self._pairs.add(pair)
        self.checkpoint.completed(job.id)
        if (now := time.monotonic()) - self._flushed > FLUSH_SECONDS:
            self._flushed = now
            for file in self._files():
                file.flush()

    def write_description(self) -> None:
        """Write the copy of the configuration, and last the record, with which the session is ours.

        Raises:
            SessionError: The folder cannot be written to.
        """
        try:
            if self.backup:
                files.write(self.folder / BACKUP, self.backup.encode())
        except OSError as error:
            raise SessionError(f"{self.folder} cannot be written: {error.strerror}") from error
        write_record(self.folder, self.record)

    async def enter(self, phase: Phase) -> None:
        """Note that a phase begins, in the checkpoint."""
        self.checkpoint.state.phase = phase
        await self.checkpoint.save()

    async def finish(self, *, complete: bool) -> None:
        """Put the dataset in its final order, write the last checkpoint, and of all rows what trainers take.

        Args:
            complete: Whether every job is done; else the checkpoint stays in its phase, to be resumed.
        """
        for file in self._files():
            await asyncio.to_thread(file.finish, complete=complete)
        if complete and self.candidates is None:
            self._remove_candidates()
        if complete and self._pairs:
            self.exported = await asyncio.to_thread(self._export, self._pairs)
        if complete:
            self.checkpoint.state.phase = Phase.COMPLETE
            self.checkpoint.state.ended = time.time()
        await self.checkpoint.save()
        seconds = self.record.seconds + time.monotonic() - self._opened
        self.record = replace(self.record, complete=complete, seconds=seconds)
        await asyncio.to_thread(write_record, self.folder, self.record)

    def close(self) -> None:
        """Close the files as they are; after `finish` this changes nothing.

        Raises:
            SessionError: What waited in memory cannot be written; all files are closed all the same.
        """
        self.checkpoint.close()
        with ExitStack() as files_left:
            for file in self._files():
                files_left.callback(file.close)
            if self._pairs is not None:
                files_left.callback(self._pairs.close)

    def _remove_candidates(self) -> None:
        """Remove what a run before chose its rows of: those of now are not chosen of it.

        Raises:
            SessionError: It cannot be removed.
        """
        path = self.folder / CANDIDATES
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SessionError(f"{path} cannot be removed: {error.strerror}") from error

    def _export(self, pairs: Spool) -> Exported:
        wanted = Wanted.by_settings(self._config, TRL)
        if wanted.test_share and not pairs.subtopics.test(wanted.test_share, wanted.seed):
            log.warning("all pairs are of one subtopic, so none is kept for a test split")
        return export_to(self.folder / TRL, pairs, wanted)

    def _files(self) -> list[DatasetFile]:
        return [file for file in (self.dataset, self.reasoning, self.candidates) if file is not None]


@contextmanager
def open_session(
    config: Config,
    progress: Progress,
    *,
    text: str,
    overridden: Mapping[str, object],
    ledger: str,
    flow_run: str = "",
    resumption: Resumption | None = None,
    held: bool = False,
) -> Iterator[Session]:
    """Open a session for writing: a new one, or one that is resumed.

    Its folder is locked meanwhile, and holds its log, its record and its copy of the configuration.

    Args:
        config: The configuration.
        progress: Counts the rows.
        text: The configuration file as it was read, kept as `config.toml.bak`.
        overridden: Settings that came from elsewhere, by dotted key: noted as comments below the text.
        ledger: Id of the ledger.
        flow_run: Id of the Prefect flow run, "" when there is none.
        resumption: The session to resume; None for a new one.
        held: Whether the caller holds its lock already.

    Raises:
        SessionLockedError: Another process writes to it.
        SessionError: The folder cannot be made or written.
    """
    settings = config.model_dump(mode="json", exclude_unset=True)
    if resumption is None:
        record = SessionRecord(str(uuid.uuid4()), time.time(), settings, ledger, flow_run=flow_run)
        folder = create_folder(
            Path(config.output.folder), datetime.now().astimezone(), partial(write_record, record=record)
        )
    else:
        folder = resumption.folder
        record = replace(resumption.record, settings=settings, ledger=ledger, complete=False)
    with nullcontext() if held else locked(folder), journal(folder / "session.log"):
        files.sweep(folder.parent)
        files.sweep(folder)
        done_before = 0 if resumption is None else resumption.done
        session = Session(folder, config, progress, record, done_before=done_before)
        session.backup = _backup(text, overridden) if text else ""
        try:
            # What VellumForge2 wrote describes the session until it is taken over.
            if resumption is None or not resumption.foreign:
                session.write_description()
            yield session
        except BaseException:
            # What ended the run counts; that the files cannot be closed either is only what follows.
            with suppress(SessionError):
                session.close()
            raise
        session.close()


def _backup(text: str, overridden: Mapping[str, object]) -> str:
    if not overridden:
        return text
    lines = [f"# {key} = {value!r}" for key, value in overridden.items()]
    return "\n".join([text.rstrip("\n"), "", "# Set on the command line or by the environment:", *lines, ""])

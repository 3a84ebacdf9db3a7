"""A session of VellumForge2 taken over: its rows become calls that are paid for, its jobs stay its jobs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core import files
from tasks.core.errors import SessionError
from tasks.core.rows.vellumforge2 import read_rows
from tasks.core.session.adoption import entries_of
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.dataset import DATASET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Job
    from tasks.core.questions import Questions

ORIGINAL = "dataset.vellumforge2.jsonl"
"""The rows as they were found, kept beside the new file: nothing is lost by taking over."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """What was taken over.

    Attributes:
        subtopics: The session's subtopics, in order.
        jobs: Its jobs by id; None when its prompts were not complete.
        pairs: Jobs whose rows were taken over.
        duplicates: Rows that were there twice and are dropped.
        damaged: Torn or damaged lines.
        rowless: Jobs that were marked done and have no whole row: they are done again.
        strangers: Rows that belong to none of the jobs; they stay in the kept file alone.
    """

    subtopics: tuple[str, ...]
    jobs: Sequence[Job] | None
    pairs: int = 0
    duplicates: int = 0
    damaged: int = 0
    rowless: int = 0
    strangers: int = 0

    def lines(self) -> list[str]:
        """What people should know, a line each."""
        counted = [
            (self.pairs, "pairs were taken over as paid for"),
            (self.duplicates, "rows were there twice and are dropped"),
            (self.damaged, "lines were torn or damaged; what could be read of them is used"),
            (self.rowless, "jobs were marked done and have no whole row; they are done again"),
            (self.strangers, f"rows belong to no job of the session; they stay in {ORIGINAL}"),
        ]
        return [f"{count:,} {what}" for count, what in counted if count]


def brings_jobs(folder: Path) -> bool:
    """Whether a session of VellumForge2 has its prompts, so that its jobs are known.

    Raises:
        SessionError: The checkpoint cannot be read.
    """
    found = read_checkpoint(folder)
    return found is not None and found.prompts_complete and bool(found.subtopics) and found.subtopics_complete


async def take_over(
    folder: Path, config: Config, questions: Questions, ledger: Ledger, session: str
) -> Takeover:
    """Put the rows of a session's dataset into the ledger, and keep the file as it was found.

    Doing it again changes nothing, so one that was cut off is simply repeated.

    Raises:
        SessionError: The checkpoint or the dataset cannot be read, or the copy not be made.
        LedgerError: The ledger cannot be written.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        raise SessionError(f"session {folder.name} has no checkpoint: its jobs are not known")
    subtopics = checkpoint.subtopics if checkpoint.subtopics_complete else ()
    if not checkpoint.prompts_complete:
        return Takeover(subtopics, None)
    source = folder / ORIGINAL if (folder / ORIGINAL).exists() else folder / DATASET
    try:
        found = read_rows(source)
        if source.name == DATASET and source.exists():
            _keep_original(source, folder / ORIGINAL)
    except OSError as error:
        raise SessionError(f"{source} cannot be taken over: {error.strerror}") from error
    jobs = checkpoint.jobs
    pairs = rowless = 0
    for job in jobs:
        row = found.rows.get(job.prompt)
        whole = row is not None and row.is_whole(config.generation.dataset_mode)
        pairs += whole
        rowless += job.id in checkpoint.completed and not whole
        if row is not None:
            await ledger.put_all(entries_of(config, questions, job, row, session))
    prompts = {job.prompt for job in jobs}
    return Takeover(
        subtopics,
        jobs,
        pairs=pairs,
        duplicates=found.duplicates,
        damaged=found.damaged,
        rowless=rowless,
        strangers=sum(1 for prompt in found.rows if prompt not in prompts),
    )


def _keep_original(source: Path, original: Path) -> None:
    # In one step: the next take-over would take the half of a copy that was cut off for the whole.
    with files.opened(source) as rows, files.replaced(original) as copy:
        shutil.copyfileobj(rows, copy)

"""Pairs that were paid for elsewhere are put into the ledger, under the keys that the session will ask for.

That is how a session of VellumForge2 is taken over, and how sessions are merged: afterwards they are
resumed like any other, and what they had costs nothing.
"""

from __future__ import annotations

import shutil
import time
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter, ValidationError

from tasks.core import files
from tasks.core.answers.usable import ADOPTED, Reading
from tasks.core.errors import SessionError, UnusableAnswerError
from tasks.core.exchange.request import SEED_STRIDE, Answer
from tasks.core.forecast.survey import AT_A_TIME, survey
from tasks.core.generation.judging import wants_explanations
from tasks.core.generation.run import all_of
from tasks.core.ledger.schema import LedgerEntry
from tasks.core.models import GivenJob, Job, Purpose  # noqa: TC001 - pydantic needs them at run time
from tasks.core.questions import Questions, is_compared, is_scored, needs_scores, purposes_of
from tasks.core.rows.vellumforge2 import ForeignRow, read_rows
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.dataset import DATASET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import ChatRequest
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Pair, Scores


SAMPLES_A_PAIR = 1 << 16
"""Samples of an answer from one place of its job on: more than any answer is tried."""

NOBODY = ""
"""The session under which answers are put into the ledger again: they were paid for before."""


def entries_of(
    config: Config, questions: Questions, job: Job, row: ForeignRow, session: str
) -> list[LedgerEntry]:
    """The calls that would have brought a row, answered with it; what the row lacks has no call.

    Args:
        config: The session's configuration.
        questions: Its questions.
        job: The job that the row belongs to.
        row: What the row holds.
        session: The id under which the calls are recorded.
    """
    answered: list[tuple[ChatRequest, str, str]] = []
    if row.chosen is not None:
        answered.append((questions.chosen(job, 0), row.chosen, row.chosen_reasoning))
    if row.rejected is not None and Purpose.REJECTED in purposes_of(config):
        answered.append((questions.rejected(job, 0), row.rejected, row.rejected_reasoning))
    if Purpose.JUDGE in purposes_of(config):
        explain = wants_explanations(config)
        sides = ((row.chosen, row.chosen_scores), (row.rejected, row.rejected_scores))
        answered += [
            (questions.judge(job, _as_read(config, text), 0, explain=explain), _scores(scores), "")
            for text, scores in sides
            if text is not None and scores is not None
        ]
    now = time.time()
    return [
        LedgerEntry(
            request,
            Answer(content, reasoning, ADOPTED, model=request.model, started=now, finished=now),
            session,
        )
        for request, content, reasoning in answered
    ]


def _as_read(config: Config, text: str) -> str:
    """The text that a run makes of an adopted answer, which is what its judge is asked about."""
    try:
        return Reading.of(config).rejected(Answer(text, finish_reason=ADOPTED)).content
    except UnusableAnswerError:
        return text.strip()


def _scores(scores: Scores) -> str:
    document = {
        name: {"score": item.score, "reasoning": item.reasoning} for name, item in scores.criteria.items()
    }
    return orjson.dumps(document).decode()


async def adopt_pairs(config: Config, found: Sequence[tuple[Job, Pair | None]], ledger: Ledger) -> list[Job]:
    """Put pairs of other settings into the ledger, so that these settings find them.

    Args:
        config: The settings that the pairs are to be found under.
        found: The jobs numbered from 0, and the pair of each, None where there is none.
        ledger: The ledger.

    Returns:
        The jobs with which their pairs are found.

    Raises:
        LedgerError: The ledger cannot be read or written.
    """
    there: dict[int, Pair | None] = {}
    jobs = [job for job, _ in found]
    await survey(unfiltered(config), ledger, lambda job, pair: there.update({job.id: pair}), jobs=jobs)
    questions = Questions(config)
    wanting = [(job, pair) for job, pair in found if pair and not _is_that(there.get(job.id), pair, config)]
    for start in range(0, len(wanting), AT_A_TIME):
        piece = wanting[start : start + AT_A_TIME]
        places = await all_of(_place(config, questions, job, pair, ledger) for job, pair in piece)
        await ledger.put_all([entry for _, entries in places for entry in entries])
        for job, _ in places:
            jobs[job.id] = job
    return jobs


def _is_that(there: Pair | None, pair: Pair, config: Config) -> bool:
    """Whether the pair that is found is the one that is wanted, as far as it goes."""
    if there is None or (there.chosen, there.rejected) != (pair.chosen, pair.rejected):
        return False
    scored = is_scored(config) and pair.chosen_scores is not None
    return not scored or (there.chosen_scores, there.rejected_scores) == (
        pair.chosen_scores,
        pair.rejected_scores,
    )


async def _place(
    config: Config, questions: Questions, job: Job, pair: Pair, ledger: Ledger
) -> tuple[Job, list[LedgerEntry]]:
    """The calls that bring a pair, and the job counted from samples that nobody has answered otherwise."""
    row = ForeignRow(
        job.prompt,
        pair.chosen.content,
        pair.rejected.content if pair.rejected else None,
        pair.chosen_scores,
        pair.rejected_scores,
        pair.chosen.reasoning,
        pair.rejected.reasoning if pair.rejected else "",
    )
    for first in range(0, SEED_STRIDE, SAMPLES_A_PAIR):
        placed = replace(job, first_sample=first)
        entries = entries_of(config, questions, placed, row, NOBODY)
        held = await ledger.get_many([entry.request.key for entry in entries])
        if all(
            entry.request.key not in held or held[entry.request.key].content == entry.answer.content
            for entry in entries
        ):
            return placed, entries
    return job, []  # As good as impossible; the pair is then asked for again, and counted so.


def unfiltered(config: Config) -> Config:
    """The same questions, and no pair is kept out: its answers are wanted all the same."""
    limits = {"min_chosen_score": float("-inf"), "max_rejected_score": float("inf")}
    filtering = config.judge_filtering.model_copy(update=limits)
    lint = config.lint.model_copy(update={"drop": []})
    # Below 0 it keeps out nothing, while pairs are judged and chosen as before.
    choice = config.candidates
    if needs_scores(config):
        choice = choice.model_copy(update={"min_margin": -1.0})
    judging = config.judging
    if judging.agree or is_compared(config):
        judging = judging.model_copy(update={"agree": -1})
    return config.model_copy(
        update={"judge_filtering": filtering, "lint": lint, "candidates": choice, "judging": judging}
    )


def pack_jobs(subtopics: Sequence[str], jobs: Sequence[Job] | None) -> bytes:
    """Subtopics and jobs that were taken over, as the ledger keeps them; `unpack_jobs` is the way back."""
    taken = _TakenOver(tuple(subtopics), None if jobs is None else list[Job](jobs))
    return zlib.compress(orjson.dumps(taken))


def unpack_jobs(packed: bytes) -> tuple[tuple[str, ...], list[Job] | None]:
    """The subtopics, and the jobs by id, or None when only the subtopics were taken over.

    Raises:
        SessionError: The bytes are damaged.
    """
    try:
        taken = _TAKEN_OVER.validate_json(zlib.decompress(packed))
    except (zlib.error, ValidationError) as error:
        raise SessionError("the jobs that were taken over cannot be read: they are damaged") from error
    return taken.subtopics, None if taken.jobs is None else list[Job](taken.jobs)


@dataclass(frozen=True, slots=True)
class _TakenOver:
    subtopics: tuple[str, ...]
    jobs: list[GivenJob | Job] | None


_TAKEN_OVER = TypeAdapter(_TakenOver)


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

"""Pairs that were paid for elsewhere are put into the ledger, under the keys that the session will ask for.

That is how a session of VellumForge2 is taken over, and how sessions are merged: afterwards they are
resumed like any other, and what they had costs nothing.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter, ValidationError

from tasks.core.answers.usable import ADOPTED, Reading
from tasks.core.errors import SessionError, UnusableAnswerError
from tasks.core.exchange.request import SEED_STRIDE, Answer
from tasks.core.forecast.survey import AT_A_TIME, survey
from tasks.core.generation.pairs import wants_explanations
from tasks.core.generation.run import all_of
from tasks.core.ledger.schema import LedgerEntry
from tasks.core.models import GivenJob, Job  # noqa: TC001 - pydantic needs them at run time
from tasks.core.questions import Questions, is_judged
from tasks.core.rows.vellumforge2 import ForeignRow

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    if row.rejected is not None and config.generation.dataset_mode != "sft":
        answered.append((questions.rejected(job, 0), row.rejected, row.rejected_reasoning))
    if is_judged(config):
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
    scored = is_judged(config) and pair.chosen_scores is not None
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
    return config.model_copy(update={"judge_filtering": filtering, "lint": lint})


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

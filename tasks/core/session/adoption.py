"""Pairs that were paid for elsewhere are put into the ledger, under the keys that the session will ask for.

That is how a session of VellumForge2 is taken over, and how sessions are merged: afterwards they are
resumed like any other, and what they had costs nothing.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter, ValidationError

from tasks.core.answers import ADOPTED
from tasks.core.errors import SessionError
from tasks.core.judging import wants_explanations
from tasks.core.llm.ledger_schema import LedgerEntry
from tasks.core.llm.types import Answer
from tasks.core.models import Job  # noqa: TC001 - pydantic needs it at run time
from tasks.core.questions import is_judged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.models import Config
    from tasks.core.llm.types import ChatRequest
    from tasks.core.models import Scores
    from tasks.core.questions import Questions
    from tasks.core.session.foreign import ForeignRow


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
    answered: list[tuple[ChatRequest, str]] = []
    if row.chosen is not None:
        answered.append((questions.chosen(job, 0), row.chosen))
    if row.rejected is not None and config.generation.dataset_mode != "sft":
        answered.append((questions.rejected(job, 0), row.rejected))
    if is_judged(config):
        explain = wants_explanations(config)
        sides = ((row.chosen, row.chosen_scores), (row.rejected, row.rejected_scores))
        answered += [
            (questions.judge(job, text.strip(), 0, explain=explain), _scores(scores))
            for text, scores in sides
            if text is not None and scores is not None
        ]
    now = time.time()
    return [
        LedgerEntry(
            request,
            Answer(content, finish_reason=ADOPTED, model=request.model, started=now, finished=now),
            session,
        )
        for request, content in answered
    ]


def _scores(scores: Scores) -> str:
    document = {
        name: {"score": item.score, "reasoning": item.reasoning} for name, item in scores.criteria.items()
    }
    return orjson.dumps(document).decode()


def pack_jobs(subtopics: Sequence[str], jobs: Sequence[Job] | None) -> bytes:
    """Subtopics and jobs that were taken over, as the ledger keeps them; `unpack_jobs` is the way back."""
    taken = _TakenOver(tuple(subtopics), None if jobs is None else list(jobs))
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
    return taken.subtopics, taken.jobs


@dataclass(frozen=True, slots=True)
class _TakenOver:
    subtopics: tuple[str, ...]
    jobs: list[Job] | None


_TAKEN_OVER = TypeAdapter(_TakenOver)

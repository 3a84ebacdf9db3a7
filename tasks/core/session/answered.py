"""What models answered where it could not be used: a few answers of each cause, with what was asked.

The answers are in the ledger, under the requests of the failures that are listed. What was asked is not: it
is found by walking the session, and left out where that leads nowhere.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tasks.core.errors import CallError
from tasks.core.judging import wants_explanations
from tasks.core.llm.ledger_failures import failures_by_request
from tasks.core.models import Phase, Purpose
from tasks.core.session.record import settings_of
from tasks.core.session.resuming import survey_session
from tasks.core.survey import Survey, SurveyRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.core.config.models import Config
    from tasks.core.llm.ledger import Ledger
    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.models import Failure, Job, Text
    from tasks.core.session.record import SessionRecord

OF_EACH = 3
"""Answers that are shown of each cause."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that could not be used; its texts are those of models.

    Attributes:
        phase: Where it was asked for.
        purpose: The call.
        cause: Why it cannot be used.
        item: What it was asked for.
        message: What was wrong with it.
        request: The ledger key of the request in hex.
        answer: The whole answer, as it came.
        reasoning: The reasoning that was reported beside it, or "".
        finish_reason: As the server reported it, or "".
        variables: What of the template's variables is known, by name.
    """

    phase: Phase
    purpose: Purpose
    cause: str
    item: str
    message: str
    request: str
    answer: str
    reasoning: str
    finish_reason: str
    variables: Mapping[str, str] = field(default_factory=dict)


async def unusable_answers(
    ledger: Ledger, record: SessionRecord, *, of_each: int = OF_EACH, jobs: Sequence[Job] | None = None
) -> list[Answered]:
    """A few of a session's answers that could not be used, the last ones listed of each call and cause.

    Args:
        ledger: The ledger.
        record: The session.
        of_each: So many at most of each call and cause.
        jobs: The session's jobs; left out, it is walked for them.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    listed = await failures_by_request(ledger, record.id)
    kinds: dict[tuple[str, str, str], list[bytes]] = {}
    for key, failure in listed.items():
        kinds.setdefault((failure.phase, failure.purpose, failure.cause), []).append(key)
    found: list[Answered] = []
    for keys in kinds.values():
        # Of most causes no answer ever came.
        answers = await ledger.get_many(keys[-of_each:])
        if answers and jobs is None:
            jobs = await _jobs(ledger, record)
        by_item = {f"job {job.id}": job for job in jobs or ()} if answers else {}
        for key in answers:
            failure, answer = listed[key], answers[key]
            found.append(
                Answered(
                    failure.phase,
                    failure.purpose,
                    failure.cause,
                    failure.item,
                    failure.message,
                    failure.request,
                    answer.content,
                    answer.reasoning,
                    answer.finish_reason,
                    await _variables(failure, record, by_item, ledger),
                )
            )
    return found


async def _jobs(ledger: Ledger, record: SessionRecord) -> Sequence[Job]:
    """The session's jobs; none where its settings are not known."""
    config = settings_of(record)
    if config is None or record.transform:
        return ()
    return (await survey_session(record, config, ledger)).jobs


async def _variables(
    failure: Failure, record: SessionRecord, jobs: Mapping[str, Job], ledger: Ledger
) -> dict[str, str]:
    """The template's variables, under the names that templates use."""
    config = settings_of(record)
    if job := jobs.get(failure.item):
        known = {"MainTopic": job.main_topic, "SubTopic": job.sub_topic, "Prompt": job.prompt}
        if config is not None and failure.purpose is Purpose.JUDGE:
            known |= await _judged(failure, job, config, ledger)
        return known
    topic = {} if config is None else {"MainTopic": config.generation.main_topic}
    return topic | {"SubTopic": failure.item} if failure.phase is Phase.PROMPTS else topic


async def _judged(failure: Failure, job: Job, config: Config, ledger: Ledger) -> dict[str, str]:
    """The answer that a call of the judge was about, of the job's two; none where it is not found."""
    run = SurveyRun(config, ledger, Survey())
    sides: list[tuple[Callable[[Job, int], ChatRequest], Callable[[Answer], Text]]] = [
        (run.questions.chosen, run.reading.chosen)
    ]
    if config.generation.dataset_mode != "sft":
        sides.append((run.questions.rejected, run.reading.rejected))
    for question, read in sides:
        with suppress(CallError):
            text = await run.ask_until_usable(partial(question, job), read)
            last, explain = failure.attempts - 1, wants_explanations(config)
            asked = run.questions.judge(job, text.content, last, explain=explain)
            if asked.key.hex() == failure.request:
                return {"StoryText": text.content}
    return {}

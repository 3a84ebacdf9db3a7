"""Asking again for some of what failed, and for nothing else: what there is, and what is left alone.

The session is walked over the ledger with all that is on its list of failures left alone. What then does not
come about either failed, or was never asked for.

Of an answer that cannot be used, whose allowed tries are all paid for, asking again is asking for a further
sample: as many as `max_retries` allows again, and at least one.

The answers are in the ledger, under the requests of the failures that are listed. What was asked is not: it
is found by walking the session, and left out where that leads nowhere.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tasks.core.errors import CallError, UsageError
from tasks.core.forecast.survey import UNPAID, Survey, SurveyRun, survey
from tasks.core.generation.candidates import spots_of
from tasks.core.generation.judging import checklist_of, wants_explanations
from tasks.core.generation.run import further_tries
from tasks.core.ledger.failures import failures_by_request, refused_questions
from tasks.core.models import UNUSABLE, Phase, Purpose
from tasks.core.printable import printable_line
from tasks.core.questions import JUDGEMENTS, kinds_of
from tasks.core.session.record import settings_of
from tasks.core.session.resuming import survey_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import ChatRequest
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Failure, Job
    from tasks.core.session.record import SessionRecord
    from tasks.core.session.resuming import Resumption


KEYS = ("cause", "phase", "purpose")
"""What failures are named by."""

LONGEST_ITEM = 60


@dataclass(frozen=True, slots=True)
class Only:
    """Which failures are asked again.

    Attributes:
        wanted: Allowed words by one of KEYS; a failure is named that has an allowed word under each key.
    """

    wanted: Mapping[str, tuple[str, ...]]

    def names(self, failure: Failure) -> bool:
        """Whether a failure is asked again."""
        return all(_word(failure, key) in words for key, words in self.wanted.items())


@dataclass(frozen=True, slots=True)
class Retry:
    """What a run does that asks only for some of what failed.

    Attributes:
        left_alone: What it does not ask, by key; see `LedgerClient.left_alone`. None for what a resume leaves
            alone.
        further: Answers of which further samples are asked for; see `Policy.further`.
        note: What should be known of the failures that it was told to ask again, or "".
    """

    left_alone: Mapping[bytes, Failure] | None
    further: Collection[bytes] = ()
    note: str = ""

    @property
    def is_special(self) -> bool:
        """Whether anything is done otherwise than by a resume."""
        return self.left_alone is not None or bool(self.further)


def read_only(words: Iterable[str]) -> Only | None:
    """The failures that `KEY=VALUE` texts name; None when there are no texts, which is all that is missing.

    Raises:
        UsageError: One of them is none.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS or not value:
            raise UsageError(f"--only takes cause=…, phase=… or purpose=…, and not {word!r}")
        wanted[key] = (*wanted.get(key, ()), value)
    return Only(wanted) if wanted else None


async def plan_retry(only: Only, resumption: Resumption, config: Config, ledger: Ledger) -> Retry:
    """What is left alone when only these failures are asked again; nothing is asked here.

    Raises:
        UsageError: A word is that of no failure which is still missing; or there are things that never were
            asked for.
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    name, listed = resumption.folder.name, await failures_by_request(ledger, resumption.record.id)
    if resumption.foreign or not listed:
        raise UsageError(f"no failures are listed for session {name}; {_resume(name)}")
    if config.generation.replaces:
        # What older versions listed by its status was replaced as well.
        listed |= await refused_questions(ledger, resumption.record.id)
    found = await survey_session(resumption.record, config, ledger, refused=listed, strict=True)
    missing = list(dict.fromkeys(found.failures))
    failed = [failure for failure in missing if failure.cause != UNPAID]
    named = _named(only, failed, name)
    if never := [failure.item for failure in missing if failure.cause == UNPAID]:
        more = f" and {len(never) - 1:,} more" if never[1:] else ""
        raise UsageError(
            f"session {name} has things that never were asked for ({printable_line(never[0], LONGEST_ITEM)}"
            f"{more}), and a retry asks only for what failed; first {_resume(name)}"
        )
    standing = {failure.request for failure in failed}
    left = {
        key: failure
        for key, failure in listed.items()
        # After an unusable answer that no longer stands, a further try was asked for, and may be named.
        if not only.names(failure) and (failure.cause not in UNUSABLE or failure.request in standing)
    }
    others = [failure for failure in failed if not only.names(failure)]
    twins = await _asked_beside(others, found, config, ledger)
    return Retry(twins | left, *_further(named, config))


async def plan_further(resumption: Resumption, config: Config, ledger: Ledger) -> Retry:
    """What is asked again when no failures are named: all that is missing, as by a resume. Asks nothing.

    Further samples are asked for where nothing else is missing: else what is replaced by new prompts would
    come twice.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    if resumption.foreign:
        return Retry(None)
    found = await survey_session(resumption.record, config, ledger, strict=True)
    replaces, wanted = config.generation.replaces, config.generation.wanted_pairs
    else_missing = any(
        failure.cause not in UNUSABLE and not (replaces and failure.is_final) for failure in found.failures
    )
    if else_missing or (replaces and found.done - len(found.lost) >= wanted):
        return Retry(None)
    return Retry(None, *_further(found.failures, config))


def _named(only: Only, failed: Sequence[Failure], name: str) -> list[Failure]:
    """The failures that are asked again.

    Raises:
        UsageError: There are none, or one of the words is that of none.
    """
    if not failed:
        raise UsageError(f"session {name} has no failure that is still missing; {_resume(name)}")
    for key, words in only.wanted.items():
        there = Counter(_word(failure, key) for failure in failed)
        for word in words:
            if word not in there:
                raise UsageError(
                    f"session {name} has no failure with {key}={word}; there are: "
                    + ", ".join(f"{key}={other} ({count:,})" for other, count in there.most_common())
                )
    if named := [failure for failure in failed if only.names(failure)]:
        return named
    kinds = Counter(" ".join(f"{key}={_word(failure, key)}" for key in KEYS) for failure in failed)
    raise UsageError(
        f"session {name} has no failure that is all that --only says; there are: "
        + ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
    )


async def _asked_beside(
    others: Sequence[Failure], found: Survey, config: Config, ledger: Ledger
) -> dict[bytes, Failure]:
    """What else would be asked for the jobs that are left alone, for nothing, by key: both calls may fail.

    Of a job's two answers, and of the judge's two, the list has one that failed: it stands for both.
    """
    jobs = {f"job {job.id}": job for job in found.jobs}
    beside: dict[bytes, Failure] = {}
    for failure in others:
        if failure.phase is Phase.PAIRS and failure.request and failure.item in jobs:
            alone = {bytes.fromhex(failure.request): failure}
            walked = await survey(config, ledger, jobs=[jobs[failure.item]], refused=alone)
            beside |= dict.fromkeys(walked.missing, failure)
    return beside


def _further(failures: Sequence[Failure], config: Config) -> tuple[frozenset[bytes], str]:
    """The answers of which further samples are asked for, and what is to be said of them; "" without any."""
    unusable = [
        failure
        for failure in failures
        if failure.cause in UNUSABLE and failure.attempts > _tries(config, failure.purpose)
    ]
    if not unusable:
        return frozenset(), ""
    causes = Counter(failure.cause for failure in unusable).most_common()
    words = ", ".join(f"{count:,} {cause}" for cause, count in causes)
    note = f"{words}: every allowed try is paid for, and none can be used; further ones are asked for"
    return frozenset(bytes.fromhex(failure.request) for failure in unusable), note


def _tries(config: Config, purpose: Purpose) -> int:
    """The fewest further tries that any model has which answers calls of a purpose."""
    return min(further_tries(config, kind) for kind in kinds_of(config, [purpose]))


def _word(failure: Failure, key: str) -> str:
    return str(getattr(failure, key))


def _resume(name: str) -> str:
    return f"go on with it: vellumforge2 checkpoint resume {name}"


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
        if config is not None and failure.purpose in JUDGEMENTS:
            known |= await _judged(failure, job, config, ledger)
        return known
    topic = {} if config is None else {"MainTopic": config.generation.main_topic}
    return topic | {"SubTopic": failure.item} if failure.phase is Phase.PROMPTS else topic


async def _judged(failure: Failure, job: Job, config: Config, ledger: Ledger) -> dict[str, str]:
    """What a judge's call was about, of all answers of the job; nothing where it is not found."""
    run = SurveyRun(config, ledger, Survey())
    last, explain, judges = failure.attempts - 1, wants_explanations(config), config.judging.models
    texts = []
    for spot in spots_of(config):
        with suppress(CallError):
            question, read = partial(spot.question, run.questions, job), partial(spot.read, run.reading)
            text, _ = await run.ask_until_usable(question, read)
            texts.append(text.content)
    checklist: tuple[str, ...] = ()
    if failure.purpose is Purpose.CHECKS:
        with suppress(CallError):
            checklist = await checklist_of(run, job)

    def about() -> Iterator[tuple[ChatRequest, dict[str, str]]]:
        for judge in judges:
            for text in texts:
                match failure.purpose:
                    case Purpose.JUDGE:
                        asked = run.questions.judge(job, text, last, explain=explain, section=judge)
                        yield asked, {"StoryText": text}
                    case Purpose.CHECKS:
                        asked = run.questions.checks(job, text, checklist, last, judge)
                        yield asked, {"StoryText": text, "Checklist": "\n".join(checklist)}
                    case Purpose.COMPARISON:
                        for other in texts:
                            asked = run.questions.comparison(job, text, other, last, judge)
                            yield asked, {"AnswerA": text, "AnswerB": other}

    return next((known for asked, known in about() if asked.key.hex() == failure.request), {})

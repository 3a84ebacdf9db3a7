"""Phase 3: the answers of each job, chosen and rejected at the same time, then the judge's scores.

A pair is kept when its scores pass the thresholds.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.core.chat.access import CALLS_OF_A_JOB
from tasks.core.chat.budget import open_tab
from tasks.core.errors import (
    CallError,
    LedgerError,
    RefusedError,
    SessionError,
    UnusableAnswerError,
    VellumforgeError,
)
from tasks.core.generation.candidates import CAUSES, can_choose, choose, misfit, spots_of
from tasks.core.generation.judging import (
    NO_AGREEMENT,
    Unscored,
    checklist_of,
    compare,
    contested,
    score_all,
    score_pair,
)
from tasks.core.generation.losses import Loss
from tasks.core.generation.run import all_of, failure_of
from tasks.core.lint.linter import PREFIX, dropped_by
from tasks.core.models import QUESTION_REFUSED, UNUSABLE, Candidate, Pair, Phase, Purpose
from tasks.core.questions import chooses, is_compared, is_judged, is_scored, scoring_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.candidates import Spot
    from tasks.core.generation.run import Run
    from tasks.core.models import Failure, Job, Scores, Text


def passes(config: Config, pair: Pair) -> bool:
    """Whether a judged pair stays in the dataset; without filtering, and in mo-dpo, every pair does."""
    limits = config.judge_filtering
    if not limits.enabled or config.generation.dataset_mode == "mo-dpo":
        return True
    good = pair.chosen_scores is None or pair.chosen_scores.total >= limits.min_chosen_score
    bad = pair.rejected_scores is None or pair.rejected_scores.total <= limits.max_rejected_score
    return good and bad


FILTERED = "filtered"
"""Why a pair is kept out that the judge's thresholds do not let in."""
_BY_SCORES = CAUSES | {FILTERED, NO_AGREEMENT}


@dataclass(frozen=True, slots=True)
class PairsOutcome:
    """What became of a block of jobs.

    Attributes:
        kept: How many have a pair.
        lost: Those that yield no usable pair however often they are asked, by id, with the cause: what
            `kept_out` says, or that of their failure where failures are replaced.
        failures: What failed, in the order of jobs.
        open: How many of them are not lost: asked again, they may come about.
        in_doubt: Ids of the jobs of which a server refused a question once: they are neither done nor failed,
            and are to be worked on again once all others were; see `settle`.
    """

    kept: int
    lost: Mapping[int, str]
    failures: tuple[Failure, ...]
    open: int = 0
    in_doubt: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Ask:
    """A job with the first requests for its answers, made once; `rejected` is None in sft."""

    job: Job
    chosen: ChatRequest
    rejected: ChatRequest | None
    candidates: tuple[ChatRequest, ...] = ()

    def requests(self) -> tuple[ChatRequest, ...]:
        if self.candidates:
            return self.candidates
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)


async def make_pairs(run: Run, jobs: Sequence[Job], keep: Callable[[Job, Pair | None], None]) -> PairsOutcome:
    """Get the pairs of some jobs.

    Args:
        run: The run.
        jobs: The jobs; of all blocks together, `generation.concurrency` are asked at a time.
        keep: Called with each finished job and its pair as soon as all that belongs to the pair is
            durable, in no set order; with None for one that yields no usable pair.

    Returns:
        The numbers, and the failures in the order of jobs. A failed job does not stop the others.

    Raises:
        SessionError: `keep` could not write a pair; the run is stopped, and nothing more is paid for.
    """
    several = chooses(run.config) or is_compared(run.config)
    block = _Candidates(run, keep) if several else _Block(run, keep)
    asks = [block.ask(job) for job in jobs]
    block.known = await run.client.recall(request for ask in asks for request in ask.requests())
    waiting = []
    try:
        for ask in asks:
            if block.is_answered(ask) and not is_judged(run.config):
                # Nothing to wait for, so no task and no slot: this is what makes a re-run fast.
                await block.work(ask)
            else:
                waiting.append(ask)
        await all_of(block.work(ask) for ask in waiting)
    except VellumforgeError:
        # What failed before the run was told to stop may be why, and people look for it on the list.
        with suppress(LedgerError):
            await run.list_failures(block.failures_of(jobs))
        raise
    failures = block.failures_of(jobs)
    await run.list_failures(failures)
    still_open = sum(number not in block.lost for number in block.failures)
    return PairsOutcome(block.kept, block.lost, failures, still_open, frozenset(block.in_doubt))


async def settle(
    jobs: Sequence[Job], make: Callable[[Sequence[Job]], Awaitable[list[PairsOutcome]]]
) -> list[PairsOutcome]:
    """Make the pairs of some jobs, and work once more on those that are in doubt, once all others are done.

    Args:
        jobs: The jobs.
        make: Makes the pairs of some of them.

    Returns:
        What became of them; none is in doubt any more.
    """
    outcomes = await make(jobs)
    settled = [replace(outcome, in_doubt=frozenset()) for outcome in outcomes]
    # Each time round another question of a job may be the one that is refused; it has but a few.
    while doubtful := frozenset[int]().union(*(outcome.in_doubt for outcome in outcomes)):
        outcomes = await make([job for job in jobs if job.id in doubtful])
        settled += [replace(outcome, in_doubt=frozenset()) for outcome in outcomes]
    return settled


def kept_out(config: Config, pair: Pair) -> str:
    """Why a pair is not in the dataset; "" when it is.

    That is `lint_<check>`, `filtered`, or what `misfit` or `contested` says.
    """
    if cause := dropped_by(config, pair) or misfit(config, pair):
        return cause
    return contested(config, pair) if passes(config, pair) else FILTERED


def is_kept_out(cause: str) -> bool:
    """Whether a job has its answers, and lint, judges, thresholds or the choice keep its pair out."""
    return cause in _BY_SCORES or cause.startswith(PREFIX)


def is_left_alone(run: Run, job: Job) -> bool:
    """Whether a job is not worked on, because one of its questions was refused for good."""
    if chooses(run.config):
        return False  # Of several answers, others may do.
    alone, questions = run.client.left_alone, run.questions
    return bool(alone) and (questions.chosen(job, 0).key in alone or questions.rejected(job, 0).key in alone)


class _Block:
    """Some jobs that are worked on together, what of their answers was found, and what became of them."""

    def __init__(self, run: Run, keep: Callable[[Job, Pair | None], None]) -> None:
        self.known: Mapping[bytes, Answer | None] = {}
        self.kept = 0
        self.lost: dict[int, str] = {}
        self.failures: dict[int, Failure] = {}
        self.in_doubt: set[int] = set()
        self._run = run
        self._keep = keep
        self._texts: dict[bytes, Text] = {}
        self._has_opinions = is_compared(run.config) or len(run.config.judging.models) > 1

    def failures_of(self, jobs: Sequence[Job]) -> tuple[Failure, ...]:
        """What failed, in the order of jobs."""
        return tuple(self.failures[job.id] for job in jobs if job.id in self.failures)

    def ask(self, job: Job) -> _Ask:
        questions = self._run.questions
        with_rejected = self._run.config.generation.dataset_mode != "sft"
        return _Ask(job, questions.chosen(job, 0), questions.rejected(job, 0) if with_rejected else None)

    def is_answered(self, ask: _Ask) -> bool:
        """Whether the answers that were found can be used, so that nothing of the job is left to ask."""
        reading = self._run.reading
        try:
            for request, read in zip(ask.requests(), (reading.chosen, reading.rejected), strict=False):
                answer = self.known[request.key]
                if answer is None:
                    return False
                self._texts[request.key] = read(answer)
        except UnusableAnswerError:
            return False
        return True

    def _once(self, request: ChatRequest, read: Callable[[Answer], Text]) -> Callable[[Answer], Text]:
        """The same as `read`, but for an answer that was found and is read already."""
        text, found = self._texts.pop(request.key, None), self.known[request.key]
        return lambda answer: read(answer) if text is None or answer is not found else text

    async def work(self, ask: _Ask) -> None:
        """Make the job's pair and hand it on, or note why there is none."""
        run = self._run
        run.losses.work_on(ask.job.id)
        with open_tab() as tab:
            pair = await self._make(ask)
        if isinstance(pair, _Failed) and isinstance(pair.error, RefusedError):
            self.in_doubt.add(ask.job.id)
            doubt = Loss(f"job {ask.job.id}", pair.purpose, QUESTION_REFUSED, str(pair.error))
            run.losses.doubt(ask.job.id, doubt)
            return
        run.progress.done += 1
        asked = tab.asked > 0
        if isinstance(pair, _Failed):
            failure = failure_of(pair.error, Phase.PAIRS, f"job {ask.job.id}", pair.purpose)
            self.failures[ask.job.id] = failure
            if failure.is_final:
                run.losses.lose(_loss_of(failure, pair.error), asked=asked, failed=True)
            if run.gives_up(failure):
                self.lost[ask.job.id] = failure.cause
                self._hand_on(ask.job, None)
            return
        if self._has_opinions and (pair.comparisons or not is_compared(run.config)):
            swapped = bool(pair.comparisons) and run.config.judging.swap
            run.progress.opinions.add(pair.opinions, swapped=swapped)
        if cause := kept_out(run.config, pair):
            self.lost[ask.job.id] = cause
            run.progress.lost[cause] += 1
            run.losses.lose(_kept_out(run.config, pair, cause), asked=asked, failed=False)
            self._hand_on(ask.job, None)
        else:
            self.kept += 1
            run.progress.kept += 1
            run.losses.keep(asked=asked)
            run.progress.truncated += pair.chosen.truncated
            self._hand_on(ask.job, pair)

    def _hand_on(self, job: Job, pair: Pair | None) -> None:
        try:
            self._keep(job, pair)
        except SessionError as error:
            # The other jobs would be paid for, and the run would fail all the same.
            self._run.stop.request(error)
            raise

    async def _make(self, ask: _Ask) -> Pair | _Failed:
        trial = self._run.trial
        if trial.over or self.is_answered(ask):
            return await self._made(ask)
        await trial.begin()
        judged = False
        try:
            pair = await self._made(ask)
            judged = isinstance(pair, Pair) and bool(pair.chosen_scores or pair.comparisons)
        finally:
            trial.finish(judged=judged)
        return pair

    async def _made(self, ask: _Ask) -> Pair | _Failed:
        run = self._run
        if failed := self._left_alone(ask):
            await self._use_known(ask)
            return failed
        async with run.generating:
            chosen, rejected = await self._answers(ask)
        if isinstance(chosen, _Failed) or isinstance(rejected, _Failed):
            return _decisive(chosen, rejected)
        pair = Pair(ask.job, chosen, rejected)
        # What lint keeps out need not be judged.
        if not is_scored(run.config) or dropped_by(run.config, pair):
            return pair
        checklist = await self._checklist(ask.job)
        if isinstance(checklist, _Failed):
            return checklist
        try:
            return await score_pair(run, pair, checklist)
        except CallError as error:
            return _Failed(scoring_of(run.config)[-1], error)

    async def _checklist(self, job: Job) -> tuple[str, ...] | _Failed:
        try:
            return await checklist_of(self._run, job)
        except CallError as error:
            return _Failed(Purpose.CHECKLIST, error)

    def _left_alone(self, ask: _Ask) -> _Failed | None:
        """Why there can be no pair, so that its other half is not paid for; None when there can be one."""
        for request in ask.requests():
            if self.known[request.key] is None and (error := self._run.client.error_of(request)):
                return _Failed(request.purpose, error)
        return None

    async def _use_known(self, ask: _Ask) -> None:
        """Have what was paid for counted as used: there may be a pair when the other half is asked again."""
        for request in ask.requests():
            if self.known[request.key] is not None:
                await self._run.client.ask(request, self.known)

    async def _answers(self, ask: _Ask) -> tuple[Text | _Failed, Text | _Failed | None]:
        """Both answers, asked for at the same time; what one of them failed with does not stop the other."""
        if ask.rejected is None:
            return await self._chosen(ask), None
        if all(self.known[request.key] is not None for request in ask.requests()):
            return await self._chosen(ask), await self._rejected(ask, ask.rejected)
        first, second = await all_of((self._chosen(ask), self._rejected(ask, ask.rejected)))
        return first, second

    async def _chosen(self, ask: _Ask) -> Text | _Failed:
        questions = self._run.questions
        try:
            return await self._run.ask_until_usable(
                lambda sample: questions.chosen(ask.job, sample) if sample else ask.chosen,
                self._once(ask.chosen, self._run.reading.chosen),
                self.known,
            )
        except CallError as error:
            return _Failed(Purpose.CHOSEN, error)

    async def _rejected(self, ask: _Ask, first: ChatRequest) -> Text | _Failed:
        questions = self._run.questions
        try:
            return await self._run.ask_until_usable(
                lambda sample: questions.rejected(ask.job, sample) if sample else first,
                self._once(first, self._run.reading.rejected),
                self.known,
            )
        except CallError as error:
            return _Failed(Purpose.REJECTED, error)


class _Candidates(_Block):
    """The same, with several answers to each prompt, of which two become a pair."""

    def __init__(self, run: Run, keep: Callable[[Job, Pair | None], None]) -> None:
        super().__init__(run, keep)
        self._spots = spots_of(run.config)

    def ask(self, job: Job) -> _Ask:
        requests = tuple(spot.question(self._run.questions, job, 0) for spot in self._spots)
        return _Ask(job, requests[0], None, requests)

    def is_answered(self, ask: _Ask) -> bool:
        return all(self.known[request.key] is not None for request in ask.requests())

    async def _made(self, ask: _Ask) -> Pair | _Failed:
        run = self._run
        # Where each model answers once, both are needed; of several answers, others may do.
        if not chooses(run.config) and (alone := self._left_alone(ask)):
            await self._use_known(ask)
            return alone
        # No more at once than of any other job: connections and files are there for so many.
        at_once = asyncio.Semaphore(CALLS_OF_A_JOB // 2)

        async def answer(spot: Spot, request: ChatRequest) -> _Usable | _Failed:
            async with at_once:
                return await self._answer(ask.job, spot, request)

        async with run.generating:
            places = zip(self._spots, ask.requests(), strict=True)
            answers = await all_of(answer(spot, request) for spot, request in places)
        failed = [item for item in answers if isinstance(item, _Failed)]
        judged: list[Candidate] = []
        if not any(map(_is_open, failed)):
            found = await self._judged(ask.job, [item for item in answers if not isinstance(item, _Failed)])
            failed += [item for item in found if isinstance(item, _Failed)]
            judged = [item for item in found if isinstance(item, Candidate)]
        # One that is still to come may be the best: the choice is made when all are decided.
        if any(map(_is_open, failed)) or (failed and not can_choose(run.config, judged)):
            # What may come about is what is asked again.
            return min(failed, key=lambda item: (not _is_open(item), isinstance(item.error, RefusedError)))
        return await self._compared(choose(run.config, ask.job, judged))

    async def _answer(self, job: Job, spot: Spot, first: ChatRequest) -> _Usable | _Failed:
        run = self._run
        try:
            text, is_fit = await run.ask_until_usable(
                lambda sample: spot.question(run.questions, job, sample) if sample else first,
                lambda answer: spot.read(run.reading, answer),
                self.known,
            )
        except CallError as error:
            return _Failed(spot.kind.purpose, error)
        return _Usable(spot, text, is_fit)

    async def _judged(self, job: Job, answers: Sequence[_Usable]) -> list[Candidate | _Failed]:
        """The answers with their scores, where they are scored."""
        scored: Sequence[Scores | Unscored | None] = [None] * len(answers)
        if is_scored(self._run.config):
            checklist = await self._checklist(job)
            if isinstance(checklist, _Failed):
                return [checklist]
            scored = await score_all(self._run, job, [item.text for item in answers], checklist)
        return [
            _Failed(scoring_of(self._run.config)[-1], given.error)
            if isinstance(given, Unscored)
            else Candidate(item.spot.section, item.spot.number, item.text, given, item.is_fit)
            for item, given in zip(answers, scored, strict=True)
        ]

    async def _compared(self, pair: Pair) -> Pair | _Failed:
        """The pair with the side chosen that its judges prefer; what is kept out anyway is not compared."""
        config = self._run.config
        if (
            not is_compared(config)
            or dropped_by(config, pair)
            or misfit(config, pair)
            or not passes(config, pair)
        ):
            return pair
        try:
            return await compare(self._run, pair)
        except CallError as error:
            return _Failed(Purpose.COMPARISON, error)


@dataclass(frozen=True, slots=True)
class _Usable:
    """An answer that can be used, and whether it may become the chosen side."""

    spot: Spot
    text: Text
    is_fit: bool


@dataclass(frozen=True, slots=True)
class _Failed:
    """A failed call of a job."""

    purpose: Purpose
    error: CallError


def _decisive(chosen: Text | _Failed, rejected: Text | _Failed | None) -> _Failed:
    """The half for which there is no pair: where one never comes about, the other is of no use."""
    halves = [half for half in (chosen, rejected) if isinstance(half, _Failed)]
    return min(
        halves,
        key=lambda half: (
            half.error.cause != QUESTION_REFUSED,
            half.error.cause not in UNUSABLE,
            not isinstance(half.error, RefusedError),
        ),
    )


def _is_open(failed: _Failed) -> bool:
    """Whether a call that failed may come about yet: it is no use to choose before that."""
    return failed.error.cause not in UNUSABLE and failed.error.cause != QUESTION_REFUSED


def _loss_of(failure: Failure, error: CallError) -> Loss:
    answer = error.answer if isinstance(error, UnusableAnswerError) else ""
    return Loss(failure.item, failure.purpose, failure.cause, failure.message, answer)


def _kept_out(config: Config, pair: Pair, cause: str) -> Loss:
    """A pair that thresholds or lint keep out, with its scores where those decide."""
    item, answer = f"job {pair.job.id}", pair.chosen.content
    if cause in _BY_SCORES:
        by = "[judging]" if cause == NO_AGREEMENT or pair.comparisons else "[candidates]"
        by = "judge_filtering" if cause == FILTERED else by
        sides = {"chosen": pair.chosen_scores, "rejected": pair.rejected_scores}
        scored = " and ".join(f"{side} {scores.total:.2f}" for side, scores in sides.items() if scores)
        preferred = ", ".join(f"{item.judge}: {item.prefers}" for item in pair.comparisons)
        why = f"{by} keeps it out, with {' and '.join(filter(None, (scored, preferred)))}"
        purpose = Purpose.COMPARISON if pair.comparisons else scoring_of(config)[-1]
        return Loss(item, purpose, cause, why, answer)
    return Loss(item, Purpose.CHOSEN, cause, "lint.drop keeps it out", answer)

"""What judges say of answers: scores by a rubric or a checklist, and which of two is better.

Sources: several small judges together are nearer to people than a large one, at a seventh of its price
(arXiv 2404.18796). Judges prefer what stands first, so a comparison is asked in both orders.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from statistics import fmean
from typing import TYPE_CHECKING, Final, TypeVar

from tasks.core.answers.judgements import read_checklist, read_checks, read_comparison
from tasks.core.answers.usable import read_scores
from tasks.core.chat.access import CALLS_OF_A_JOB
from tasks.core.config.templates import DEFAULT_CRITERIA, JUDGE_RUBRIC
from tasks.core.errors import CallError
from tasks.core.generation.candidates import NO_MARGIN
from tasks.core.generation.run import all_of
from tasks.core.models import QUESTION_REFUSED, UNUSABLE, CallKind, Opinion, Purpose, Score, Scores
from tasks.core.questions import is_compared, is_scored, scoring_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.generation.run import Run
    from tasks.core.models import Job, Pair, Side, Text

_Said = TypeVar("_Said")

NO_AGREEMENT: Final = "no_agreement"
"""Why a pair is kept out whose chosen side too few judges prefer."""
CHECKLIST: Final = "checklist"
"""The criterion of scores by a checklist."""
_OVERALL: Final = "overall"
_LOWEST, _HIGHEST = 1.0, 5.0


def wants_explanations(config: Config) -> bool:
    """Whether the judge is asked for its reasoning beside each score."""
    return config.generation.dataset_mode == "mo-dpo" or config.judge_filtering.use_explanations


def rubric_criteria(config: Config) -> tuple[str, ...] | None:
    """The criteria that every answer of the judge must hold; None when the rubric is the user's own."""
    return DEFAULT_CRITERIA if config.prompt_templates.judge_rubric == JUDGE_RUBRIC else None


def judgements_of(config: Config, answers: int) -> Counter[CallKind]:
    """The calls that judging a prompt takes, if each of them can be used.

    Args:
        config: The configuration.
        answers: The answers to the prompt.
    """
    found: Counter[CallKind] = Counter()
    judges = config.judging.models
    if is_scored(config):
        *once, of_each = scoring_of(config)
        found.update(CallKind(purpose, judges[0]) for purpose in once)
        found.update({CallKind(of_each, judge): answers for judge in judges})
    if is_compared(config):
        found.update({CallKind(Purpose.COMPARISON, judge): 1 + config.judging.swap for judge in judges})
    return found


async def score_pair(run: Run, pair: Pair, checklist: tuple[str, ...] = ()) -> Pair:
    """The pair with the judges' scores of its answers, which are judged at the same time.

    Both sides are scored on the same criteria, else their margin would mean nothing: where the rubric is
    the user's own and a judge left a criterion out on one side, that side is judged again.

    Args:
        run: The run.
        pair: The pair.
        checklist: What `checklist_of` gives.

    Raises:
        UnusableAnswerError: No answer of a judge could be read: cause `bad_scores` or `token_exhaustion`.
        CallError: A judge did not answer.
    """
    texts = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]

    async def judged(judge: str) -> list[Scores]:
        measure, expected = _Measure(pair.job, judge, checklist), rubric_criteria(run.config)
        scores = await all_of(measure.score(run, text, expected) for text in texts)
        every = tuple({name: None for side in scores for name in side.criteria})
        if any(len(side.criteria) < len(every) for side in scores):
            scores = await all_of(measure.score(run, text, every) for text in texts)
        return scores

    judges = run.config.judging.models
    found = await _of_each(judges, judged)
    scores = [mean_of(judges, [by_judge[side] for by_judge in found]) for side in range(len(texts))]
    return replace(pair, chosen_scores=scores[0], rejected_scores=scores[1] if scores[1:] else None)


@dataclass(frozen=True, slots=True)
class Unscored:
    """An answer without scores, and what a judge's call failed with."""

    error: CallError

    @property
    def is_final(self) -> bool:
        """Whether the call would fail again: the answers are known, or the question is refused."""
        return self.error.cause in UNUSABLE or self.error.cause == QUESTION_REFUSED


async def score_all(
    run: Run, job: Job, texts: Sequence[Text], checklist: tuple[str, ...]
) -> list[Scores | Unscored]:
    """The judges' scores of several answers to a prompt, by each judge on the criteria that most of its have.

    An answer that one of the judges does not score has no scores: those of others alone would be no measure.

    Args:
        run: The run.
        job: The job.
        texts: The answers.
        checklist: What `checklist_of` gives.
    """
    judges = run.config.judging.models
    at_once = asyncio.Semaphore(CALLS_OF_A_JOB // 2)

    async def score(measure: _Measure, text: Text, criteria: tuple[str, ...] | None) -> Scores | Unscored:
        async with at_once:
            try:
                return await measure.score(run, text, criteria)
            except CallError as error:
                return Unscored(error)

    async def judged(judge: str) -> list[Scores | Unscored]:
        measure, expected = _Measure(job, judge, checklist), rubric_criteria(run.config)
        scores = await all_of(score(measure, text, expected) for text in texts)
        counts = Counter(name for item in scores if isinstance(item, Scores) for name in item.criteria)
        answered = sum(isinstance(item, Scores) for item in scores)
        shared = tuple(name for name, count in counts.items() if 2 * count > answered) or tuple(counts)
        found: list[Scores | Unscored] = []
        for text, given in zip(texts, scores, strict=True):
            one = given
            if isinstance(one, Scores) and not set(shared) <= set(one.criteria):
                one = await score(measure, text, shared)
            if isinstance(one, Scores):
                one = Scores({name: one.criteria[name] for name in shared})
            found.append(one)
        return found

    by_judge = await _of_each(judges, judged)
    return [_all_or_none(judges, [scores[place] for scores in by_judge]) for place in range(len(texts))]


async def _of_each(judges: Sequence[str], ask: Callable[[str], Awaitable[_Said]]) -> list[_Said]:
    """What each judge says, all asked at the same time; one alone needs no task of its own."""
    return [await ask(judges[0])] if len(judges) == 1 else await all_of(map(ask, judges))


def _all_or_none(judges: Sequence[str], scores: Sequence[Scores | Unscored]) -> Scores | Unscored:
    """The mean of all judges; where one failed, what may come about yet, else what it failed with."""
    failed = [item for item in scores if isinstance(item, Unscored)]
    if failed:
        return min(failed, key=lambda item: item.is_final)
    return mean_of(judges, [item for item in scores if isinstance(item, Scores)])


def mean_of(judges: Sequence[str], scores: Sequence[Scores]) -> Scores:
    """The mean of all judges' scores, on the criteria that all of them have."""
    if len(scores) == 1:
        return scores[0]
    shared = [name for name in scores[0].criteria if all(name in item.criteria for item in scores)]
    if not shared:
        totals = tuple((judge, item.total) for judge, item in zip(judges, scores, strict=True))
        return Scores({_OVERALL: Score(fmean(total for _, total in totals), "")}, totals)
    criteria = {
        name: Score(
            fmean(item.criteria[name].score for item in scores),
            _reasons(judges, [item.criteria[name].reasoning for item in scores]),
        )
        for name in shared
    }
    totals = tuple(
        (judge, fmean(item.criteria[name].score for name in shared))
        for judge, item in zip(judges, scores, strict=True)
    )
    return Scores(criteria, totals)


def _reasons(judges: Sequence[str], reasons: Sequence[str]) -> str:
    return "\n".join(f"{judge}: {said}" for judge, said in zip(judges, reasons, strict=True) if said)


async def checklist_of(run: Run, job: Job) -> tuple[str, ...]:
    """The questions by which the answers to a job's prompt are judged; none where they are judged otherwise.

    Raises:
        UnusableAnswerError: The judge's answer holds no such list.
        CallError: The judge did not answer.
    """
    if run.config.judging.mode != "checklist":
        return ()
    async with run.judging:
        return await run.ask_until_usable(lambda sample: run.questions.checklist(job, sample), read_checklist)


@dataclass(frozen=True, slots=True)
class _Measure:
    """By what one judge scores the answers to a prompt.

    Attributes:
        job: The job.
        judge: The section of the judge's model.
        checklist: The questions; empty where the rubric counts.
    """

    job: Job
    judge: str
    checklist: tuple[str, ...]

    async def score(self, run: Run, text: Text, criteria: tuple[str, ...] | None) -> Scores:
        """The scores of an answer; the judge is asked again while its answer cannot be read."""
        job, judge, checklist, questions = self.job, self.judge, self.checklist, run.questions
        explain = wants_explanations(run.config)
        async with run.judging:
            if checklist:
                said = await run.ask_until_usable(
                    lambda sample: questions.checks(job, text.content, checklist, sample, judge),
                    lambda answer: read_checks(answer, len(checklist)),
                )
                return _by_checklist(checklist, said)
            return await run.ask_until_usable(
                lambda sample: questions.judge(job, text.content, sample, explain=explain, section=judge),
                lambda answer: read_scores(answer, criteria),
            )


def _by_checklist(checklist: Sequence[str], said: Sequence[bool]) -> Scores:
    """The share of questions with a yes, on the scale of all scores: 1 for none of them, 5 for all."""
    score = _LOWEST + (_HIGHEST - _LOWEST) * sum(said) / len(said)
    lines = (
        f"{'yes' if is_so else 'no'}: {question}" for question, is_so in zip(checklist, said, strict=True)
    )
    return Scores({CHECKLIST: Score(score, "\n".join(lines))})


async def compare(run: Run, pair: Pair) -> Pair:
    """The pair with what each judge prefers; the side that more of them prefer is chosen.

    What is shown first is drawn by the texts, so that no side has an advantage where one order is asked. The
    sides stay as they are where the rejected answer is not fit to be chosen: then `contested` keeps it out.

    Raises:
        UnusableAnswerError: No answer of a judge could be read: cause `bad_scores` or `token_exhaustion`.
        CallError: A judge did not answer.
    """
    if pair.rejected is None:
        return pair
    first, second = sorted((pair.chosen, pair.rejected), key=lambda text: _mark(pair.job, text))
    orders = [(first, second), (second, first)][: 1 + run.config.judging.swap]

    async def preferred(judge: str) -> Opinion:
        better = await all_of(_better(run, pair.job, shown, judge) for shown in orders)
        is_flipped = None not in better and better[0] is not better[-1]
        found = better[0] if better[0] is better[-1] else None
        side: Side = "tie" if found is None else "chosen" if found is pair.chosen else "rejected"
        return Opinion(judge, side, is_flipped)

    opinions = await _of_each(run.config.judging.models, preferred)
    compared = replace(pair, comparisons=tuple(opinions))
    votes = Counter(opinion.prefers for opinion in opinions)
    is_fit = any(item.text is pair.rejected and item.is_fit for item in pair.candidates)
    return _turned(compared, pair.rejected) if votes["rejected"] > votes["chosen"] and is_fit else compared


def _mark(job: Job, text: Text) -> bytes:
    return blake2b(f"{job.prompt}\0{text.content}".encode("utf-8", "surrogatepass")).digest()


async def _better(run: Run, job: Job, shown: tuple[Text, Text], judge: str) -> Text | None:
    """The one of two answers that a judge prefers; None for a tie."""
    first, second = shown
    async with run.judging:
        side = await run.ask_until_usable(
            lambda sample: run.questions.comparison(job, first.content, second.content, sample, judge),
            read_comparison,
        )
    return {"A": first, "B": second}.get(side)


def _turned(pair: Pair, chosen: Text) -> Pair:
    """The pair with its sides changed."""
    other: dict[Side, Side] = {"chosen": "rejected", "rejected": "chosen", "tie": "tie"}
    return replace(
        pair,
        chosen=chosen,
        rejected=pair.chosen,
        chosen_scores=pair.rejected_scores,
        rejected_scores=pair.chosen_scores,
        comparisons=tuple(replace(item, prefers=other[item.prefers]) for item in pair.comparisons),
    )


def contested(config: Config, pair: Pair) -> str:
    """Why a pair is kept out by what its judges prefer; "" when it is not.

    A `judging.agree` below 0 keeps out none.
    """
    agree = config.judging.agree
    if agree < 0 or pair.rejected is None or not (agree or pair.comparisons):
        return ""
    votes = Counter(item.prefers for item in pair.opinions)
    if pair.comparisons and votes["chosen"] <= votes["rejected"]:
        return NO_MARGIN
    return NO_AGREEMENT if votes["chosen"] < agree else ""

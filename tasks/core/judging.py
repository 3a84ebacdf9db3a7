"""The judge: scores of an answer, and whether a pair passes the thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.core.answers import read_scores
from tasks.core.config.defaults import DEFAULT_CRITERIA, JUDGE_RUBRIC
from tasks.core.run import all_of

if TYPE_CHECKING:
    from tasks.core.config.models import Config
    from tasks.core.models import Job, Pair, Scores, Text
    from tasks.core.run import Run


async def score_pair(run: Run, pair: Pair) -> Pair:
    """The pair with the judge's scores of its answers, which are judged at the same time.

    Both sides are scored on the same criteria, else their margin would mean nothing: where the rubric is
    the user's own and the judge left a criterion out on one side, that side is judged again.

    Raises:
        UnusableAnswerError: No answer of the judge could be read: cause `bad_scores` or
            `token_exhaustion`.
        CallError: The judge did not answer.
    """
    texts = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
    expected = rubric_criteria(run.config)
    scores = await all_of(_score(run, pair.job, text, expected) for text in texts)
    every = tuple({name: None for side in scores for name in side.criteria})
    if any(len(side.criteria) < len(every) for side in scores):
        scores = await all_of(_score(run, pair.job, text, every) for text in texts)
    return replace(pair, chosen_scores=scores[0], rejected_scores=scores[1] if scores[1:] else None)


async def _score(run: Run, job: Job, text: Text, criteria: tuple[str, ...] | None) -> Scores:
    """One answer's scores; the judge is asked again, with the next sample, while it cannot be read."""
    explain = wants_explanations(run.config)

    async with run.judging:
        return await run.ask_until_usable(
            lambda sample: run.questions.judge(job, text.content, sample, explain=explain),
            lambda answer: read_scores(answer, criteria),
        )


def wants_explanations(config: Config) -> bool:
    """Whether the judge is asked for its reasoning beside each score."""
    return config.generation.dataset_mode == "mo-dpo" or config.judge_filtering.use_explanations


def rubric_criteria(config: Config) -> tuple[str, ...] | None:
    """The criteria that every answer of the judge must hold; None when the rubric is the user's own."""
    return DEFAULT_CRITERIA if config.prompt_templates.judge_rubric == JUDGE_RUBRIC else None


def passes(config: Config, pair: Pair) -> bool:
    """Whether a judged pair stays in the dataset; without filtering, and in mo-dpo, every pair does."""
    limits = config.judge_filtering
    if not limits.enabled or config.generation.dataset_mode == "mo-dpo":
        return True
    good = pair.chosen_scores is None or pair.chosen_scores.total >= limits.min_chosen_score
    bad = pair.rejected_scores is None or pair.rejected_scores.total <= limits.max_rejected_score
    return good and bad

"""The words of the field as types: job, pair, scores, failure. Plain data, no behaviour beyond its own."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations of jobs
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any, Literal, NamedTuple

PLACES = 9
"""Decimal places to which scores of several judges, and distances of scores, are taken for what they are."""


class Phase(StrEnum):
    """The stages of a run, in order; `complete` is the state after the last."""

    SUBTOPICS = "subtopics"
    PROMPTS = "prompts"
    PAIRS = "pairs"
    COMPLETE = "complete"


class Purpose(StrEnum):
    """What a call is for. Part of its key: chosen and rejected are bought apart, even from one model."""

    SUBTOPICS = "subtopics"
    PROMPTS = "prompts"
    CHOSEN = "chosen"
    REJECTED = "rejected"
    JUDGE = "judge"
    COMPARISON = "comparison"
    CHECKLIST = "checklist"
    CHECKS = "checks"
    REASONING = "reasoning"


class CallKind(NamedTuple):
    """A kind of call: what it is for, and the section under [models] that answers it."""

    purpose: Purpose
    section: str


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to be answered.

    Attributes:
        id: `subtopic_index * num_prompts_per_subtopic + position`, so that it does not move when a
            neighbour fails or comes back; those that replace others are numbered behind all of these.
        main_topic: The topic of the run.
        sub_topic: The subtopic that the prompt belongs to.
        prompt: The prompt's text.
        first_sample: Where the samples of its answers begin; not 0 only in a merged session, for a job whose
            answers come from elsewhere, while its first samples were answered otherwise.
    """

    id: int
    main_topic: str
    sub_topic: str
    prompt: str
    first_sample: int = 0


@dataclass(frozen=True, slots=True)
class GivenJob(Job):
    """A prompt of the user's own; its `id` is the number of its line, or row, in their file.

    Attributes:
        system: The system prompt under which it is answered; "" for that of the templates.
        history: What was said before it, as role and content; empty for a single question.
        kept: The columns that go along into its rows: JSON values by name.
    """

    system: str = ""
    history: tuple[tuple[str, str], ...] = ()
    # Without a default: by it, a job that was packed is told from those that were found.
    kept: dict[str, Any] = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Score:
    """One criterion's score, 1 to 5, with the judge's reasoning ("" when it was asked for scores alone)."""

    score: float
    reasoning: str


@dataclass(frozen=True, slots=True)
class Scores:
    """A judge's scores of one answer: criterion to score, in the judge's order, never empty.

    Of several judges, they are means; `judges` has the average that each of them gave, by its section.
    """

    criteria: Mapping[str, Score]
    judges: tuple[tuple[str, float], ...] = ()

    @property
    def total(self) -> float:
        """The average over the criteria, 1 to 5."""
        if self.judges:
            # The mean of means may miss by a bit what it is, and a threshold or an equal one by it.
            return round(fmean(total for _, total in self.judges), PLACES)
        return sum(item.score for item in self.criteria.values()) / len(self.criteria)


@dataclass(frozen=True, slots=True)
class Text:
    """An accepted answer.

    Attributes:
        content: The text that goes into the dataset.
        reasoning: The model's reasoning as reported beside the content; "" when there is none.
        truncated: Whether the model stopped at its token limit.
    """

    content: str
    reasoning: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several answers to a prompt, judged.

    Attributes:
        model: The section of its model.
        number: Which of that model's answers it is, from 0.
        text: The answer.
        scores: What the judges said of it; None where answers are compared alone.
        is_fit: Whether it may become the chosen side: no refusal, not too short, not broken off.
    """

    model: str
    number: int
    text: Text
    scores: Scores | None
    is_fit: bool = True

    @property
    def total(self) -> float:
        """The average of its scores; 0 where it has none."""
        return self.scores.total if self.scores else 0.0


Side = Literal["chosen", "rejected", "tie"]
"""The side of a pair that is preferred."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Which side of a pair a judge prefers.

    Attributes:
        judge: The section of the judge's model.
        prefers: The side.
        flipped: Whether it preferred the other one when the order was changed, which makes it a tie.
    """

    judge: str
    prefers: Side
    flipped: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A job's answers; `rejected` is None in sft, scores are None where nothing was judged.

    `candidates` are those that both were chosen of, where there were several; `comparisons` is what each
    judge prefers, where both sides were compared.
    """

    job: Job
    chosen: Text
    rejected: Text | None = None
    chosen_scores: Scores | None = None
    rejected_scores: Scores | None = None
    candidates: tuple[Candidate, ...] = field(default=(), kw_only=True)
    comparisons: tuple[Opinion, ...] = field(default=(), kw_only=True)

    @property
    def opinions(self) -> tuple[Opinion, ...]:
        """What each judge prefers: what it said when it compared both sides, else what its scores say."""
        good, bad = self.chosen_scores, self.rejected_scores
        if self.comparisons or good is None or bad is None:
            return self.comparisons
        totals = zip(good.judges or _alone(good), bad.judges or _alone(bad), strict=True)
        return tuple(
            Opinion(judge, "chosen" if one > other else "rejected" if one < other else "tie")
            for (judge, one), (_, other) in totals
        )

    @property
    def agreement(self) -> float:
        """The share of judges that prefer the chosen side, 0 to 1; 0 where nothing was judged."""
        opinions = self.opinions
        return sum(item.prefers == "chosen" for item in opinions) / len(opinions) if opinions else 0.0


def _alone(scores: Scores) -> tuple[tuple[str, float], ...]:
    return (("judge", scores.total),)


UNUSABLE = frozenset(
    {"refused", "too_short", "incomplete", "empty", "token_exhaustion", "no_list", "bad_scores"}
)
"""Causes of failures where every allowed try was answered, and paid for: a re-run reads the same answers."""

QUESTION_REFUSED = "question_refused"
"""Cause of a failure where the server refuses the question for what is in it, and answers others."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that was asked for and did not come about.

    Attributes:
        phase: Where it happened.
        item: What it was: `job 17`, `chunk 3`, or a subtopic.
        purpose: The call that failed.
        cause: The stable word of `CallError.cause`.
        message: One line for people.
        status: HTTP status of the last attempt, or None.
        attempts: Attempts made.
        request: The ledger key of the request in hex, or "".
    """

    phase: Phase
    item: str
    purpose: Purpose
    cause: str
    message: str
    status: int | None = None
    attempts: int = 1
    request: str = ""

    @property
    def is_final(self) -> bool:
        """Whether asking once more would bring the same: the answers are known, or it is refused."""
        return self.cause in UNUSABLE or self.cause == QUESTION_REFUSED

"""Several answers to a prompt, and which two of them become a pair.

The choice is a pure function of texts, scores and the prompt: made again under other rules, it asks nothing.
It does not depend on the order of the candidates.

Sources: the best against the worst gets worse as there are more of them, and an answer two standard
deviations below the mean is a better rejected one (arXiv 2502.16825).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Final

from tasks.core.errors import UnusableAnswerError
from tasks.core.models import PLACES, CallKind, Pair, Purpose
from tasks.core.questions import kinds_of, purposes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.core.answers.usable import Reading
    from tasks.core.config.settings import CandidateChoice, Config
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.models import Candidate, Job, Text
    from tasks.core.questions import Questions

SAMPLES_A_CANDIDATE: Final = 1 << 10
"""Samples from one candidate of a model to its next: more than any answer is tried."""

NO_MARGIN: Final = "no_margin"
"""Why a pair is kept out whose scores are too close."""
LENGTH_RATIO: Final = "length_ratio"
"""Why a pair is kept out of which one side is too long beside the other, where no two candidates fit."""
OFF_POLICY: Final = "off_policy"
"""Why a pair is kept out of which no side is the model's that one must be."""
SAME_ANSWER: Final = "same_answer"
"""Why a pair is kept out whose answers are all the same."""
_ANSWERS: Final = (Purpose.CHOSEN, Purpose.REJECTED)
CAUSES: Final = frozenset({NO_MARGIN, LENGTH_RATIO, OFF_POLICY, SAME_ANSWER})

BELOW: Final = 2.0
"""Standard deviations below the mean at which a rejected answer is best."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place for one answer to each prompt: the section of its model, and which of its answers it is."""

    section: str
    number: int

    @property
    def kind(self) -> CallKind:
        """What kind of call asks for it."""
        return CallKind(Purpose.REJECTED if self.section == "rejected" else Purpose.CHOSEN, self.section)

    def question(self, questions: Questions, job: Job, sample: int) -> ChatRequest:
        """The request for it; a further sample asks again."""
        sample += self.number * SAMPLES_A_CANDIDATE
        if self.section == "rejected":
            return questions.rejected(job, sample)
        return questions.chosen(job, sample, self.section)

    def read(self, reading: Reading, answer: Answer) -> tuple[Text, bool]:
        """The text of an answer, and whether it may become the chosen side.

        What can be used is the same under every rule, so that no rule asks for another answer.

        Raises:
            UnusableAnswerError: It cannot be used as what its model is asked for.
        """
        if self.section != "rejected":
            return reading.chosen(answer), True
        text = reading.rejected(answer)
        try:
            reading.chosen(answer)
        except UnusableAnswerError:
            return text, False
        return text, True


def spots_of(config: Config) -> tuple[Spot, ...]:
    """The answers that are asked for to each prompt."""
    kinds = kinds_of(config, [item for item in purposes_of(config) if item in _ANSWERS])
    return tuple(Spot(kind.section, number) for kind in kinds for number in range(config.candidates.count))


def can_choose(config: Config, candidates: Sequence[Candidate]) -> bool:
    """Whether a pair can be made of these candidates."""
    if config.generation.dataset_mode == "sft":
        return bool(candidates)
    models = {item.model for item in candidates}
    if config.candidates.choose == "by_model":
        return models >= {"main", "rejected"}
    return len(candidates) > 1 and any(item.is_fit for item in candidates)


def choose(config: Config, job: Job, candidates: Sequence[Candidate]) -> Pair:
    """The pair that the rule makes of some candidates.

    The first two that fit are taken: the best chosen side that fits to any rejected one, and the rejected one
    that the rule prefers. Where no two fit, they are chosen as if all did, and `misfit` says why.

    Args:
        config: The rule, and the seed by which one is drawn at random.
        job: The job.
        candidates: Those of which `can_choose` says that a pair can be made.
    """
    choice = config.candidates
    ranked = sorted(candidates, key=lambda item: (-item.total, _mark(item)))
    if config.generation.dataset_mode == "sft":
        best = ranked[0]
        return Pair(job, best.text, None, best.scores, candidates=tuple(candidates))
    ways = list(_ways(config, job, ranked))
    chosen, rejected = next((way for way in ways if not _misfit(choice, *way)), ways[0])
    sides = chosen.text, rejected.text, chosen.scores, rejected.scores
    return Pair(job, *sides, candidates=tuple(candidates))


def _ways(config: Config, job: Job, ranked: Sequence[Candidate]) -> Iterator[tuple[Candidate, Candidate]]:
    """All pairs that may be made, those first that the rule prefers."""
    by_model = config.candidates.choose == "by_model"
    for chosen in ranked:
        if not chosen.is_fit or (by_model and chosen.model != "main"):
            continue
        others = [
            item for item in ranked if item is not chosen and (not by_model or item.model == "rejected")
        ]
        # One that is better is rejected only where it is of another model, or not fit to be chosen.
        lower = [item for item in others if item.total <= chosen.total or not item.is_fit]
        for rejected in _preferred(config, job, ranked, others if by_model else lower):
            yield chosen, rejected


def _preferred(
    config: Config, job: Job, ranked: Sequence[Candidate], others: Sequence[Candidate]
) -> list[Candidate]:
    """Candidates for the rejected side, the one that the rule prefers first."""
    match config.candidates.choose:
        case "best_random":
            drawn = f"{config.generation.seed}\0{job.prompt}"
            return sorted(others, key=lambda item: blake2b(drawn.encode() + _mark(item)).digest())
        case "best_mean_minus_2_sd":
            totals = [item.total for item in ranked]
            goal = fmean(totals) - BELOW * pstdev(totals)
            # To the last bit, a mean depends on the order of its terms.
            return sorted(others, key=lambda item: (round(abs(item.total - goal), PLACES), _mark(item)))
        case _:
            return sorted(others, key=lambda item: (item.total, _mark(item)))


def _mark(candidate: Candidate) -> bytes:
    """What equals are told apart by: their texts, and never their places."""
    return blake2b(
        f"{candidate.model}\0{candidate.text.content}".encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()


def _misfit(choice: CandidateChoice, chosen: Candidate, rejected: Candidate) -> str:
    if chosen.text.content == rejected.text.content:
        return SAME_ANSWER
    if choice.on_policy and choice.on_policy not in {chosen.model, rejected.model}:
        return OFF_POLICY
    lengths = sorted((len(chosen.text.content), len(rejected.text.content)))
    if choice.max_length_ratio and lengths[1] > choice.max_length_ratio * lengths[0]:
        return LENGTH_RATIO
    return ""


def misfit(config: Config, pair: Pair) -> str:
    """Why a pair is kept out by the rule of candidates; "" when it is not.

    A `min_margin` below 0 keeps out none.
    """
    choice = config.candidates
    if choice.min_margin < 0 or pair.rejected is None:
        return ""
    good, bad = pair.chosen_scores, pair.rejected_scores
    # Without a least margin, a pair is what the models made of it.
    if good is not None and bad is not None and 0 < choice.min_margin > round(good.total - bad.total, PLACES):
        return NO_MARGIN
    sides = [_found(pair, pair.chosen), _found(pair, pair.rejected)]
    return _misfit(choice, sides[0], sides[1]) if sides[0] and sides[1] else ""


def _found(pair: Pair, text: Text) -> Candidate | None:
    return next((item for item in pair.candidates if item.text is text), None)

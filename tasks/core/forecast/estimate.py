"""What a run will take before anything is paid: calls, tokens and money for each kind of call, with a range.

How many calls is known from a survey. What a call uses is measured where the ledger has answers of its kind:
those of this very configuration, else all of the same model and purpose. Where it has none, the rendered
templates tell the least and the most of the input, and `max_output_tokens` the most of the output. Of calls
that are all known, as those of a transform, the length of the input is known.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.answers.judgements import LEAST_CHECKS, MOST_CHECKS
from tasks.core.cost import CHARACTERS_PER_TOKEN, Cost, Observed, Prices, Usage, cost_document, tokens_for
from tasks.core.generation.judging import wants_explanations
from tasks.core.generation.pairs import make_pairs, settle
from tasks.core.generation.prompts import Subtopic, SubtopicPrompts, jobs_of, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.models import Job, Phase, Purpose
from tasks.core.questions import Questions, kinds_of, model_of
from tasks.core.sameness import Sieve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.cost import Sums
    from tasks.core.exchange.request import ChatRequest
    from tasks.core.forecast.survey import Survey
    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.run import Run
    from tasks.core.models import CallKind, Failure, Pair


WIDTH = 2.0
"""Standard deviations on each side of what is likely: nineteen runs of twenty lie between."""

SHORT, LONG = ("x" * 20, "x" * 20), ("x" * 80, "x" * 400)
"""What stands for a subtopic and a prompt that are not known yet."""


@dataclass(frozen=True, slots=True)
class Range:
    """From the least to the most; `likely` is None where nothing was measured."""

    low: float = 0.0
    likely: float | None = 0.0
    high: float = 0.0

    def __add__(self, other: Range) -> Range:
        both = self.likely is not None and other.likely is not None
        likely = (self.likely or 0.0) + (other.likely or 0.0) if both else None
        return Range(self.low + other.low, likely, self.high + other.high)

    def times(self, number: float) -> Range:
        """So many of them."""
        likely = None if self.likely is None else self.likely * number
        return Range(self.low * number, likely, self.high * number)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the calls of one kind will take.

    Attributes:
        purpose: What they are for.
        section: The section of their model.
        model: Who answers them.
        reused: Calls that are in the ledger.
        to_pay: Calls to pay for, if every answer can be used.
        calls: The same with those that must be asked again, by what was observed.
        prompt_tokens: Input tokens to pay for.
        completion_tokens: Output tokens to pay for.
        low: The least that they cost.
        likely: What they probably cost; None where nothing was measured.
        high: The most that they cost.
        measured: Answers that the figures come from; 0 when they come from templates and limits.
    """

    purpose: Purpose
    section: str
    model: str
    reused: int
    to_pay: int
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    low: Cost
    likely: Cost | None
    high: Cost
    measured: int

    @property
    def phase(self) -> Phase:
        """The phase in which they are made."""
        lists = {Purpose.SUBTOPICS: Phase.SUBTOPICS, Purpose.PROMPTS: Phase.PROMPTS}
        return lists.get(self.purpose, Phase.PAIRS)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take, by kind of call in the order of the pipeline."""

    outlooks: tuple[Outlook, ...]

    @property
    def reused(self) -> int:
        """Calls that are in the ledger."""
        return sum(item.reused for item in self.outlooks)

    @property
    def to_pay(self) -> int:
        """Calls to pay for, if every answer can be used."""
        return sum(item.to_pay for item in self.outlooks)

    def total(self, of: Callable[[Outlook], Range]) -> Range:
        """The sum of a range over all purposes."""
        return sum((of(item) for item in self.outlooks), Range())

    @property
    def low(self) -> Cost:
        """The least that it costs."""
        return sum((item.low for item in self.outlooks), Cost())

    @property
    def likely(self) -> Cost | None:
        """What it probably costs; None where something was not measured."""
        found = [item.likely for item in self.outlooks]
        known = [cost for cost in found if cost is not None]
        return sum(known, Cost()) if len(known) == len(found) else None

    @property
    def high(self) -> Cost:
        """The most that it costs."""
        return sum((item.high for item in self.outlooks), Cost())


def estimate(
    config: Config,
    found: Survey,
    elsewhere: Mapping[tuple[str, str], Observed],
    purposes: Iterable[Purpose] | None = None,
) -> Estimate:
    """What the calls that a survey found missing will take.

    Args:
        config: The configuration.
        found: Its survey.
        elsewhere: All reported calls of the ledger by model and purpose, for what the survey saw none of.
        purposes: What calls are for; left out, all that generating makes.
    """
    seen = {
        kind: _best_of(
            found.observed.get(kind), elsewhere.get((model_of(config, kind).model_name, kind.purpose))
        )
        for kind in kinds_of(config, purposes)
    }
    questions = Questions(config)
    return Estimate(tuple(_outlook(config, questions, found, kind, seen[kind]) for kind in seen))


def _best_of(own: Observed | None, others: Observed | None) -> Observed:
    """The answers of this configuration, if any of them reported its usage, else those of any."""
    own = own or Observed()
    return own if own.prompt.count or others is None else others


def _outlook(config: Config, questions: Questions, found: Survey, kind: CallKind, seen: Observed) -> Outlook:
    model, prices = model_of(config, kind), Prices(config.pricing)
    to_pay = found.unpaid[kind]
    if seen.prompt.count or not to_pay:
        calls = _calls(to_pay, seen)
        asked = _tokens(calls, seen.prompt)
        said = _tokens(calls, seen.completion, most=model.max_output_tokens)
    else:
        calls = Range(to_pay, None, to_pay)
        asked = _input(config, questions, kind).times(to_pay)
        said = Range(0, None, model.max_output_tokens).times(to_pay)
    length = found.asked.get(kind)
    if length and length.count == to_pay and kind not in found.observed:
        # Of answers elsewhere, the questions may have been of any length.
        asked = Range(calls.low, calls.likely or to_pay, calls.high).times(length.mean)
    cached = seen.cached / seen.prompt.total if seen.prompt.total else 0.0

    def cost(number: float, asking: float, saying: float) -> Cost:
        usage = Usage(round(number), round(asking), round(saying), cached_tokens=round(asking * cached))
        return prices.cost(model.model_name, usage)

    return Outlook(
        kind.purpose,
        kind.section,
        model.model_name,
        reused=found.paid[kind],
        to_pay=to_pay,
        calls=calls,
        prompt_tokens=asked,
        completion_tokens=said,
        low=cost(calls.low, asked.low, said.low),
        likely=None if calls.likely is None else cost(calls.likely, asked.likely or 0, said.likely or 0),
        high=cost(calls.high, asked.high, said.high),
        measured=seen.prompt.count,
    )


def _calls(to_pay: int, seen: Observed) -> Range:
    """Calls to pay for, with those whose answers cannot be used and that are asked again.

    Each question was asked 1 + further / questions times. The most follows from the share of calls that were
    further ones, with Agresti and Coull's allowance for few of them.
    """
    if not to_pay or not seen.calls:
        return Range(to_pay, to_pay, to_pay)
    questions = max(1, seen.calls - seen.further)
    share = (seen.further + WIDTH) / (seen.calls + 2 * WIDTH)
    share += WIDTH * math.sqrt(share * (1 - share) / (seen.calls + 2 * WIDTH))
    likely = to_pay * seen.calls / questions
    return Range(to_pay, likely, max(likely, to_pay * (1 + share)))


def _tokens(calls: Range, sample: Sums, most: float = math.inf) -> Range:
    """Tokens of so many calls, when those of some are known.

    They vary from call to call, and the mean of those that are known may be off as well.
    """
    likely = (calls.likely or 0.0) * sample.mean

    def off(number: float) -> float:
        return WIDTH * math.sqrt(sample.variance * (number + number**2 / max(1, sample.count)))

    low = max(0.0, calls.low * sample.mean - off(calls.low))
    high = calls.high * sample.mean + off(calls.high)
    return Range(min(low, likely), likely, max(likely, min(high, calls.high * most)))


def _input(config: Config, questions: Questions, kind: CallKind) -> Range:
    """Input tokens of one call, by the length of its rendered template with short and with long values."""
    answering = [item for item in kinds_of(config) if item.purpose in {Purpose.CHOSEN, Purpose.REJECTED}]
    longest = max(model_of(config, item).max_output_tokens for item in answering)
    few, many = (
        tokens_for(sum(len(content) for _, content in request.messages))
        for request in (
            _example(config, questions, kind, SHORT),
            _example(config, questions, kind, LONG, "x" * (longest * CHARACTERS_PER_TOKEN)),
        )
    )
    return Range(few, None, many)


def _example(
    config: Config, questions: Questions, kind: CallKind, values: tuple[str, str], answer: str = ""
) -> ChatRequest:
    subtopic, prompt = values
    job = Job(0, config.generation.main_topic, subtopic, prompt)
    checklist = [prompt] * (MOST_CHECKS if answer else LEAST_CHECKS)
    return questions.example(kind, job, answer, checklist, explain=wants_explanations(config))


def document_of(found: Estimate) -> dict[str, Any]:
    """An estimate as plain data: `phases` by purpose, and their `total`; counts are whole numbers."""
    phases = [
        {
            "phase": str(item.phase),
            "purpose": str(item.purpose),
            "section": item.section,
            "model": item.model,
            "reused": item.reused,
            "to_pay": item.to_pay,
            "calls": _whole(item.calls),
            "prompt_tokens": _whole(item.prompt_tokens),
            "completion_tokens": _whole(item.completion_tokens),
            "measured": item.measured,
        }
        | _money(item)
        for item in found.outlooks
    ]
    total = {
        "reused": found.reused,
        "to_pay": found.to_pay,
        "calls": _whole(found.total(lambda item: item.calls)),
        "prompt_tokens": _whole(found.total(lambda item: item.prompt_tokens)),
        "completion_tokens": _whole(found.total(lambda item: item.completion_tokens)),
    }
    return {"phases": phases, "total": total | _money(found)}


def _whole(numbers: Range) -> dict[str, int | None]:
    likely = None if numbers.likely is None else round(numbers.likely)
    return {"low": math.floor(numbers.low), "likely": likely, "high": math.ceil(numbers.high)}


def _money(item: Outlook | Estimate) -> dict[str, Any]:
    """The cost as plain data; what is unknown is said beside it and never counted as nothing."""
    likely = None if item.likely is None else cost_document(item.likely)["usd"]
    low, high = cost_document(item.low)["usd"], cost_document(item.high)
    usd = {"low": low, "likely": likely, "high": high["usd"]}
    return {"usd": usd, "calls_of_unknown_price": high["calls_of_unknown_price"]}


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview brought.

    Attributes:
        jobs: Its jobs, by id: one of each of the first subtopics, then a second, until they are enough.
        pairs: The pairs that came about, by job id; None for one that the judge's thresholds kept out.
        failures: The jobs that failed.
    """

    jobs: tuple[Job, ...]
    pairs: dict[int, Pair | None]
    failures: tuple[Failure, ...]


async def preview(run: Run, number: int, *, given: Sequence[Job] | None = None) -> Preview:
    """Make the pairs of so many jobs, or of fewer when the first subtopics have no more.

    Args:
        run: The run.
        number: How many.
        given: The jobs of the user's own prompts, of which the first are taken; None to have some written.

    Raises:
        PhaseError: The subtopics or their prompts did not come about.
    """
    jobs = await _first_jobs(run, number) if given is None else given[:number]
    run.progress.begin(Phase.PAIRS, len(jobs))
    pairs: dict[int, Pair | None] = {}

    def keep(job: Job, pair: Pair | None) -> None:
        pairs[job.id] = pair

    async def make(some: Sequence[Job]) -> list[PairsOutcome]:
        return [await make_pairs(run, some, keep)]

    outcomes = await settle(jobs, make)
    failures = tuple(failure for outcome in outcomes for failure in outcome.failures)
    return Preview(tuple(jobs), pairs, failures)


async def _first_jobs(run: Run, number: int) -> Sequence[Job]:
    """Some jobs, one of each of the first subtopics, then a second."""
    names = await find_subtopics(run)
    first = [Subtopic(index, name) for index, name in enumerate(names[:number])]
    run.progress.begin(Phase.PROMPTS, len(first))
    found = await write_prompts(run, first)
    await run.list_failures(entry.failure for entry in found if entry.failure)
    run.progress.done = len(first)
    return _spread(jobs_of(run, _without_duplicates(run, found)), number)


def _without_duplicates(run: Run, found: Sequence[SubtopicPrompts]) -> list[SubtopicPrompts]:
    """The prompts that the whole run keeps too: of two alike, the lower subtopic's.

    Those that are short are not asked again. What is new then depends on all subtopics, not on the first.
    """
    sieve = Sieve(run.config.generation.similarity_threshold)
    return [
        SubtopicPrompts(entry.subtopic, tuple(sieve.fresh(entry.prompts)), entry.failure) for entry in found
    ]


def _spread(jobs: Sequence[Job], number: int) -> list[Job]:
    """The first job of each subtopic, then the second ones, until they are enough; by id."""
    by_subtopic = [list(group) for _, group in itertools.groupby(jobs, key=lambda job: job.sub_topic)]
    turns = itertools.zip_longest(*by_subtopic)
    spread = [job for turn in turns for job in turn if job is not None]
    return sorted(spread[:number], key=lambda job: job.id)

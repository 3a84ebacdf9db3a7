"""What of a configuration is paid for: the pipeline walked over the ledger, without asking any model.

The same operations run as in a real run, so that what they would ask is known exactly, as far as the
answers that exist lead. What is found answers many questions: what a change would cost, which calls a
session uses, which jobs and pairs it has.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from tasks.core.cost import Observed, Sums, tokens_for
from tasks.core.errors import CallError, PhaseError
from tasks.core.generation.candidates import SAMPLES_A_CANDIDATE, spots_of
from tasks.core.generation.judging import checklist_of, compare, judgements_of, score_pair
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import complete_prompts, jobs_of, numbered, write_prompts
from tasks.core.generation.run import PLAIN, Policy, Run, all_of
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.generation.waves import make_exactly
from tasks.core.ledger.client import LedgerClient
from tasks.core.ledger.schema import usage_of
from tasks.core.models import CallKind, Pair, Purpose, Text
from tasks.core.progress import Opinions, Progress
from tasks.core.questions import chooses, is_compared, is_judged, is_scored, scoring_of
from tasks.core.traffic.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableSet, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.candidates import Spot
    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Failure, Job

AT_A_TIME = 512
"""Jobs that are looked up together: bounds memory."""

UNPAID = "unpaid"
"""Cause of a call that fails because it is not in the ledger."""


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        paid: Calls that are in the ledger, by kind.
        unpaid: Calls that would be paid for, by kind. Exact where all earlier answers exist; the calls
            that follow from answers which are not there yet are counted as one for each.
        keys: The keys of all calls in the ledger that the configuration uses.
        missing: Those of the calls that were looked for and are not there.
        asked: Input tokens of the same by their length, by kind.
        questions: What identifies its lists, whose milestones decide how they are grown.
        subtopics: The subtopics, empty when they are not all paid for.
        jobs: The jobs whose prompts are there.
        done: Jobs of which everything is there.
        lost: Those of them that yield no usable pair, by id, with the cause.
        dropped: Prompts that were left out, as `duplicate` or `near_duplicate`.
        observed: What the calls in the ledger used, by kind.
        opinions: How often the judges agree.
        failures: What does not come about: the causes are those of what is left alone, those of answers
            that cannot be used, and UNPAID.
    """

    paid: Counter[CallKind] = field(default_factory=Counter)
    unpaid: Counter[CallKind] = field(default_factory=Counter)
    keys: MutableSet[bytes] = field(default_factory=set)
    missing: MutableSet[bytes] = field(default_factory=set)
    asked: dict[CallKind, Sums] = field(default_factory=dict)
    questions: set[bytes] = field(default_factory=set)
    subtopics: tuple[str, ...] = ()
    jobs: list[Job] = field(default_factory=list)
    done: int = 0
    lost: dict[int, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    observed: dict[CallKind, Observed] = field(default_factory=dict)
    opinions: Opinions = field(default_factory=Opinions)
    failures: list[Failure] = field(default_factory=list)

    @property
    def reused(self) -> Counter[str]:
        """Calls that are in the ledger, by purpose."""
        return _by_purpose(self.paid)

    @property
    def to_pay(self) -> Counter[str]:
        """Calls that would be paid for, by purpose."""
        return _by_purpose(self.unpaid)

    def note(self, request: ChatRequest, answer: Answer) -> None:
        """Take a call that is in the ledger into the counts, once."""
        if request.key in self.keys:
            return
        self.keys.add(request.key)
        kind = request.kind
        self.paid[kind] += 1
        # Of subtopics, every sample is another chunk.
        further = request.purpose is not Purpose.SUBTOPICS and request.sample % SAMPLES_A_CANDIDATE > 0
        self.observed.setdefault(kind, Observed()).add(usage_of(request, answer), further=further)

    def miss(self, request: ChatRequest) -> None:
        """Take a call that is not in the ledger into the counts, once: an operation may try it again."""
        if request.key in self.missing:
            return
        self.missing.add(request.key)
        kind = request.kind
        self.unpaid[kind] += 1
        characters = sum(len(content) for _, content in request.messages)
        self.asked.setdefault(kind, Sums()).add(tokens_for(characters))


async def survey(
    config: Config,
    ledger: Ledger,
    keep: Callable[[Job, Pair | None], None] | None = None,
    *,
    jobs: Sequence[Job] | None = None,
    subtopics: Sequence[str] | None = None,
    refused: Mapping[bytes, Failure] = MappingProxyType({}),
    strict: bool = False,
    mends_forms: bool = True,
) -> Survey:
    """Walk a configuration over a ledger; nothing is asked, paid for or written.

    Args:
        config: The configuration.
        ledger: The ledger.
        keep: Called with each finished job and its pair, in no set order; None where it yields none.
        jobs: The jobs, for a session that took them over; else they follow from the configuration.
        subtopics: The subtopics, for a session that took them over.
        refused: What the session leaves alone, by key; see `LedgerClient.left_alone`.
        strict: Whether no pair is looked for where a run would stop because too few subtopics have prompts.
        mends_forms: See `Policy`; not for a session that is complete.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    found = Survey()
    # Only a run that finds its own prompts replaces some.
    replaces = config.generation.replaces and jobs is None
    policy = Policy(replaces=replaces, mends_forms=mends_forms, left_alone=refused)
    run = SurveyRun(config, ledger, found, policy, strict=strict)
    walk = _Walk(run, found, keep)
    if jobs is not None:
        found.jobs, found.subtopics = list(jobs), tuple(subtopics or ())
        await walk.make(found.jobs)
        return found
    await walk.find(subtopics)
    # Where the lists are all there and short, the models had no more: nothing will follow from them.
    if found.to_pay[Purpose.SUBTOPICS] or found.to_pay[Purpose.PROMPTS]:
        unknown = max(0, config.generation.wanted_pairs - (len(found.jobs) - len(found.lost)))
        calls = Counter(spot.kind for spot in walk.spots) + judgements_of(config, len(walk.spots))
        for kind, count in calls.items():
            found.unpaid[kind] += unknown * count
    return found


def _by_purpose(counts: Mapping[CallKind, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, count in counts.items():
        found[kind.purpose] += count
    return found


class _Walk:
    """The pipeline's steps over what is known."""

    def __init__(
        self, run: SurveyRun, found: Survey, keep: Callable[[Job, Pair | None], None] | None
    ) -> None:
        self.spots = spots_of(run.config)
        self._run = run
        self._found = found
        self._keep = keep

    async def find(self, subtopics: Sequence[str] | None) -> None:
        """Find the jobs as far as they are known, with their pairs, and count what is to be paid for."""
        run, found, generation = self._run, self._found, self._run.config.generation
        complete = True
        try:
            known = found.subtopics = await find_subtopics(run) if subtopics is None else tuple(subtopics)
        except PhaseError:
            complete = False
            known = await _shorter_list(run)
            asked = min(generation.num_subtopics, generation.wanted_pairs)
            found.unpaid[CallKind(Purpose.PROMPTS, "main")] += asked - len(numbered(run.config, known))
        if not known:
            return
        prompts = await write_prompts(run, numbered(run.config, known))
        await run.list_failures(entry.failure for entry in prompts if entry.failure)
        try:
            candidates = await complete_prompts(run, prompts)
            found.jobs = jobs_of(run, candidates.found)
        except PhaseError:
            return
        if not complete:
            # Others bring their share, too: what is to be replaced is not known.
            await self.make(found.jobs)
            return
        with suppress(PhaseError):
            await make_exactly(run, candidates, found.jobs, self.make, candidates.more)
        found.dropped = candidates.dropped

    async def make(self, jobs: Sequence[Job]) -> list[PairsOutcome]:
        """Make the pairs of some jobs, as far as they are paid for."""
        run, outcomes = self._run, []
        for start in range(0, len(jobs), AT_A_TIME):
            block = jobs[start : start + AT_A_TIME]
            outcome = await make_pairs(run, block, self._count)
            outcomes.append(outcome)
            self._found.lost.update(outcome.lost)
            if is_judged(run.config):
                unpaid = {
                    failure.item: failure.purpose
                    for failure in outcome.failures
                    if failure.cause == UNPAID and failure.purpose is not Purpose.COMPARISON
                }
                parts = [(job, unpaid[item]) for job in block if (item := f"job {job.id}") in unpaid]
                await all_of(_count_judgements(run, job, self.spots, failed) for job, failed in parts)
        return outcomes

    def _count(self, job: Job, pair: Pair | None) -> None:
        self._found.done += 1
        if self._keep is not None:
            self._keep(job, pair)


async def _count_judgements(run: SurveyRun, job: Job, spots: Sequence[Spot], failed: Purpose) -> None:
    """Count what judges will be asked of a pair that is not whole.

    Args:
        run: The survey.
        job: The job.
        spots: The places of its answers.
        failed: What is not paid for; where that is what judges say of an answer, that is counted already.
    """
    found, ahead = run.found, judgements_of(run.config, len(spots))
    texts = [await _text_of(run, job, spot) for spot in spots]
    known = [text for text in texts if isinstance(text, Text)]
    if is_compared(run.config) and not chooses(run.config) and len(known) == len(texts):
        # Whatever is said of them, these two are compared.
        with suppress(CallError):
            await compare(run, Pair(job, known[0], known[1]))
    else:
        for kind, count in ahead.items():
            found.unpaid[kind] += count * (kind.purpose is Purpose.COMPARISON)
    if failed in {Purpose.JUDGE, Purpose.CHECKS} or not is_scored(run.config):
        return
    checklist: tuple[str, ...] | None = None
    with suppress(CallError):
        checklist = await checklist_of(run, job)
    of_one = [kind for kind in ahead if kind.purpose is scoring_of(run.config)[-1]]
    for text in texts:
        if isinstance(text, Text) and checklist is not None:
            with suppress(CallError):
                await score_pair(run, Pair(job, text), checklist)
        elif text is not None:
            # Without a checklist, it is not known what would be asked about an answer that is there.
            found.unpaid.update(of_one)


async def _text_of(run: SurveyRun, job: Job, spot: Spot) -> Text | str | None:
    """An answer's text; UNPAID where it is not there, and None where it is there and cannot be used."""
    try:
        text, _ = await run.ask_until_usable(
            lambda sample: spot.question(run.questions, job, sample),
            lambda answer: spot.read(run.reading, answer),
        )
    except CallError as error:
        # An answer that is not there cannot have been judged; one that is of no use is not.
        return UNPAID if error.cause == UNPAID else None
    return text


async def _shorter_list(run: SurveyRun) -> tuple[str, ...]:
    """The subtopics that the list began with when it was shorter; empty when none is paid for."""
    config = run.config
    shorter = max((count for count in run.milestones if count < config.generation.num_subtopics), default=0)
    if not shorter:
        return ()
    run.config = _with(config, num_subtopics=shorter)
    try:
        return await find_subtopics(run)
    except PhaseError:
        return ()
    finally:
        run.config = config


def _with(config: Config, **changes: Any) -> Config:
    generation = config.generation.model_copy(update=changes)
    return config.model_copy(update={"generation": generation})


class _SurveyClient(LedgerClient):
    """Answers from the ledger alone; what is not there is counted, and fails."""

    def __init__(self, ledger: Ledger, progress: Progress, found: Survey, policy: Policy) -> None:
        super().__init__(ledger, progress, policy.left_alone)
        self._found = found

    async def ask(self, request: ChatRequest, known: Mapping[bytes, Answer | None] | None = None) -> Answer:
        answer = await super().ask(request, known)
        self._found.note(request, answer)
        return answer

    async def _buy(self, request: ChatRequest) -> NoReturn:
        self._found.miss(request)
        raise CallError(UNPAID, "this call is not paid for")


class SurveyRun(Run):
    """A run that leaves no trace: no failures are listed, nothing is remembered."""

    def __init__(
        self, config: Config, ledger: Ledger, found: Survey, policy: Policy = PLAIN, *, strict: bool = False
    ) -> None:
        self.milestones: list[int] = []
        self.found = found
        progress = Progress(opinions=found.opinions)
        client = _SurveyClient(ledger, progress, found, policy)
        if not strict:
            # Prompts that are not there yet must not hide the jobs of those that are.
            config = _with(config, min_success_rate=0.0)
        super().__init__(
            config,
            session="",
            ledger=ledger,
            client=client,
            stop=Stop(),
            progress=progress,
            policy=policy,
        )
        # Nothing is paid for here.
        self.trial.end()

    async def list_failures(self, failures: Iterable[Failure]) -> None:
        """Note them; no list has what was not asked."""
        self.found.failures += failures

    async def reached(self, question: bytes) -> list[int]:
        """The milestones, noted as used."""
        self.found.questions.add(question)
        self.milestones = await super().reached(question)
        return self.milestones

    async def remember_reached(self, question: bytes, target: int) -> None:
        """A survey reaches nothing."""

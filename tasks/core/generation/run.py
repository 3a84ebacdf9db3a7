"""What an operation works with: the configuration, its questions, the chat client, and the counters."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import orjson

from tasks.core.answers.usable import Reading
from tasks.core.chat.access import CALLS_OF_A_JOB, Gateway
from tasks.core.chat.budget import SessionBudget, open_budget
from tasks.core.chat.client import ChatClient
from tasks.core.chat.http import ChatHttp
from tasks.core.chat.negotiation import LEARNED
from tasks.core.cost import Bill
from tasks.core.errors import UnusableAnswerError
from tasks.core.generation.losses import Losses, Trial
from tasks.core.keys import block_key
from tasks.core.models import Failure, Phase, Purpose
from tasks.core.printable import printable_line
from tasks.core.questions import JUDGEMENTS, Questions, is_judged, kinds_of, model_of
from tasks.core.traffic.concurrency import room_for
from tasks.core.traffic.lane import Slots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from tasks.core.chat.negotiation import Learned
    from tasks.core.config.settings import Config
    from tasks.core.errors import CallError
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.ledger.client import LedgerClient
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import CallKind
    from tasks.core.progress import Progress
    from tasks.core.secrets import Keys
    from tasks.core.traffic.stop import Stop


log = logging.getLogger("vellumforge.run")

PLAIN_TRIES = 2
"""Samples beyond those that are allowed, asked for without a schema where the answers were broken by it."""

ENDLESS_TRIES = 10
"""Tries of an unusable answer when `max_retries = -1`: HTTP is tried without end, money is not spent so."""

MESSAGE = 500
"""Characters of a failure's message."""

REFUSED = "refused"
"""Cause of an answer in which the model declines: no form is to blame for it."""

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run does otherwise than a run that begins; decided before the run is made.

    Attributes:
        replaces: Whether prompts that yield no usable pair are replaced; only a run that finds its own
            prompts can do so.
        mends_forms: Whether what a form broke is asked for again, beyond what is allowed. Not in a session
            that is complete: it has replaced the prompts that yielded none.
        further: Keys of unusable answers, the last of their tries, after which further samples are asked for
            although every allowed try is used up: as many as are allowed again, and at least one.
        left_alone: What is not asked again; see `LedgerClient.left_alone`.
        lists_failures: Whether failures go on the ledger's list. Not in a shard: its parent tries once more
            what failed there, and lists what fails then.
    """

    replaces: bool = False
    mends_forms: bool = True
    further: Collection[bytes] = ()
    left_alone: Mapping[bytes, Failure] = field(default_factory=dict)
    lists_failures: bool = True


PLAIN = Policy()


class Run:
    """One run in one process: what its operations share. Made by `open_run`.

    It is a plain class on purpose: Prefect walks through dataclasses that are handed to a task.

    Attributes:
        config: The frozen configuration.
        session: The session's UUID, under which paid calls and failures are recorded.
        generating: Slots of `generation.concurrency` jobs that wait for chosen and rejected answers.
        judging: As many slots of their own, so that a slow judge never holds up generating.
        stop: The switch that stops the run in order.
        budget: What the session paid for, and whether it may pay for more; empty where nothing is paid for.
        gateway: The ways to the models, whose limits may be shared; None where nothing is asked.
        lists: What identifies the lists that it grew, whose milestones the ledger knows.
        policy: What it does otherwise than a run that begins.
        losses: What its jobs came to, as far as it asked for them; stops it when they bring nothing.
        trial: Holds jobs back until the judge has given scores once.
        reading: How answers are read.
    """

    def __init__(
        self,
        config: Config,
        *,
        session: str,
        ledger: Ledger,
        client: LedgerClient,
        stop: Stop,
        progress: Progress,
        policy: Policy = PLAIN,
        questions: Questions | None = None,
        budget: SessionBudget | None = None,
        gateway: Gateway | None = None,
        generating: Slots | None = None,
        judging: Slots | None = None,
    ) -> None:
        self.config = config
        self.session = session
        self.ledger = ledger
        self.client = client
        self.stop = stop
        self.progress = progress
        self.budget = budget or SessionBudget(config, stop, Bill())
        self.gateway = gateway
        self.lists: set[bytes] = set()
        self.policy = policy
        self.losses = Losses(config, stop)
        self.trial = Trial(config, stop, judged=is_judged(config))
        self.questions = questions or Questions(config)
        self.reading = Reading.of(config)
        self.generating = generating or Slots(config.generation.concurrency)
        self.judging = judging or Slots(config.generation.concurrency)

    async def ask_until_usable(
        self,
        question: Callable[[int], ChatRequest],
        read: Callable[[Answer], _Read],
        known: Mapping[bytes, Answer | None] | None = None,
    ) -> _Read:
        """Ask for sample 0, 1, … until an answer can be read.

        Every answer is kept in the ledger, so a re-run walks the same path for free. Samples that are there
        are read whatever `max_retries` is by now: another run may have been allowed more of them.

        Args:
            question: From a sample number to the request.
            read: From an answer to what is wanted; raises UnusableAnswerError.
            known: What was recalled before.

        Raises:
            UnusableAnswerError: Every allowed try brought an unusable answer; `attempts` says how many.
            CallError: No answer came.
        """
        sample, further = 0, 0
        # Whether every answer so far may have been broken by the form in which it was asked for.
        broken = True
        while True:
            request = question(sample)
            if broken and sample > self.tries(request.kind):
                request = replace(request, plainly=True)
            answer = await self.client.ask(request, known)
            sample += 1
            try:
                found = read(answer)
            except UnusableAnswerError as error:
                formless = bool(request.schema) and error.cause != REFUSED and is_broken(answer)
                broken = broken and formless
                if request.schema:
                    self.client.kept_form(request, kept=not formless)
                allowed = self.tries(request.kind)
                if request.key in self.policy.further:
                    further = sample + max(1, allowed) - 1
                used_up = sample > max(allowed, further) and not (
                    broken and self._may_ask_plainly(request.kind, sample)
                )
                ends = used_up or self._left_at(request, question(sample))
                # Listed, or walked by a run that allowed fewer tries than one that has paid for the next.
                if ends and not await self.is_paid(question(sample)):
                    error.attempts, error.request = sample, request.key.hex()
                    error.answer = answer.content.strip() or answer.reasoning
                    raise
                log.debug("%s answer asked for again: %s", request.purpose, error)
            else:
                if request.schema:
                    self.client.kept_form(request, kept=True)
                return found

    def _may_ask_plainly(self, kind: CallKind, sample: int) -> bool:
        """Whether a sample beyond those that are allowed is asked for, without a schema.

        It follows from the configuration and the answers alone, so that a re-run walks the same path, and a
        session whose answers were broken by their form asks again when it is resumed.
        """
        auto = model_of(self.config, kind).structured_output == "auto"
        return self.policy.mends_forms and auto and sample <= self.tries(kind) + PLAIN_TRIES

    def _left_at(self, request: ChatRequest, following: ChatRequest) -> bool:
        """Whether an unusable answer is left at that, although more tries are allowed by now."""
        left_alone = self.client.left_alone
        return request.key in left_alone and following.key not in left_alone

    async def is_paid(self, request: ChatRequest) -> bool:
        """Whether the ledger has the answer to a request."""
        return any((await self.client.recall([request])).values())

    def tries(self, kind: CallKind) -> int:
        """Further samples that may be asked for after an unusable answer."""
        return further_tries(self.config, kind)

    async def reached(self, question: bytes) -> list[int]:
        """The counts that a list was grown to before, ascending."""
        self.lists.add(question)
        return await self.ledger.reached(question)

    async def remember_reached(self, question: bytes, target: int) -> None:
        """Note that a list was grown to `target` items, so that a longer one is grown along the same path."""
        await self.ledger.add_reached(question, target)

    def is_in_doubt(self, failure: Failure) -> bool:
        """Whether a server refused it once, so that it is asked again before its phase ends."""
        return bool(failure.request) and bytes.fromhex(failure.request) in self.client.in_doubt

    def gives_up(self, failure: Failure) -> bool:
        """Whether something that failed is replaced and not asked for again; a list of subtopics is not."""
        return self.policy.replaces and failure.is_final and failure.phase is not Phase.SUBTOPICS

    async def list_failures(self, failures: Iterable[Failure]) -> None:
        """Count failures and put them on the ledger's list, where what was left alone stands already."""
        found = list(failures)
        for failure in found:
            if not self.gives_up(failure):
                self.progress.failures += 1
                self.progress.causes[failure.cause] += 1
            elif failure.phase is Phase.PAIRS:
                self.progress.lost[failure.cause] += 1
        fresh = []
        for failure in found:
            if failure.request and bytes.fromhex(failure.request) in self.client.left_alone:
                log.info("%s was left alone, which failed before: %s", failure.item, failure.message)
            else:
                log.info("%s failed: %s", failure.item, failure.message)
                fresh.append(failure)
        if self.policy.lists_failures:
            await self.ledger.add_failures(self.session, fresh)


def is_broken(answer: Answer) -> bool:
    """Whether an answer that cannot be read is like one of a server that takes a schema and cannot keep it.

    Such an answer begins as JSON does and has no end: blanks up to the token limit, or half an object. An
    answer that is whole is the model's own: it has other criteria, or an empty list as the model knows no
    more. Prose shows that the model was not held to any form.
    """
    content = answer.content.strip()
    if answer.refused:
        return False
    if not content:
        return answer.truncated and not answer.reasoning
    if content[0] not in "{[":
        return False
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return True
    return False


def further_tries(config: Config, kind: CallKind) -> int:
    """Samples that may be asked for after an unusable answer to the first."""
    max_retries = model_of(config, kind).max_retries
    return ENDLESS_TRIES if max_retries < 0 else max_retries


def failure_of(error: CallError, phase: Phase, item: str, purpose: Purpose) -> Failure:
    """A failed call as data."""
    return Failure(
        phase=phase,
        item=item,
        purpose=purpose,
        cause=error.cause,
        # It may say what a model wrote.
        message=printable_line(str(error), MESSAGE),
        status=error.status,
        attempts=error.attempts,
        request=error.request,
    )


async def all_of(work: Iterable[Awaitable[_Read]]) -> list[_Read]:
    """Await everything, then raise the first error, if any.

    Unlike a TaskGroup it lets the others finish: a call in flight is paid for already.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


@asynccontextmanager
async def open_run(
    config: Config,
    keys: Keys,
    *,
    session: str,
    ledger: Ledger,
    stop: Stop,
    progress: Progress,
    policy: Policy = PLAIN,
    budget: SessionBudget | None = None,
    purposes: Iterable[Purpose] | None = None,
    learned: Learned = LEARNED,
) -> AsyncIterator[Run]:
    """A run over an open ledger, with its HTTP client, closed on leaving.

    Args:
        config: The configuration.
        keys: The API keys.
        session: The session's id.
        ledger: The ledger.
        stop: Stops the run in order.
        progress: The counters.
        policy: What it does otherwise than a run that begins.
        budget: The accounts; left out, those of the whole session.
        purposes: The kinds of call that are made; left out, those of generating.
        learned: What is known of the form that the models take; left out, what this process knows.

    Raises:
        LedgerError: What the session has spent cannot be read.
    """
    kinds = kinds_of(config, purposes)
    is_judging = any(kind.purpose in JUDGEMENTS for kind in kinds)
    connections = CALLS_OF_A_JOB if is_judging else CALLS_OF_A_JOB // 2
    config = _with_room(config, connections)
    gateway = Gateway(config, stop, progress, learned=learned)
    access = {}
    for kind in kinds:
        model = model_of(config, kind)
        access[kind] = gateway.access(kind.purpose, model, keys.for_model(model), keys.headers_for(model))
    # Before anything is looked up: from here on, what others pay for is known.
    await ledger.claims.open()
    budget = budget or await open_budget(config, ledger, session, stop)
    generating, judging = (Slots(config.generation.concurrency) for _ in range(2))
    questions = Questions(config)
    async with ChatHttp(max_connections=config.generation.concurrency * CALLS_OF_A_JOB) as http:
        client = ChatClient(
            http=http,
            ledger=ledger,
            access=access,
            session=session,
            stop=stop,
            progress=progress,
            budget=budget,
            slots=dict.fromkeys(Purpose, generating) | dict.fromkeys(JUDGEMENTS, judging),
            control=questions.small,
            left_alone=policy.left_alone,
        )
        yield Run(
            config,
            session=session,
            ledger=ledger,
            client=client,
            stop=stop,
            progress=progress,
            policy=policy,
            questions=questions,
            budget=budget,
            gateway=gateway,
            generating=generating,
            judging=judging,
        )


def _with_room(config: Config, connections: int) -> Config:
    """The configuration, with no more jobs at a time than this process has file descriptors for."""
    wanted = config.generation.concurrency
    room = room_for(wanted, connections)
    if room.jobs == wanted:
        return config
    log.warning(
        "this process may open %d files, too few for generation.concurrency = %d: it is %d for this run; "
        "allow %d (ulimit -n %d) to have them all",
        room.most,
        wanted,
        room.jobs,
        room.needed,
        room.needed,
    )
    generation = config.generation.model_copy(update={"concurrency": room.jobs})
    return config.model_copy(update={"generation": generation})


ONE_EACH = 300
"""Up to so many pairs, each is a block of its own: one task run a pair."""

MOST_PAIR_BLOCKS = 64
MOST_PROMPT_BLOCKS = 16
"""More task runs of a phase would be paid for in Prefect's server: 7 ms each here, 20 ms there."""

_Item = TypeVar("_Item")


class Block(Generic[_Item]):
    """Some consecutive items of a phase, with the key under which Prefect keeps that they are done.

    It is a plain class on purpose: Prefect walks through dataclasses that are handed to a task.

    Attributes:
        key: `<phase>-<phase hash>-<items hash>`.
        items: The items, at least one.
        label: What people see, e.g. `jobs 50-99`.
    """

    def __init__(self, phase: Phase, phase_hash: str, items: Sequence[_Item], label: str) -> None:
        self.key = block_key(phase, phase_hash, items)
        self.items = items
        self.label = label

    def __str__(self) -> str:
        return self.label


def pair_block_size(jobs: int) -> int:
    """Jobs of one block."""
    return 1 if jobs <= ONE_EACH else -(-jobs // MOST_PAIR_BLOCKS)


def prompt_block_size(subtopics: int) -> int:
    """Subtopics of one block."""
    return -(-subtopics // MOST_PROMPT_BLOCKS)


def cut(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """Consecutive parts of `size` items, the last one maybe shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]

"""Found out before it is paid for: whether each model can be used in each form that a run asks it in.

A model is asked one small question in a form (a list, prose, scores) as the run asks it: with its sampling
parameters, its token limit, its schema and its system role. Before a run buys anything, `checked_first` asks
those of which the ledger knows no answer; `validate --ping` asks all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import orjson

from tasks.core.answers.judgements import LEAST_CHECKS
from tasks.core.answers.parsing import json_values
from tasks.core.answers.thinking import split_thinking
from tasks.core.answers.usable import read_rejected
from tasks.core.chat.access import Gateway
from tasks.core.chat.http import ChatHttp
from tasks.core.chat.negotiation import Learned
from tasks.core.errors import CallError, EndpointError, ModelError, UnusableAnswerError, VellumforgeError
from tasks.core.exchange.attempt import AttemptError, Verdict
from tasks.core.exchange.limit_headers import NO_ADVICE
from tasks.core.exchange.request import CHECKS, COMPARISON, ITEMS, SCORES
from tasks.core.generation.run import all_of
from tasks.core.ledger.sessions import earlier_answers
from tasks.core.models import Job, Purpose
from tasks.core.progress import Progress
from tasks.core.questions import (
    TEMPLATES,
    Questions,
    kinds_of,
    model_of,
    sections_for,
    shape_of,
)
from tasks.core.traffic.stop import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from tasks.core.chat.access import Access
    from tasks.core.chat.http import Arrival
    from tasks.core.config.settings import Config, ModelConfig
    from tasks.core.exchange.limit_headers import Advice
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.run import Run
    from tasks.core.models import CallKind
    from tasks.core.secrets import Keys


log = logging.getLogger("vellumforge.preflight")

FORMS: Final = {
    ITEMS: "a list",
    SCORES: "scores",
    COMPARISON: "a comparison",
    CHECKS: "yes or no",
    "": "prose",
}
"""The forms of answers, in words."""

MOST_TRIES: Final = 3
"""Small questions that are asked of a model in one form, where answers come and are empty."""

_MOST_CHARACTERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class FormTrial:
    """A form in which a model is asked.

    Attributes:
        purposes: The purposes that are asked so, in order.
        kind: The one whose small question stands for them: it has a system message if any of them has.
        model: The model's settings.
        shape: The form: `items`, `scores`, or "" for prose.
    """

    purposes: tuple[Purpose, ...]
    kind: CallKind
    model: ModelConfig
    shape: str

    @property
    def form(self) -> str:
        """The form in words, with what it is for."""
        return f"{FORMS[self.shape]} ({', '.join(self.purposes)})"


def trials_of(config: Config, kinds: Iterable[CallKind]) -> tuple[FormTrial, ...]:
    """The distinct forms in which calls of these kinds ask their models."""
    questions = Questions(config)
    alike: dict[bytes, list[CallKind]] = {}
    for kind in kinds:
        alike.setdefault(_likeness(config, questions, kind), []).append(kind)
    return tuple(
        FormTrial(
            purposes=tuple(dict.fromkeys(kind.purpose for kind in group)),
            kind=next((kind for kind in group if _has_system(config, kind.purpose)), group[0]),
            model=model_of(config, group[0]),
            shape=shape_of(group[0].purpose),
        )
        for group in alike.values()
    )


def _likeness(config: Config, questions: Questions, kind: CallKind) -> bytes:
    """Alike for kinds of which one shows what a server thinks of the other."""
    model, small = model_of(config, kind), questions.small(kind, 0)
    conduct = (
        model.api_key_env,
        model.api_key_block,
        model.headers,
        model.structured_output,
        model.max_tokens_parameter,
        model.use_streaming,
    )
    likeness = (small.endpoint, small.model, small.schema, small.parameters, conduct)
    return orjson.dumps(likeness, option=orjson.OPT_SORT_KEYS)


def _has_system(config: Config, purpose: Purpose) -> bool:
    name = TEMPLATES[purpose][1]
    return bool(name and getattr(config.prompt_templates, name))


def small_keys(config: Config, purposes: Iterable[Purpose] | None = None) -> list[bytes]:
    """The ledger keys of the small questions that runs with this configuration may have asked."""
    questions = Questions(config)
    kinds = kinds_of(config, purposes)
    return [questions.small(kind, sample).key for kind in kinds for sample in range(MOST_TRIES)]


def check_answer(answer: Answer, shape: str) -> None:
    """Nothing, for an answer that shows that a model can be used in this form.

    Any text does: the real templates say in words what they want, where a schema alone does not reach a
    model. A list or scores may stand in the reasoning.

    Raises:
        UnusableAnswerError: The answer cannot be used.
    """
    if not (shape and is_json(answer.reasoning)):
        read_rejected(answer)


def is_json(text: str) -> bool:
    """Whether there is JSON in an answer: a list or an object, also one whose end was cut off."""
    return any(True for _ in json_values(split_thinking(text[:_MOST_CHARACTERS]).answer))


@asynccontextmanager
async def checked_first(run: Run, purposes: Iterable[Purpose] | None = None) -> AsyncIterator[None]:
    """Have the models checked before the run buys anything in the block; where it buys nothing, none is.

    What is found out is raised where the run wants to buy, and stops it.

    Args:
        run: The run.
        purposes: What its calls are for; left out, all that generating makes.
    """
    if run.config.execution.preflight:
        trials = trials_of(run.config, kinds_of(run.config, purposes))
        run.client.gate.guard(lambda: check_models(run, trials))
    try:
        yield
    finally:
        await run.client.gate.close()


async def check_models(run: Run, trials: Iterable[FormTrial]) -> None:
    """Ask what the ledger does not know, all at once.

    Raises:
        ModelError: Models cannot be used; the message has a line for each of them.
        EndpointError: A model brought no answer, for a reason that may pass.
        VellumforgeError: The run was told to stop, its budget is spent, or the ledger failed.
    """
    # Looked up before the first is asked: then all are asked at once, and one message names all that fail.
    unknown = [trial for trial in trials if not await _is_known(run, trial)]
    found = await all_of(_noted(run, trial) for trial in unknown)
    # What stopped the run is raised in many places.
    errors = list(dict.fromkeys(itertools.chain.from_iterable(found)))
    unusable = [error for error in errors if isinstance(error, ModelError)]
    if len(unusable) > 1:
        raise ModelError(*unusable)
    if errors:
        raise (unusable or errors)[0]


async def _noted(run: Run, trial: FormTrial) -> list[VellumforgeError]:
    """What is wrong with a model; the run is stopped for it at once, so that no other question is begun."""
    try:
        await _check(run, trial)
    except VellumforgeError as error:
        run.stop.request(error)
        return [error]
    return []


async def _check(run: Run, trial: FormTrial) -> None:
    tries = min(MOST_TRIES, 1 + run.tries(trial.kind))
    first = await _first_unasked(run, trial)
    for sample in range(tries):
        try:
            answer = await run.client.try_out(run.questions.small(trial.kind, first + sample))
            check_answer(answer, trial.shape)
        except UnusableAnswerError as error:
            if sample + 1 == tries:
                raise _unusable(trial, str(error)) from error
        except AttemptError as error:
            raise _unusable(trial, _in_words(error)) from error
        except CallError as error:
            # It does answer in another form, so this was no reason to stop.
            raise EndpointError(
                f"{_name(trial)} brought no answer in the form of {trial.form}: {error}"
            ) from error
        else:
            log.debug("%s answers in the form of %s", _name(trial), trial.form)
            return


async def _first_unasked(run: Run, trial: FormTrial) -> int:
    """The sample of the first small question: the first whose answer is not known to be unusable."""
    sample = 0
    while True:
        some = [run.questions.small(trial.kind, sample + more) for more in range(MOST_TRIES)]
        known = await run.client.recall(some)
        for request in some:
            answer = known[request.key]
            if answer is None:
                return sample
            try:
                check_answer(answer, trial.shape)
            except UnusableAnswerError:
                sample += 1
            else:
                return sample


async def _is_known(run: Run, trial: FormTrial) -> bool:
    """Whether the ledger has an answer of the model in this form that shows that it can be used."""
    small = run.questions.small(trial.kind, 0)
    if (await run.client.recall([small]))[small.key] is not None:
        # It was asked before; where the answer is of no use, it still shows what it showed.
        return False
    roles = {
        str(purpose): sections_for(run.config, purpose)
        for purpose in Purpose
        if shape_of(purpose) == trial.shape
    }
    async for answer in earlier_answers(run.ledger, roles, small.endpoint, small.model):
        try:
            check_answer(answer, trial.shape)
        except UnusableAnswerError:
            continue
        return True
    return False


def _name(trial: FormTrial) -> str:
    return f"{trial.model.model_name} at {trial.model.base_url.rstrip('/')}"


def _in_words(error: AttemptError) -> str:
    if error.verdict is Verdict.RENEGOTIATE:
        return f"it {' '.join(getattr(error, '__notes__', ()))}: {error}"
    return str(error)


def _unusable(trial: FormTrial, reason: str) -> ModelError:
    # A refusal may name the model already.
    reason = reason.removeprefix(f"{_name(trial)}: ")
    return ModelError(
        f"{_name(trial)} cannot be used for {trial.form}: {reason}; nothing but small questions was paid for "
        "(execution.preflight = false leaves these out)"
    )


_SAMPLES: Final = 2**20
_WORKS: Final = "works"
_NOT_TAKEN: Final = "the server does not take it"


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a configuration asks.

    Attributes:
        kinds: The calls that it is asked for.
        model: Its settings, those of the first kind.
    """

    kinds: tuple[CallKind, ...]
    model: ModelConfig

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """What it is asked for."""
        return tuple(dict.fromkeys(kind.purpose for kind in self.kinds))


@dataclass(frozen=True, slots=True)
class Ping:
    """What a model showed of itself.

    Attributes:
        error: Why it cannot be used, and in which form; "" when it answers in all of them.
        seconds: From the first request to its answer, with the connection's making.
        reported: The model as the server reports it, "" when it does not.
        forms: The forms in which it answers, with what they are for.
        streaming: `works`, or why it does not.
        structure: The strictest form in which JSON can be asked for: `json_schema`, `json_object` or `off`,
            and whether the server takes it and does not heed it.
        reasoning: Whether reasoning came, or tokens that were spent on it.
        tokens: All that was paid for, as far as it was reported.
        advice: What the server says about its limits.
        left_out: What the model was found not to take, each in one line.
    """

    error: str = ""
    seconds: float = 0.0
    reported: str = ""
    forms: tuple[str, ...] = ()
    streaming: str = ""
    structure: str = ""
    reasoning: bool = False
    tokens: int = 0
    advice: Advice = NO_ADVICE
    left_out: tuple[str, ...] = ()


def sample_requests(config: Config) -> dict[CallKind, ChatRequest]:
    """A request for each kind of call of a configuration, its templates rendered with sample values."""
    job = Job(0, config.generation.main_topic, "(a subtopic)", "(a prompt)")
    questions, checks = Questions(config), ("(a question)",) * LEAST_CHECKS
    return {
        kind: questions.example(kind, job, "(an answer)", checks, explain=True) for kind in kinds_of(config)
    }


def targets_of(config: Config) -> tuple[Target, ...]:
    """The distinct models that a configuration asks, by address and name."""
    found: dict[tuple[str, str], Target] = {}
    for kind in kinds_of(config):
        model = model_of(config, kind)
        place = (model.base_url.rstrip("/"), model.model_name)
        known = found.get(place, Target((), model))
        found[place] = replace(known, kinds=(*known.kinds, kind))
    return tuple(found.values())


async def ping_all(config: Config, targets: Sequence[Target], keys: Keys) -> list[Ping]:
    """Ask each model a small question in each form in which a run asks it, and one as a stream. None is kept.

    Each is asked once: what a run would try again, such as a passing error, is found here.

    Raises:
        UsageError: A key or a header cannot be sent.
    """
    # What this process learned before is found out anew: that is what is asked.
    gateway = Gateway(config, Stop(), Progress(), learned=Learned())
    questions = Questions(config)
    probes = [
        [_Probe(trial, _access(gateway, trial, keys)) for trial in _prose_first(config, target)]
        for target in targets
    ]
    async with ChatHttp(max_connections=len(targets)) as http:
        return list(await asyncio.gather(*(_ping(http, questions, some) for some in probes)))


@dataclass(frozen=True, slots=True)
class _Probe:
    """A form in which a model is asked, and the way to it."""

    trial: FormTrial
    access: Access


def _prose_first(config: Config, target: Target) -> list[FormTrial]:
    """The target's forms; where there is prose, what is found out first is what all forms share."""
    return sorted(trials_of(config, target.kinds), key=lambda trial: trial.shape)


def _access(gateway: Gateway, trial: FormTrial, keys: Keys) -> Access:
    model = trial.model
    return gateway.access(trial.kind.purpose, model, keys.for_model(model), keys.headers_for(model))


async def _ping(http: ChatHttp, questions: Questions, probes: Sequence[_Probe]) -> Ping:
    arrivals: list[Arrival] = []
    structures: dict[str, str] = {}
    seconds, streaming = 0.0, ""
    for probe in probes:
        trial, access = probe.trial, probe.access
        request = questions.small(trial.kind, secrets.randbelow(_SAMPLES))
        began = time.perf_counter()
        try:
            arrival = await _send(http, request, access)
            arrivals.append(arrival)
            check_answer(arrival.answer, trial.shape)
        except (AttemptError, UnusableAnswerError) as error:
            advice = arrivals[0].advice if arrivals else NO_ADVICE
            advice = error.advice if isinstance(error, AttemptError) else advice
            return Ping(error=f"asked for {trial.form}: {error}", tokens=_tokens(arrivals), advice=advice)
        seconds = seconds or time.perf_counter() - began
        if trial.shape:
            structures[trial.form] = _structure(access, request, arrival.answer)
        if not streaming:
            # Another sample, so that it is no repetition.
            request = questions.small(trial.kind, secrets.randbelow(_SAMPLES))
            streaming, streamed = await _stream(http, request, trial, access)
            arrivals += [streamed] if streamed else []
    return Ping(
        seconds=round(seconds, 3),
        reported=arrivals[0].answer.model,
        forms=tuple(probe.trial.form for probe in probes),
        streaming=streaming,
        structure=_together(structures),
        reasoning=any(_has_reasoning(arrival.answer) for arrival in arrivals),
        tokens=_tokens(arrivals),
        advice=arrivals[0].advice,
        left_out=tuple(dict.fromkeys(line for probe in probes for line in probe.access.negotiation.left_out)),
    )


def _together(structures: dict[str, str]) -> str:
    """How JSON is asked for; told apart by form where the forms differ."""
    if len(set(structures.values())) > 1:
        return "; ".join(f"{form}: {structure}" for form, structure in structures.items())
    return next(iter(structures.values()), "not asked for")


def _structure(access: Access, request: ChatRequest, answer: Answer) -> str:
    """The form in which JSON was asked for, and whether that was heeded: the question says nothing of it."""
    structure: str = access.negotiation.structure(request)
    if structure == "off" or is_json(answer.content) or is_json(answer.reasoning):
        return structure
    if answer.truncated:
        return f"{structure}; the answer was cut off, and is no JSON"
    return f"{structure} is taken, and ignored: what came is no JSON"


async def _stream(
    http: ChatHttp, request: ChatRequest, trial: FormTrial, access: Access
) -> tuple[str, Arrival | None]:
    """Whether a stream works, tried where it was not yet; and what came of it."""
    if trial.model.use_streaming:
        return _WORKS if access.manner(request).streaming else _NOT_TAKEN, None
    with_usage = True
    while True:
        manner = replace(access.manner(request), streaming=True, stream_usage=with_usage)
        try:
            return _WORKS, await http.send(request, manner)
        except AttemptError as error:
            refused = {each.name for each in error.refused}
            if "stream" in refused:
                return _NOT_TAKEN, None
            if "stream_options" in refused and with_usage:
                with_usage = False
            elif not access.negotiation.learn(error, request):
                return str(error), None


async def _send(http: ChatHttp, request: ChatRequest, access: Access) -> Arrival:
    while True:
        try:
            return await http.send(request, access.manner(request))
        except AttemptError as error:
            if not access.negotiation.learn(error, request):
                raise


def _tokens(arrivals: Sequence[Arrival]) -> int:
    answers = [arrival.answer for arrival in arrivals]
    return sum((answer.prompt_tokens or 0) + (answer.completion_tokens or 0) for answer in answers)


def _has_reasoning(answer: Answer) -> bool:
    inside = split_thinking(answer.content).reasoning
    return bool(answer.reasoning or answer.reasoning_tokens or inside)

"""What is known without a run: its requests with sample values, and what its models show when asked."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tasks.core.errors import UnusableAnswerError
from tasks.core.llm.access import Gateway
from tasks.core.llm.advice import NO_ADVICE
from tasks.core.llm.http import ChatHttp
from tasks.core.llm.learned import Learned
from tasks.core.llm.retry import AttemptError
from tasks.core.llm.stop import Stop
from tasks.core.models import Job, Purpose
from tasks.core.preflight import check_answer, is_json, trials_of
from tasks.core.progress import Progress
from tasks.core.questions import Questions, model_for, purposes_of
from tasks.core.thinking import split_thinking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.models import Config, ModelConfig
    from tasks.core.llm.access import Access
    from tasks.core.llm.advice import Advice
    from tasks.core.llm.http import Arrival
    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.preflight import Trial
    from tasks.core.secrets import Keys

_SAMPLES: Final = 2**20
_WORKS: Final = "works"
_NOT_TAKEN: Final = "the server does not take it"


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a configuration asks.

    Attributes:
        purposes: What it is asked for.
        model: Its settings, those of the first purpose.
    """

    purposes: tuple[Purpose, ...]
    model: ModelConfig


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


def sample_requests(config: Config) -> dict[Purpose, ChatRequest]:
    """A request for each purpose of a configuration, its templates rendered with sample values."""
    questions, generation = Questions(config), config.generation
    job = Job(0, generation.main_topic, "(a subtopic)", "(a prompt)")
    made = {
        Purpose.SUBTOPICS: lambda: questions.subtopics(
            min(generation.subtopic_chunk_size or generation.num_subtopics, generation.num_subtopics), "", 0
        ),
        Purpose.PROMPTS: lambda: questions.prompts(job.sub_topic, generation.num_prompts_per_subtopic, (), 0),
        Purpose.CHOSEN: lambda: questions.chosen(job, 0),
        Purpose.REJECTED: lambda: questions.rejected(job, 0),
        Purpose.JUDGE: lambda: questions.judge(job, "(an answer)", 0, explain=True),
    }
    return {purpose: made[purpose]() for purpose in purposes_of(config)}


def targets_of(config: Config) -> tuple[Target, ...]:
    """The distinct models that a configuration asks, by address and name."""
    found: dict[tuple[str, str], Target] = {}
    for purpose, request in sample_requests(config).items():
        place = (request.endpoint, request.model)
        known = found.get(place)
        found[place] = (
            Target((purpose,), model_for(config, purpose))
            if known is None
            else replace(known, purposes=(*known.purposes, purpose))
        )
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

    trial: Trial
    access: Access


def _prose_first(config: Config, target: Target) -> list[Trial]:
    """The target's forms; where there is prose, what is found out first is what all forms share."""
    return sorted(trials_of(config, target.purposes), key=lambda trial: trial.shape)


def _access(gateway: Gateway, trial: Trial, keys: Keys) -> Access:
    model = trial.model
    return gateway.access(trial.purpose, model, keys.for_model(model), keys.headers_for(model))


async def _ping(http: ChatHttp, questions: Questions, probes: Sequence[_Probe]) -> Ping:
    arrivals: list[Arrival] = []
    structures: dict[str, str] = {}
    seconds, streaming = 0.0, ""
    for probe in probes:
        trial, access = probe.trial, probe.access
        request = questions.small(trial.purpose, secrets.randbelow(_SAMPLES))
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
            request = questions.small(trial.purpose, secrets.randbelow(_SAMPLES))
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
    http: ChatHttp, request: ChatRequest, trial: Trial, access: Access
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

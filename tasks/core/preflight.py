"""What is known before a run: its requests with sample values, and whether the models answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tasks.core.llm.access import MEGABYTE
from tasks.core.llm.advice import NO_ADVICE
from tasks.core.llm.http import ChatHttp, Manner
from tasks.core.llm.negotiation import Negotiation
from tasks.core.llm.retry import AttemptError
from tasks.core.llm.schemas import ITEMS
from tasks.core.models import Job, Purpose
from tasks.core.parsing import ParseError, parse_items
from tasks.core.questions import Questions, model_for, purposes_of
from tasks.core.thinking import split_thinking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.models import Config, ModelConfig
    from tasks.core.llm.advice import Advice
    from tasks.core.llm.form import TokenLimit
    from tasks.core.llm.http import Arrival
    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.secrets import Keys

PING_TOKENS: Final = 64
"""Most tokens of an answer to a ping."""

_SAMPLES: Final = 2**20
_QUESTION: Final = "Reply with the single word: ready"
_STRUCTURED_QUESTION: Final = 'Name two colours. Answer with JSON alone: {"items": ["...", "..."]}'


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a configuration asks.

    Attributes:
        purposes: What it is asked for.
        model: Its settings, those of the first purpose.
        request: A request for the first purpose, with sample values.
    """

    purposes: tuple[Purpose, ...]
    model: ModelConfig
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Ping:
    """What a model showed of itself.

    Attributes:
        error: Why it does not answer; "" when it does.
        seconds: From the first request to its answer, with the connection's making.
        reported: The model as the server reports it, "" when it does not.
        streaming: `works`, or why it does not.
        structure: The strictest form in which JSON can be asked for: `json_schema`, `json_object` or `off`;
            or why there is none.
        reasoning: Whether reasoning came, or tokens that were spent on it.
        tokens: All that was paid for, as far as it was reported.
        advice: What the server says about its limits.
    """

    error: str = ""
    seconds: float = 0.0
    reported: str = ""
    streaming: str = ""
    structure: str = ""
    reasoning: bool = False
    tokens: int = 0
    advice: Advice = NO_ADVICE


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
            Target((purpose,), model_for(config, purpose), request)
            if known is None
            else replace(known, purposes=(*known.purposes, purpose))
        )
    return tuple(found.values())


async def ping_all(config: Config, targets: Sequence[Target], keys: Keys) -> list[Ping]:
    """Ask each model up to three tiny questions: one plain, one as a stream, one for JSON. None is kept.

    Raises:
        UsageError: A key or a header cannot be sent.
    """
    manners = [_manner(config, target, keys) for target in targets]
    async with ChatHttp(max_connections=len(targets)) as http:
        pings = (_ping(http, *pair) for pair in zip(targets, manners, strict=True))
        return list(await asyncio.gather(*pings))


def _manner(config: Config, target: Target, keys: Keys) -> Manner:
    model = target.model
    judges = target.purposes[0] is Purpose.JUDGE
    return Manner(
        keys.for_model(model),
        model.judge_timeout_seconds if judges else model.http_timeout_seconds,
        headers=keys.headers_for(model),
        max_bytes=config.execution.max_answer_megabytes * MEGABYTE,
    )


async def _ping(http: ChatHttp, target: Target, manner: Manner) -> Ping:
    model = target.model
    plain = Negotiation("off", model.max_tokens_parameter)
    began = time.perf_counter()
    try:
        first = await _send(http, _question(target, _QUESTION), manner, plain)
    except AttemptError as error:
        return Ping(error=str(error), advice=error.advice)
    seconds = time.perf_counter() - began
    streaming, streamed = await _stream(http, target, manner, plain.token_limit)
    structure, structured = await _structure(http, target, manner, plain.token_limit)
    answers = [first.answer, *(arrival.answer for arrival in (streamed, structured) if arrival)]
    return Ping(
        seconds=round(seconds, 3),
        reported=first.answer.model,
        streaming=streaming,
        structure=structure,
        reasoning=any(map(_has_reasoning, answers)),
        tokens=sum((answer.prompt_tokens or 0) + (answer.completion_tokens or 0) for answer in answers),
        advice=first.advice,
    )


async def _stream(
    http: ChatHttp, target: Target, manner: Manner, token_limit: TokenLimit
) -> tuple[str, Arrival | None]:
    negotiation = Negotiation("off", token_limit, use_streaming=True)
    try:
        arrival = await _send(http, _question(target, _QUESTION), manner, negotiation)
    except AttemptError as error:
        return str(error), None
    return "works" if negotiation.streaming else "the server does not take it", arrival


async def _structure(
    http: ChatHttp, target: Target, manner: Manner, token_limit: TokenLimit
) -> tuple[str, Arrival | None]:
    negotiation = Negotiation(target.model.structured_output, token_limit)
    request = _question(target, _STRUCTURED_QUESTION, schema=ITEMS)
    if negotiation.structure(request) == "off":
        return "off", None
    try:
        arrival = await _send(http, request, manner, negotiation)
    except AttemptError as error:
        return str(error), None
    form: str = negotiation.structure(request)
    # One that is cut off says nothing about the form.
    if not arrival.answer.truncated and not _is_list(arrival.answer.content):
        form += ", but what came is no JSON"
    return form, arrival


def _is_list(text: str) -> bool:
    try:
        return bool(parse_items(text))
    except ParseError:
        return False


async def _send(http: ChatHttp, request: ChatRequest, manner: Manner, negotiation: Negotiation) -> Arrival:
    while True:
        try:
            return await http.send(request, negotiation.manner(request, manner))
        except AttemptError as error:
            if not negotiation.learn(error):
                raise


def _question(target: Target, text: str, *, schema: str = "") -> ChatRequest:
    """A tiny request in the form of the model's own; it has another key each time, and is really answered."""
    parameters = dict(target.request.parameters)
    parameters["max_tokens"] = min(PING_TOKENS, parameters["max_tokens"])
    return replace(
        target.request,
        messages=(("user", text),),
        parameters=parameters,
        schema=schema,
        sample=secrets.randbelow(_SAMPLES),
    )


def _has_reasoning(answer: Answer) -> bool:
    inside = split_thinking(answer.content).reasoning
    return bool(answer.reasoning or answer.reasoning_tokens or inside)

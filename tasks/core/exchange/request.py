"""A request to a model: what is asked, the form that its server takes, and the shape of the answer.

The key is the SHA-256 of the request's canonical JSON: sorted keys, no spaces, UTF-8. What is in it is
what decides the answer: schema version, purpose, endpoint, model, messages, sampling parameters, the
schema asked for, and `sample`. What is not in it: API keys, concurrency, limits, timeouts, retries,
streaming, and whatever is negotiated with a server, so that a re-run which negotiates otherwise still
finds its answers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from tasks.core.models import CallKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.models import Purpose


KEY_VERSION = 1
"""Raised when the meaning of a key changes; every answer bought under another version is asked anew."""

CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""Finish reasons, in lower case, of an answer that was stopped by its token limit."""

REFUSAL = frozenset({"content_filter", "refusal", "safety", "guardrail_intervened"})
"""Finish reasons, in lower case, of an answer that the model or its provider refused to give."""

SEED_STRIDE = 1 << 20
"""How far one step of `generation.seed` moves every sample: more tries than any request ever has."""


@dataclass(frozen=True)
class ChatRequest:
    """One chat completion to be bought.

    Attributes:
        purpose: What the answer is for.
        endpoint: Base URL without user info and query, e.g. `http://127.0.0.1:8000/v1`.
        model: The model's name as the server knows it.
        messages: Role and content of each message, in order.
        parameters: Sampling parameters as they are configured; what is not set is absent.
        schema: The shape asked for, `items`, `scores`, `comparison` or `checks`; "" for prose.
        sample: 0 for the first try, n for the nth after an unusable answer or for the nth chunk, moved as
            a whole by the seed.
        least: Of a list: how many items are asked for. This and what follows is in the words of the
            messages, and is not part of the key: it only says how the schema is put to a server.
        criteria: Of scores: their names; () where the rubric does not tell them. Of a checklist: the numbers
            of its questions.
        explain: Of scores: whether reasoning is asked for beside each.
        plainly: Whether the shape is asked for by the messages alone.
        section: The section under [models] whose model it is. Not in the key: the model is.
        json_hint: Added to the last message where JSON is asked for without a schema: servers demand that
            the messages speak of it then. Not in the key, as all that is negotiated.
    """

    purpose: Purpose
    endpoint: str
    model: str
    messages: tuple[tuple[str, str], ...]
    parameters: Mapping[str, Any]
    schema: str = ""
    sample: int = 0
    least: int = field(default=0, compare=False)
    criteria: tuple[str, ...] = field(default=(), compare=False)
    explain: bool = field(default=False, compare=False)
    plainly: bool = field(default=False, compare=False)
    json_hint: str = field(default="", compare=False)
    section: str = field(default="", compare=False)

    @property
    def kind(self) -> CallKind:
        """What kind of call it is."""
        return CallKind(self.purpose, self.section)

    @cached_property
    def key(self) -> bytes:
        """The 32 bytes under which the answer is kept."""
        canonical = orjson.dumps(
            {
                "version": KEY_VERSION,
                "purpose": str(self.purpose),
                "endpoint": self.endpoint,
                "model": self.model,
                "messages": self.messages,
                "parameters": dict(self.parameters),
                "schema": self.schema,
                "sample": self.sample,
            },
            option=orjson.OPT_SORT_KEYS,
        )
        return hashlib.sha256(canonical).digest()

    def body(self) -> dict[str, Any]:
        """The JSON body of the request, without what is negotiated with the server."""
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": content} for role, content in self.messages],
            **self.parameters,
        }
        if body.get("top_p") == 1.0:
            # It changes nothing, and some servers refuse it.
            del body["top_p"]
        return body


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call brought, as it is kept in the ledger.

    Attributes:
        content: The message's text, "" when the server sent none.
        reasoning: Reasoning reported beside the content, "" when there is none. Thinking inside the content
            stays there: it is told apart when the answer is read, so that it can be read better later.
        finish_reason: As the server reported it, "" when it did not; `refusal` for a message that reports a
            refusal in place of its content.
        prompt_tokens: Input tokens as reported, or None.
        completion_tokens: Output tokens as reported, reasoning included, or None.
        model: The model as the server reported it.
        started: When the successful attempt was sent, seconds since the epoch.
        finished: When its body was complete, seconds since the epoch.
        cached_tokens: Those of the input tokens that the server had in its cache, or None.
        reasoning_tokens: Those of the output tokens that were spent on reasoning, or None.
    """

    content: str
    reasoning: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = ""
    started: float = 0.0
    finished: float = 0.0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def truncated(self) -> bool:
        """Whether the model stopped at its token limit."""
        return self.finish_reason.lower() in CUT_OFF

    @property
    def refused(self) -> bool:
        """Whether the server says that the answer was withheld, or is a refusal."""
        return self.finish_reason.lower() in REFUSAL


TokenLimit = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a request that a server takes; hashable, for what is made of it is kept.

    Attributes:
        structure: How the shape of an answer is asked for.
        token_limit: The name of the token limit.
        most_tokens: Its highest value; 0 where none is known.
        renamed: Whether the limit's other name was refused before.
        streaming: Whether answers come piece by piece.
        stream_usage: Whether such an answer is asked to report its usage.
        left_out: Fields of the body that are not sent.
        system: Whether there may be a message with that role.
    """

    structure: Structure = "json_schema"
    token_limit: TokenLimit = "max_tokens"  # noqa: S105 - a parameter
    most_tokens: int = 0
    renamed: bool = False
    streaming: bool = False
    stream_usage: bool = False
    left_out: frozenset[str] = frozenset()
    system: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that a server refused.

    Attributes:
        name: The entry of the table, or a field of `extra_body`.
        tried: What it was in that attempt, such as `json_schema`; "" where it is there or not.
        step: What comes next of a response format or a token limit; "" for the next in the table.
        rivals: The names of two parameters that exclude each other; () elsewhere.
        guessed: Whether nothing says that it was this: the words may mean something else.
    """

    name: str
    tried: str = ""
    step: str = ""
    rivals: tuple[str, ...] = ()
    guessed: bool = False


Structure = Literal["json_schema", "plain_schema", "json_object", "off"]
"""How a shape is asked for, the strictest first: with its bounds, without them, as any JSON, not at all."""

ITEMS: Final = "items"
SCORES: Final = "scores"
COMPARISON: Final = "comparison"
CHECKS: Final = "checks"

SIDES: Final = ("A", "B", "tie")
"""What a comparison says."""
YES_NO: Final = ("yes", "no")
"""What is said to a question of a checklist."""

LOWEST: Final = 1
HIGHEST: Final = 5
"""The scale of a rubric."""

_ANY_SCORE: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "properties": {"score": {"type": "number"}, "reasoning": {"type": "string"}},
            "required": ["score"],
        },
    ]
}


def response_format(
    structure: Structure,
    schema: str,
    *,
    least: int = 0,
    criteria: tuple[str, ...] = (),
    explain: bool = False,
) -> dict[str, Any] | None:
    """The request's `response_format`, or None when it has none.

    Args:
        structure: How the shape is asked for.
        schema: The shape: `items`, `scores`, `comparison` or `checks`; "" for prose.
        least: Of a list: how many items are asked for.
        criteria: Of scores: their names; () where a rubric does not tell them.
        explain: Of scores: whether each comes with its reasoning.
    """
    if structure == "off" or not schema:
        return None
    bounded = structure == "json_schema"
    if structure == "json_object" or schema not in {ITEMS, SCORES, COMPARISON, CHECKS}:
        return {"type": "json_object"}
    if schema == ITEMS:
        described, strict = _items(least if bounded else 0), True
    elif schema == COMPARISON:
        described, strict = _object({"better": {"type": "string", "enum": [*SIDES]}}), True
    elif schema == CHECKS:
        each = {"type": "string", "enum": [*YES_NO]}
        described, strict = _object(dict.fromkeys(criteria, each)), True
    else:
        described, strict = _scores(criteria, explain=explain, bounded=bounded), bool(criteria)
    return {"type": "json_schema", "json_schema": {"name": schema, "strict": strict, "schema": described}}


def _items(least: int) -> dict[str, Any]:
    items: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    if least:
        items["minItems"] = least
    return _object({"items": items})


def _scores(criteria: tuple[str, ...], *, explain: bool, bounded: bool) -> dict[str, Any]:
    if not criteria:
        return {"type": "object", "additionalProperties": _ANY_SCORE}
    # A whole number: llama.cpp keeps to the bounds of those alone.
    score: dict[str, Any] = {"type": "integer"}
    if bounded:
        score |= {"minimum": LOWEST, "maximum": HIGHEST}
    each = _object({"score": score, "reasoning": {"type": "string"}}) if explain else score
    return _object(dict.fromkeys(criteria, each))


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    # OpenAI's strict mode wants an object at the root, and every property of it named and required.
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

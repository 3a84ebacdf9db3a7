"""A chat request with its key, and the answer it bought.

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
from typing import TYPE_CHECKING, Any

import orjson

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
        schema: The shape asked for, `items` or `scores`; "" for prose.
        sample: 0 for the first try, n for the nth after an unusable answer or for the nth chunk, moved as
            a whole by the seed.
        least: Of a list: how many items are asked for. This and what follows is in the words of the
            messages, and is not part of the key: it only says how the schema is put to a server.
        criteria: Of scores: their names; () where the rubric does not tell them.
        explain: Of scores: whether reasoning is asked for beside each.
        plainly: Whether the shape is asked for by the messages alone.
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

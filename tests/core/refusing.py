"""A model server that refuses parts of requests, in the words and wrappings of real ones."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from tasks.core.demo.http import Response
from tasks.core.demo.server import DemoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tasks.core.demo.http import Request

HIGHEST = 300
"""The highest token limit of a server that has one."""


def limit_of(body: dict[str, Any]) -> tuple[str, int]:
    """The name and value of a body's token limit."""
    return next((name, body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body)


def _roles(body: dict[str, Any]) -> list[str]:
    return [message["role"] for message in body["messages"]]


PARAMETERS = (
    *("temperature", "top_p", "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty"),
    *("stream", "stream_options", "response_format", "reasoning_effort"),
)
OTHERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "max_tokens": lambda body: "max_tokens" in body,
    "highest": lambda body: limit_of(body)[1] > HIGHEST,
    "system": lambda body: "system" in _roles(body),
}
THINGS = (*PARAMETERS, *OTHERS)
"""All that is refused, alone or with others."""

_SPOKEN: dict[str, str] = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "highest": f"max_tokens is too large: this model supports at most {HIGHEST} completion tokens",
    "system": "System role not supported",
}


def camel(name: str) -> str:
    """A name as JavaScript and Google write it."""
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)


WORDINGS: dict[str, Callable[[str], str]] = {
    "unsupported": lambda name: f"Unsupported parameter: '{name}' is not supported with this model.",
    "value": lambda name: (
        f"Unsupported value: '{name}' does not support that. Only the default is supported."
    ),
    "unrecognized": lambda name: f"Unrecognized request argument supplied: {name}",
    "backticks": lambda name: f"`{name}` is deprecated for this model.",
    "hyphens": lambda name: f'The parameter "{name.replace("_", "-")}" can not be used here',
    "camel": lambda name: f"Invalid request: field '{camel(name)}' is not allowed",
    "list": lambda name: f"some-server does not support parameters: ['{name}'], for model=strong",
    "offer": lambda name: f"Supported parameters: model, messages, max_tokens. Unknown parameter: '{name}'.",
}

WRAPPINGS: dict[str, Callable[[str, str], Any]] = {
    "openai": lambda text, name: {
        "error": {"message": text, "type": "invalid_request_error", "param": name, "code": None}
    },
    "without param": lambda text, _: {"error": {"message": text, "type": "invalid_request_error"}},
    "anthropic": lambda text, _: {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": text},
    },
    "fastapi": lambda text, _: {"detail": text},
    "fastapi list": lambda text, name: {
        "detail": [{"type": "value_error", "loc": ["body", name], "msg": text, "input": "temperature"}]
    },
    "vllm": lambda text, _: {
        "object": "error",
        "message": text,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
    "openrouter": lambda text, _: {
        "error": {
            "message": "Provider returned error",
            "code": 400,
            "metadata": {"raw": json.dumps({"error": {"message": text}}), "provider_name": "Some"},
        }
    },
    "google": lambda text, name: [
        {
            "error": {
                "code": 400,
                "message": text,
                "status": "INVALID_ARGUMENT",
                "details": [{"fieldViolations": [{"field": camel(name), "description": text}]}],
            }
        }
    ],
    "aws": lambda text, _: {"__type": "ValidationException", "message": text},
    "inside": lambda text, _: {"error": json.dumps({"object": "error", "message": text})},
    "mistral": lambda text, name: {
        "object": "error",
        "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": text}]},
    },
    "text": lambda text, _: text,
}


def document_of(name: str, wording: str, wrapping: str, limit: str = "max_tokens") -> str:
    """The body of an error that refuses a thing."""
    place = {"highest": limit, "system": "messages"}.get(name, name)
    document = WRAPPINGS[wrapping](_SPOKEN.get(name) or WORDINGS[wording](name), place)
    return document if isinstance(document, str) else json.dumps(document)


class Refusing(DemoServer):
    """The demo model behind a server that takes not everything.

    Attributes:
        refused: How often each thing was refused to each model.
        bodies: What was sent, in order.
    """

    def __init__(
        self,
        things: Collection[str],
        wording: str = "unsupported",
        wrapping: str = "openai",
        status: int = 400,
    ) -> None:
        super().__init__()
        self.things = things
        self.refused: Counter[tuple[str, str]] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._words = wording, wrapping
        self._status = status

    def _chat(self, request: Request) -> Response:
        body = json.loads(request.body)
        self.bodies.append(body)
        if (refusal := self._refusal(body)) is not None:
            name, text = refusal
            self.refused[name, body["model"]] += 1
            return Response(self._status, text.encode())
        return super()._chat(request)

    def _refusal(self, body: dict[str, Any]) -> tuple[str, str] | None:
        """The first thing in a body that is refused, with the error that says so."""
        for name in self.things:
            if OTHERS[name](body) if name in OTHERS else name in body:
                return name, document_of(name, *self._words, limit_of(body)[0])
        return None

"""The form of a request that a server takes: found out by what it refuses, and remembered for the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from tasks.core.llm.retry import Verdict

if TYPE_CHECKING:
    from tasks.core.llm.http import Manner
    from tasks.core.llm.retry import AttemptError
    from tasks.core.llm.types import ChatRequest

Structure = Literal["json_schema", "json_object", "off"]
TokenLimit = Literal["max_tokens", "max_completion_tokens"]
Form = tuple[Structure, TokenLimit, bool, bool]
"""How the shape is asked for, the token limit's name, whether to stream, and with usage."""

_WEAKER: Final[dict[Structure, Structure]] = {"json_schema": "json_object", "json_object": "off"}


_SCORE: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "properties": {"score": {"type": "number"}, "reasoning": {"type": "string"}},
            "required": ["score"],
        },
    ]
}
# OpenAI's strict mode wants an object at the root, and every property of it named: the criteria are not
# known here, since a rubric may be the user's own.
_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "items": {
        "name": "items",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"items": {"type": "array", "items": {"type": "string"}}},
            "required": ["items"],
            "additionalProperties": False,
        },
    },
    "scores": {
        "name": "scores",
        "strict": False,
        "schema": {"type": "object", "additionalProperties": _SCORE},
    },
}


def response_format(structure: Structure, schema: str) -> dict[str, Any] | None:
    """The request's `response_format`, or None when it has none.

    Args:
        structure: How the shape is asked for.
        schema: The shape, `items` or `scores`; "" for prose.
    """
    if structure == "off" or not schema:
        return None
    if structure == "json_object" or schema not in _SCHEMAS:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": _SCHEMAS[schema]}


class Negotiation:
    """What is known about the form that one model at one server takes; `auto` is open to being learned.

    Not part of a request's key: an answer stays the same one however it was asked for.
    """

    def __init__(
        self,
        structured_output: Literal["auto", "json_schema", "json_object", "off"] = "auto",
        max_tokens_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto",
        *,
        use_streaming: bool = False,
    ) -> None:
        self._structure: Structure = "json_schema" if structured_output == "auto" else structured_output
        self._structure_open = structured_output == "auto"
        self.token_limit: TokenLimit = (
            "max_tokens" if max_tokens_parameter == "auto" else max_tokens_parameter
        )
        self._token_limit_open = max_tokens_parameter == "auto"
        self.streaming = use_streaming
        self.stream_usage = use_streaming

    def structure(self, request: ChatRequest) -> Structure:
        """How the answer's shape is asked for; `off` for prose."""
        return self._structure if request.schema else "off"

    def form(self, request: ChatRequest) -> Form:
        """The form that the server is known to take for a request."""
        return self.structure(request), self.token_limit, self.streaming, self.stream_usage

    def manner(self, request: ChatRequest, manner: Manner) -> Manner:
        """The manner of the next attempt: as given, in the form that the server is known to take."""
        structure, token_limit, streaming, stream_usage = self.form(request)
        return replace(
            manner,
            structure=structure,
            token_limit=token_limit,
            streaming=streaming,
            stream_usage=stream_usage,
        )

    def learn(self, error: AttemptError) -> bool:
        """Learn from a refusal of the form.

        Returns:
            True when there is another form now, in which the request is sent again at once, at no cost of a
            retry; False when there is nothing left to try, and the error is final for its call.
        """
        if error.verdict is not Verdict.RENEGOTIATE:
            return False
        match error.refused:
            case "response_format":
                return self._weaken(error.tried)
            case "max_tokens":
                return self._rename(error.tried)
            case "stream_options":
                self.stream_usage = False
                return True
            case "stream":
                self.streaming = False
                return True
            case _:
                return False

    def _weaken(self, tried: str) -> bool:
        if tried != self._structure:
            return True  # Somebody else has learned it since; the weaker form was not tried by this call.
        weaker = _WEAKER.get(self._structure)
        if weaker is None or not self._structure_open:
            return False
        self._structure = weaker
        return True

    def _rename(self, tried: str) -> bool:
        if tried != self.token_limit:
            return True
        if not self._token_limit_open or tried != "max_tokens":
            return False
        self.token_limit = "max_completion_tokens"  # noqa: S105 - a parameter
        return True

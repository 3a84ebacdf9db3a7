"""A request as it goes over the wire: what is configured, in the form that its server takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.llm.schemas import response_format

if TYPE_CHECKING:
    from tasks.core.llm.http import Manner
    from tasks.core.llm.types import ChatRequest


def body_of(request: ChatRequest, manner: Manner) -> dict[str, Any]:
    """The JSON body of an attempt."""
    body = request.body()
    for name in manner.left_out:
        body.pop(name, None)
    if not manner.system:
        body["messages"] = _without_system(body["messages"])
    if "max_tokens" in body:
        limit = body.pop("max_tokens")
        body[manner.token_limit] = min(limit, manner.most_tokens) if manner.most_tokens else limit
    form = response_format(
        manner.structure,
        request.schema,
        least=request.least,
        criteria=request.criteria,
        explain=request.explain,
    )
    if form is not None:
        body["response_format"] = form
        if request.json_hint and form["type"] == "json_object":
            body["messages"][-1]["content"] += f" {request.json_hint}"
    if manner.streaming:
        body["stream"] = True
        if manner.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages with the system's text before the user's first, as templates without that role take it."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    first, *others = [message for message in messages if message["role"] != "system"]
    return [first | {"content": "\n\n".join([*system, first["content"]])}, *others]

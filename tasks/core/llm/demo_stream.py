"""A completion of the demo model as a stream of server-sent events."""

from __future__ import annotations

from typing import Any

import orjson

CONTENT_TYPE = "text/event-stream"

_PIECE = 40
"""Characters of an event, as many as a few tokens have."""


def events(completion: bytes, *, usage: bool, unfinished: bool) -> bytes:
    """The stream that says what a completion says.

    Args:
        completion: The JSON of a chat completion.
        usage: Whether the last chunk is to report the usage.
        unfinished: Leave out the end: half of the chunks, the finish reason and `[DONE]`.
    """
    whole = orjson.loads(completion)
    choice = whole["choices"][0]
    common = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        text = choice["message"].get(name) or ""
        deltas += [{name: text[start : start + _PIECE]} for start in range(0, len(text), _PIECE)]
    chunks = [common | {"choices": [_choice(delta, None)]} for delta in deltas]
    if unfinished:
        return b"".join(map(_event, chunks[: len(chunks) // 2 + 1]))
    chunks.append(common | {"choices": [_choice({}, choice["finish_reason"])]})
    if usage:
        chunks.append(common | {"choices": [], "usage": whole["usage"]})
    return b"".join(map(_event, chunks)) + b"data: [DONE]\n\n"


def _choice(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"

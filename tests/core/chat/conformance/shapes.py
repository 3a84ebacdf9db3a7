"""How a server's responses are written down: as bytes of HTTP, with what is to be read in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.exchange.limit_headers import NO_ADVICE
from tests.core.chat.scripted import http

if TYPE_CHECKING:
    from tasks.core.exchange.attempt import Verdict
    from tasks.core.exchange.limit_headers import Advice

TEXT = "Der Wärter zündet die Lampe an. 🙂"
"""What every server answers."""

HALVES = TEXT[:7], TEXT[7:]


@dataclass(frozen=True, slots=True)
class Wrong:
    """An error response and what it means."""

    response: bytes
    verdict: Verdict
    words: str
    advice: Advice = NO_ADVICE


@dataclass(frozen=True, slots=True)
class Server:
    """One server's shapes.

    Attributes:
        name: The server.
        plain: A response to a request without streaming.
        streamed: The same with streaming.
        usage: Tokens as (input, output, cached, reasoning), of both.
        reasoning: The reasoning, of both.
        errors: Errors, a rate limit among them.
    """

    name: str
    plain: bytes
    streamed: bytes
    usage: tuple[int | None, int | None, int | None, int | None]
    errors: tuple[Wrong, ...]
    reasoning: str = ""


def document(*headers: str, **fields: Any) -> bytes:
    return http(200, json.dumps(fields, ensure_ascii=False), "Content-Type: application/json", *headers)


def error(status: int, body: Any, *headers: str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return http(status, text, "Content-Type: application/json", *headers)


def choice(message: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "message": message, "finish_reason": "stop", **fields}]


def chunks(*deltas: dict[str, Any], common: dict[str, Any], last: dict[str, Any] | None = None) -> list[str]:
    """A stream's chunks: one for each delta, the last of them with its finish reason and further fields."""
    documents = []
    for number, delta in enumerate(deltas, 1):
        final = number == len(deltas)
        choices = [{"index": 0, "delta": delta, "finish_reason": "stop" if final else None}]
        documents.append(common | {"choices": choices} | (last or {} if final else {}))
    return [json.dumps(each, ensure_ascii=False) for each in documents]


def usage_chunk(common: dict[str, Any], usage: dict[str, Any]) -> str:
    return json.dumps(common | {"choices": [], "usage": usage})


def stream(*events: str, end: str = "\n", done: bool = True, before: str = "", pad: str = " ") -> bytes:
    """A chunked response; every event is a chunk of its own, split once inside."""
    texts = [before, *(f"data:{pad}{text}{end}{end}" for text in (*events, *(["[DONE]"] if done else [])))]
    data = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    data += b"Transfer-Encoding: chunked\r\n\r\n"
    for text in filter(None, texts):
        raw = text.encode()
        middle = len(raw) // 2
        for piece in (raw[:middle], raw[middle:]):
            data += b"%x\r\n%s\r\n" % (len(piece), piece)
    return data + b"0\r\n\r\n"

"""An answer read: from one document, or as it comes in a stream of server-sent events.

A document and the chunks of a stream differ only in that a chunk holds a `delta` where a document holds the
`message`, so both are read here, into a `PartialAnswer`.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson
from httpx_sse import EventSource

from tasks.core.chat.transport import TRANSPORT_ERRORS, text_of
from tasks.core.exchange.attempt import AttemptError
from tasks.core.exchange.request import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from tasks.core.chat.transport import Share


_LARGE: Final = 1024 * 1024
_MOST_VALUES: Final = 1_000_000
"""Values that a document may hold: empty lists need twenty times the memory of their text."""
_MOST_MEMORY: Final = 120 * 1024 * 1024
"""Bytes of memory that reading a document may take: itself, the reader's copy of it, and its text."""

_DEEPEST: Final = 4
"""How deep texts may be nested in parts of parts."""

_TEXT_KEYS: Final = ("text", "content", "thinking", "reasoning", "summary")
_THINKING_PARTS: Final = frozenset({"thinking", "reasoning"})


def parse(content: bytes | bytearray, content_type: str = "") -> Any:
    """The JSON document in a body; invalid UTF-8 and halves of surrogate pairs are let through to be mended.

    Args:
        content: The body, also with a byte order mark and in UTF-16.
        content_type: The header, which may name a charset.

    Raises:
        AttemptError: It is not JSON, or would take far more memory than its bytes.
    """
    if len(content) > _LARGE:
        _check_memory(content)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # What was paid for is not thrown away for one bad character.
        try:
            return json.loads(text_of(content, content_type))
        except (ValueError, RecursionError):
            start = content[:200].lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower()
            what = (
                "HTML, not JSON; check base_url"
                if start.startswith((b"<!doctype", b"<html"))
                else f"not JSON: {error}"
            )
            raise AttemptError("malformed_response", f"the body is {what}") from None


def _check_memory(content: bytes | bytearray) -> None:
    # A character beyond ASCII can widen every other one of its text to four bytes.
    width = 1 if content.isascii() and b"\\u" not in content else 4
    values = sum(content.count(sign) for sign in (b"[", b"{", b","))
    if len(content) * (2 + width) > _MOST_MEMORY or values > _MOST_VALUES:
        raise AttemptError("malformed_response", f"the body is too large to be read: {len(content)} bytes")


class PartialAnswer:
    """An answer as it comes in: of one document, or of the chunks of a stream."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._usage: dict[str, Any] = {}
        self._model = ""
        self.finish_reason = ""
        self.size = 0
        """Characters so far."""
        self.begun = False
        """Whether there was a message, or a part of one."""

    def add(self, document: dict[str, Any]) -> None:
        """Add a document or a chunk; what is missing or of the wrong type is left out."""
        model, usage = document.get("model"), document.get("usage")
        if isinstance(model, str) and model:
            self._model = model
        if not isinstance(usage, dict) and isinstance(groq := document.get("x_groq"), dict):
            usage = groq.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        choices = document.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict):
            self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self.finish_reason = finish
        message = choice.get("message")
        if not isinstance(message, dict):
            message = choice.get("delta")
        if isinstance(message, dict):
            self.begun = True
            self._add_message(message)

    def _add_message(self, message: dict[str, Any]) -> None:
        content = message.get("content")
        reasoning = next(
            (
                text
                for key in ("reasoning_content", "reasoning", "reasoning_details")
                if (value := message.get(key)) and (text := _text(value))
            ),
            "",
        )
        refusal = message.get("refusal")
        if isinstance(content, str):
            self._put(self._content, content)
        elif content:
            for part in content if isinstance(content, list) else [content]:
                kind = part.get("type") if isinstance(part, dict) else None
                self._put(self._reasoning if kind in _THINKING_PARTS else self._content, _text(part))
        self._put(self._reasoning, reasoning)
        if isinstance(refusal, str):
            self._put(self._refusal, refusal)

    def _put(self, texts: list[str], text: str) -> None:
        if text:
            texts.append(text)
            self.size += len(text)

    def answer(self, started: float) -> Answer:
        """The answer, from what has come; `started` is when its attempt was sent."""
        usage = self._usage
        content, refusal = _joined(self._content), _joined(self._refusal)
        refused = bool(refusal) and not content
        return Answer(
            content=refusal if refused else content,
            reasoning=_joined(self._reasoning),
            finish_reason="refusal" if refused else _joined([self.finish_reason]),
            prompt_tokens=_count(usage, "prompt_tokens", "input_tokens"),
            completion_tokens=_count(usage, "completion_tokens", "output_tokens"),
            model=_joined([self._model]),
            started=started,
            finished=time.time(),
            cached_tokens=_detail(usage, "prompt_tokens_details", "cached_tokens", "prompt_cache_hit_tokens"),
            reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        )


def read_document(document: Any, check: Callable[[dict[str, Any]], None], started: float) -> Answer:
    """The answer that a whole document holds.

    Args:
        document: As it was parsed.
        check: Raises when the document reports an error in place of an answer.
        started: When its attempt was sent, seconds since the epoch.

    Raises:
        AttemptError: It is no chat completion, or reports an error.
    """
    draft = PartialAnswer()
    if isinstance(document, dict):
        check(document)
        draft.add(document)
    if not draft.begun:
        raise AttemptError("malformed_response", f"not a chat completion: {_shape(document)}")
    return draft.answer(started)


def _text(value: object, depth: int = 0) -> str:
    """The text of a value: itself, or that of a list of parts or of an object's first text."""
    if isinstance(value, str):
        return value
    if depth == _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(_text(part, depth + 1) for part in value)
    if isinstance(value, dict):
        return next((text for key in _TEXT_KEYS if (text := _text(value.get(key), depth + 1))), "")
    return ""


def _joined(texts: Iterable[str]) -> str:
    """The texts as one that can be stored: a surrogate pair split between chunks is one character again."""
    text = "".join(texts)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _detail(usage: dict[str, Any], details: str, name: str, *others: str) -> int | None:
    """A count that stands in an object of details, or under another name beside it."""
    inner = usage.get(details)
    count = _count(inner, name) if isinstance(inner, dict) else None
    return count if count is not None else _count(usage, name, *others)


def _count(usage: dict[str, Any], *names: str) -> int | None:
    """The first of these fields that is a number of tokens."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return value
    return None


def _shape(document: object) -> str:
    if isinstance(document, dict):
        return "an object without " + ("a message in its choices" if document.get("choices") else "choices")
    return f"a JSON {type(document).__name__}"


LINGER: Final = 0.1
"""Seconds that the end of the response is waited for after `[DONE]`, so that its connection can be kept."""

_EVENT_STREAM: Final = "text/event-stream"
_DONE: Final = "[DONE]"
_MOST_LINES: Final = 100_000
"""Lines without an event: a line costs as much as a hundred bytes, and may hold none."""
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


def is_stream(content_type: str, first: bytes) -> bool:
    """Whether a body is a stream of events: by how it begins, since servers mislabel either; else by type."""
    start = first.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:6]
    if start.startswith((b"{", b"[", b"<")):
        return False
    return start.startswith(_FIELDS) or content_type.lower().startswith(_EVENT_STREAM)


async def read_stream(
    first: bytes,
    body: AsyncIterator[bytes],
    share: Share,
    check: Callable[[dict[str, Any]], None],
    started: float,
) -> Answer:
    """The answer that a stream brings.

    Args:
        first: The stream's first bytes.
        body: The bytes after them, split anywhere.
        share: Told how much is held.
        check: Raises when a chunk reports an error.
        started: When the attempt was sent, seconds since the epoch.

    Raises:
        AttemptError: The stream reports an error, is no stream of chat completions, or ends before the
            answer does: what has come by then is no answer.
    """
    draft = PartialAnswer()
    first = first.removeprefix(codecs.BOM_UTF8)
    pending = _Pending(first, body, draft, share)
    response = httpx.Response(200, headers={"content-type": _EVENT_STREAM}, stream=pending)
    done = False
    try:
        async with aclosing(EventSource(response).aiter_sse()) as events:
            async for event in events:
                pending.size = pending.lines = 0
                data = event.data.strip()
                if data == _DONE:
                    done = True
                    break
                if data:
                    _add(draft, parse(data.encode("utf-8", "replace")), check)
    except TRANSPORT_ERRORS:
        # With its finish reason an answer is whole; the usage that would have followed is not worth another.
        if not draft.finish_reason:
            raise
    if not (done or draft.finish_reason):
        raise AttemptError("connection", "the stream ended before the answer did")
    if not draft.begun:
        raise AttemptError("malformed_response", "the stream held no answer")
    if done:
        await _linger(body)
    return draft.answer(started)


def _add(draft: PartialAnswer, chunk: Any, check: Callable[[dict[str, Any]], None]) -> None:
    # Pings and the like are chunks without choices, which add nothing.
    if isinstance(chunk, dict):
        check(chunk)
        draft.add(chunk)


async def _linger(body: AsyncIterator[bytes]) -> None:
    """Read on to the end of the response, if it is near: a connection is kept when nothing is left in it."""
    try:
        async with asyncio.timeout(LINGER):
            async for _ in body:
                pass
    except (AttemptError, *TRANSPORT_ERRORS):
        pass


class _Pending(httpx.AsyncByteStream):
    """The bytes of a stream on their way to its events; what no event has used up yet counts as held."""

    def __init__(self, first: bytes, body: AsyncIterator[bytes], draft: PartialAnswer, share: Share) -> None:
        self._first = first
        self._body = body
        self._draft = draft
        self._share = share
        self.size = 0
        self.lines = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        async for piece in self._body:
            self.size += len(piece)
            self.lines += piece.count(b"\n")
            if self.lines > _MOST_LINES:
                raise AttemptError("malformed_response", f"{_MOST_LINES:,} lines of the stream hold no event")
            await self._share.hold(self.size + self._draft.size)
            yield piece

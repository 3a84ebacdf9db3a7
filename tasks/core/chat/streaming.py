"""An answer that comes as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import httpx
from httpx_sse import EventSource

from tasks.core.chat.reading import PartialAnswer, parse
from tasks.core.chat.transport import TRANSPORT_ERRORS
from tasks.core.exchange.attempt import AttemptError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tasks.core.chat.transport import Share
    from tasks.core.exchange.request import Answer

LINGER: Final = 0.1
"""Seconds that the end of the response is waited for after `[DONE]`, so that its connection can be kept."""

_EVENT_STREAM: Final = "text/event-stream"
_DONE: Final = "[DONE]"
_MOST_LINES: Final = 100_000
"""Lines without an event: a line costs as much as a hundred bytes, and may hold none."""
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


def is_stream(content_type: str, first: bytes) -> bool:
    """Whether a body is a stream of events: by how it begins, since servers mislabel either; else by type."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")[:6]
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

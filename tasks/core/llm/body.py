"""The body of a response, decompressed, within its bounds: whatever a server sends, memory stays bounded."""

from __future__ import annotations

import zlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import httpx

from tasks.core.llm.retry import AttemptError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterator
    from types import TracebackType

LARGE: Final = 256 * 1024
"""Bytes from which a body waits until it is the only large one in memory."""

TRANSPORT_ERRORS: Final = (TimeoutError, httpx.HTTPError, aiohttp.ClientError, ValueError)
"""httpx's own; aiohttp's and those of values that cannot be read, which its transport lets through."""

_STEP: Final = 64 * 1024
# What zlib is told to expect: gzip's header, zlib's own, or none.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_METHOD: Final = 8


class Share:
    """What one attempt holds in memory of its body: as much as it likes while small, else one at a time.

    Many large bodies at once would add up to more memory than there is; each of them waits for the one
    before, within its own timeout, while its server is held back by the connection.
    """

    def __init__(self, turn: asyncio.Lock) -> None:
        self._turn = turn
        self._has_turn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._has_turn:
            self._turn.release()

    async def hold(self, size: int) -> None:
        """Called with the bytes that are held so far."""
        if size > LARGE and not self._has_turn:
            await self._turn.acquire()
            self._has_turn = True


async def decoded(response: httpx.Response, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces, decompressed, none of them empty.

    Raises:
        AttemptError: More than `max_bytes`, or a compression that is unknown or broken.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    pieces: AsyncIterator[bytes] = response.aiter_raw()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        pieces = _decompressed(pieces, deflate=encoding == "deflate")
    elif encoding not in {"", "identity"}:
        raise AttemptError("malformed_response", "the body is compressed in a way that was not asked for")
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise AttemptError("malformed_response", f"the body has more than {max_bytes} bytes")
        if piece:
            yield piece


async def _decompressed(pieces: AsyncIterator[bytes], *, deflate: bool) -> AsyncIterator[bytes]:
    """Decompressed in small steps, so that a bomb costs no more memory than what is taken of it."""
    decoder = None
    try:
        async for piece in pieces:
            if decoder is None:
                # Some servers call the format without zlib's header deflate, against the standard.
                bare = deflate and piece[:1] and piece[0] & 0x0F != _ZLIB_METHOD
                decoder = zlib.decompressobj((_RAW if bare else _ZLIB) if deflate else _GZIP)
            left = piece
            while left and not decoder.eof:
                yield decoder.decompress(left, _STEP)
                left = decoder.unconsumed_tail
        while decoder is not None and not decoder.eof and (rest := decoder.decompress(b"", _STEP)):
            yield rest
    except zlib.error as error:
        raise AttemptError("malformed_response", "the compressed body is damaged") from error
    if decoder is not None and not decoder.eof:
        raise AttemptError("connection", "the compressed body ended too soon")


async def gather(first: bytes, rest: AsyncIterator[bytes], share: Share) -> bytes | bytearray:
    """The whole of a body whose first piece is known already."""
    whole: bytes | bytearray = first
    async for piece in rest:
        if isinstance(whole, bytes):  # Most answers are one piece, and need no other memory.
            whole = bytearray(whole)
        whole += piece
        await share.hold(len(whole))
    return whole


async def beginning(response: httpx.Response, most: int) -> bytes:
    """The first `most` bytes of a body, or as much of them as can be had: that of an error may be broken."""
    content = bytearray()
    try:
        async with aclosing(decoded(response, most)) as pieces:
            async for piece in pieces:
                content += piece
    except (AttemptError, *TRANSPORT_ERRORS):
        pass  # The status already says what is wrong; the text would only explain it.
    return bytes(content)

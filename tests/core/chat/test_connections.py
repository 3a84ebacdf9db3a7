"""Connections that a server closes although it said that it would keep them, over real HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tasks.core.chat import transport as connections
from tasks.core.chat.http import ChatHttp
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError
from tests.core.chat.closing import Closing
from tests.core.chat.scripted import question

if TYPE_CHECKING:
    from tests.core.chat.closing import End

AT_ONCE = 64
REQUESTS = 300
MANNER = Manner(None, 30.0)


async def ask(chat: ChatHttp, server: Closing, times: int = 1, at_once: int = 1) -> list[str]:
    """The cause of each failed attempt."""
    failed = []
    places = asyncio.Semaphore(at_once)

    async def attempt(number: int) -> None:
        async with places:
            try:
                arrival = await chat.send(question(f"{number}", server.url), MANNER)
                assert arrival.answer.content == "an answer"
            except AttemptError as error:
                failed.append(error.cause)

    await asyncio.gather(*map(attempt, range(times)))
    return failed


@pytest.mark.parametrize("streaming", [False, True])
# A reset that comes by itself could overtake the answer.
@pytest.mark.parametrize(
    ("after", "end"), [(0.0, "close"), (0.001, "close"), (None, "close"), (None, "reset")]
)
async def test_a_connection_that_is_closed_after_its_answer_costs_no_attempt(
    after: float | None, end: End, *, streaming: bool
) -> None:
    async with (
        Closing(streaming=streaming, after=after, end=end).listening() as server,
        ChatHttp(max_connections=AT_ONCE) as chat,
    ):
        assert await ask(chat, server, REQUESTS, AT_ONCE) == []
        # Each answer came over a connection of its own, and no request went out a third time.
        assert server.connections == REQUESTS
        assert after is not None or server.dropped > 0


async def test_the_one_that_is_sent_again_has_its_own_connection_although_the_pool_has_others() -> None:
    async with Closing().listening() as server, ChatHttp(max_connections=AT_ONCE) as chat:
        assert await ask(chat, server, 8, 8) == []
        # Eight are in the pool, and each of them is closed at the next request.
        assert await ask(chat, server) == []
        assert (server.connections, server.dropped) == (9, 1)


async def test_a_connection_that_is_kept_is_used_again() -> None:
    async with Closing(answers=REQUESTS).listening() as server, ChatHttp(max_connections=AT_ONCE) as chat:
        assert await ask(chat, server, 50) == []
        assert (server.connections, server.dropped) == (1, 0)


@pytest.mark.parametrize("end", ["close", "reset", "part"])
async def test_a_new_connection_that_is_closed_is_a_failed_attempt(end: End) -> None:
    async with Closing(answers=0, end=end).listening() as server, ChatHttp(max_connections=AT_ONCE) as chat:
        assert await ask(chat, server, 20, 4) == ["connection"] * 20
        assert (server.connections, server.dropped) == (20, 20)


async def test_so_is_a_new_one_that_took_the_place_of_one_that_was_kept() -> None:
    async with Closing().listening() as server, ChatHttp(max_connections=AT_ONCE) as chat:
        assert await ask(chat, server) == []
        server.answers = 0
        assert await ask(chat, server) == ["connection"]
        assert (server.connections, server.dropped) == (2, 2)


async def test_a_response_that_had_begun_is_not_asked_for_twice() -> None:
    async with Closing(end="part").listening() as server, ChatHttp(max_connections=AT_ONCE) as chat:
        assert await ask(chat, server) == []
        assert await ask(chat, server) == ["connection"]
        assert (server.connections, server.dropped) == (1, 1)


async def test_a_server_that_took_its_time_and_then_closed_is_not_asked_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "AT_ONCE", -1.0)
    async with Closing().listening() as server, ChatHttp(max_connections=AT_ONCE) as chat:
        assert await ask(chat, server) == []
        assert await ask(chat, server) == ["connection"]
        assert (server.connections, server.dropped) == (1, 1)

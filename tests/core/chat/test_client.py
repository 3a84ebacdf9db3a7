"""The chat client: an answer is bought once, tried for as long as it may, and durable when it is given."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio
from pydantic import SecretStr

from tasks.core.chat.access import Access
from tasks.core.chat.budget import SessionBudget
from tasks.core.chat.client import ChatClient
from tasks.core.chat.http import ChatHttp
from tasks.core.chat.negotiation import Negotiation
from tasks.core.chat.transport import Manner
from tasks.core.cost import Bill
from tasks.core.demo.server import Behaviour, DemoServer
from tasks.core.errors import (
    BudgetError,
    CallError,
    EndpointError,
    LedgerError,
    RefusedError,
    RunInterrupted,
)
from tasks.core.exchange.attempt import RetryPolicy
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tasks.core.models import CallKind, Purpose
from tasks.core.printable import printable_line
from tasks.core.progress import Progress
from tasks.core.traffic import lane as lanes
from tasks.core.traffic.concurrency import AdaptiveLimit
from tasks.core.traffic.lane import MOST_UNUSABLE, Lane
from tasks.core.traffic.quota import Allowance, Quota
from tasks.core.traffic.stop import Stop
from tests.core.chat.scripted import SECRET, Reply, Scripted, answer, closed_port, completion, http, question
from tests.core.ledger.databases import sql
from tests.core.running import configured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

# To make an HTTP client takes longer than most of these tests: they share one, and its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUND = 30.0
"""Seconds after which a condition that a test waits for is given up."""

ENOUGH = 60
"""Turns of the loop in which whatever can go on without the network has gone on."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat() -> AsyncIterator[ChatHttp]:
    async with ChatHttp(max_connections=128) as shared:
        yield shared


@dataclass
class Shop:
    """A client over a ledger in a file, with everything that it was given."""

    client: ChatClient
    ledger: Ledger
    lane: Lane
    stop: Stop
    progress: Progress

    def broken(self) -> None:
        """Break the ledger here and now."""
        self.ledger._fail("written", OSError("no space left"))

    def counts(self) -> tuple[int, int, int, int]:
        """Paid, reused, failed attempts, in flight."""
        progress = self.progress
        return progress.paid.total(), progress.reused.total(), progress.attempts_failed, progress.in_flight


@asynccontextmanager
async def shop(
    chat: ChatHttp,
    folder: Path,
    *,
    max_retries: int = 3,
    quota: Quota | None = None,
    structured_output: Literal["auto", "off"] = "off",
    places: int = 128,
    patience: float = BOUND,
    timeout: float = BOUND,  # noqa: ASYNC109 - the setting
    budget: dict[str, int] | None = None,
) -> AsyncIterator[Shop]:
    stop, progress = Stop(), Progress()
    lane = Lane(
        "demo-strong at the shop's",
        Allowance(quota),
        AdaptiveLimit(places, adaptive=False),
        stop=stop,
        progress=progress,
        patience=patience,
    )
    access = Access(
        lane=lane,
        policy=RetryPolicy(max_retries=max_retries, max_backoff=0.0),
        negotiation=Negotiation(structured_output),
        plain=Manner(SecretStr(SECRET), timeout),
    )
    async with await Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        client = ChatClient(
            http=chat,
            ledger=ledger,
            access={CallKind(purpose, ""): access for purpose in Purpose},
            session="session_1",
            stop=stop,
            progress=progress,
            budget=SessionBudget(configured(budget=budget or {}), stop, Bill()),
        )
        yield Shop(client, ledger, lane, stop, progress)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - counters have no events
            await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(ENOUGH):
        await asyncio.sleep(0)


def rows_in(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        return connection.execute("SELECT key, session, purpose FROM calls").fetchall()


async def test_an_answer_is_bought_once(chat: ChatHttp, tmp_path: Path) -> None:
    async with DemoServer() as server:
        request = question(endpoint=server.base_url)
        async with shop(chat, tmp_path) as first:
            brought = await first.client.ask(request)
            assert await first.client.ask(request) == brought
            assert first.counts() == (1, 1, 0, 0)
            assert first.progress.paid == first.progress.reused == {"chosen": 1}
        async with shop(chat, tmp_path) as later:
            assert await later.client.ask(request) == brought
            assert later.counts() == (0, 1, 0, 0)
        assert server.stats.requests == 1


async def test_what_is_alike_and_another_call_is_bought_apart(chat: ChatHttp, tmp_path: Path) -> None:
    async with (
        Scripted([completion(str(number)) for number in range(4)]) as server,
        shop(chat, tmp_path) as here,
    ):
        variants: list[dict[str, Any]] = [
            {},
            {"sample": 1},
            {"purpose": Purpose.REJECTED},
            {"parameters": {}},
        ]
        brought = [await here.client.ask(question(endpoint=server.url, **variant)) for variant in variants]
        assert [each.content for each in brought] == ["0", "1", "2", "3"]
        assert here.progress.paid == {"chosen": 3, "rejected": 1}


async def test_an_answer_is_durable_before_it_is_given(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([completion()]) as server, shop(chat, tmp_path) as here:
        request = question(endpoint=server.url)
        assert rows_in(tmp_path) == []
        await here.client.ask(request)
        assert rows_in(tmp_path) == [(request.key, "session_1", "chosen")]


async def test_identical_requests_in_flight_are_one_call(chat: ChatHttp, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Scripted([Reply(completion(), gate=gate)]) as server, shop(chat, tmp_path) as here:
        asking = [asyncio.create_task(here.client.ask(question(endpoint=server.url))) for _ in range(20)]
        await server.arrived.wait()
        gate.set()
        brought = await asyncio.gather(*asking)
        assert {each.content for each in brought} == {"an answer"}
        assert here.counts() == (1, 19, 0, 0)


async def test_who_joined_gets_an_answer_although_who_asked_first_was_cancelled(
    chat: ChatHttp, tmp_path: Path
) -> None:
    script: list[bytes | Reply] = [Reply(b"", gate=asyncio.Event()), completion("for the others")]
    async with Scripted(script) as server, shop(chat, tmp_path) as here:
        first, *others = [
            asyncio.create_task(here.client.ask(question(endpoint=server.url))) for _ in range(4)
        ]
        await server.arrived.wait()
        first.cancel()
        brought = await asyncio.gather(*others)
        assert [each.content for each in brought] == ["for the others"] * 3
        assert first.cancelled()
        assert here.counts() == (1, 2, 0, 0)


async def test_who_joined_may_be_cancelled_alone(chat: ChatHttp, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Scripted([Reply(completion(), gate=gate)]) as server, shop(chat, tmp_path) as here:
        first, other = [asyncio.create_task(here.client.ask(question(endpoint=server.url))) for _ in range(2)]
        await server.arrived.wait()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        gate.set()
        assert (await first).content == "an answer"


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_when_all_are_cancelled_nobody_asks_again(chat: ChatHttp, tmp_path: Path, turns: int) -> None:
    async with Scripted([Reply(b"", gate=asyncio.Event())]) as server, shop(chat, tmp_path) as here:
        asking = [asyncio.create_task(here.client.ask(question(endpoint=server.url))) for _ in range(3)]
        await server.arrived.wait()
        asking[0].cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await until(lambda: all(task.done() for task in asking))
        assert all(task.cancelled() for task in asking)
        assert here.counts() == (0, 0, 0, 0)
        assert len(server.received) == 1


BROKEN = [
    *(http(status, "no") for status in (408, 409, 429, 500, 502, 503)),
    Reply(completion()[:-1], "close"),
    Reply(b"", "reset"),
    http(200, "not JSON"),
    http(200, '{"error": {"message": "overloaded"}}'),
    http(429, "no", "Retry-After: 0"),
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_passes_by_itself_is_tried_again(
    chat: ChatHttp, tmp_path: Path, broken: bytes | Reply
) -> None:
    async with Scripted([broken, broken, completion("at last")]) as server, shop(chat, tmp_path) as here:
        assert (await here.client.ask(question(endpoint=server.url))).content == "at last"
        assert here.counts() == (1, 0, 2, 0)
        assert len({each.headers["idempotency-key"] for each in server.received}) == 1
        assert len(rows_in(tmp_path)) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_does_not_pass_is_not_tried_again(chat: ChatHttp, tmp_path: Path, status: int) -> None:
    async with Scripted([http(status, f"no, {SECRET}")]) as server, shop(chat, tmp_path) as here:
        request = question(endpoint=server.url)
        with pytest.raises(CallError) as caught:
            await here.client.ask(request)
        error = caught.value
        assert (error.cause, error.status, error.attempts) == (f"http_{status}", status, 1)
        assert error.request == request.key.hex()
        assert str(error) == f"HTTP {status}: no, ***"
        assert here.counts() == (0, 0, 1, 0)
        assert rows_in(tmp_path) == []
        assert not here.stop.requested


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (http(401, f"no, {SECRET}"), r"HTTP 401: no, \*\*\*; check its API key"),
        (http(403, "no"), "HTTP 403: no; check its API key"),
        (http(404, "no"), "HTTP 404: no; check model_name and base_url"),
    ],
)
async def test_what_no_request_can_get_past_stops_the_run_with_one_message(
    chat: ChatHttp, tmp_path: Path, reply: bytes, words: str
) -> None:
    # One place: the second request waits for the first, and is never sent.
    async with Scripted([reply]) as server, shop(chat, tmp_path, places=1) as here:
        asking = [here.client.ask(question(str(number), server.url)) for number in range(20)]
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(error) for error in ended} == {EndpointError}
        assert len({str(error) for error in ended}) == 1
        with pytest.raises(EndpointError, match=words):
            here.stop.check()
        assert here.counts() == (0, 0, 1, 0)


async def answered_once(here: Shop, server: Scripted) -> None:
    """Bring one answer, so that what follows is a failure of a server that works."""
    await here.client.ask(question("The first", server.url))


@pytest.mark.parametrize("max_retries", [0, 1, 4])
async def test_retries_have_an_end(chat: ChatHttp, tmp_path: Path, max_retries: int) -> None:
    async with (
        Scripted([completion(), *[http(503, "busy")] * (max_retries + 1), completion("other")]) as server,
        shop(chat, tmp_path, max_retries=max_retries) as here,
    ):
        await answered_once(here, server)
        with pytest.raises(CallError) as caught:
            await here.client.ask(question(endpoint=server.url))
        assert (caught.value.cause, caught.value.status) == ("http_503", 503)
        assert caught.value.attempts == max_retries + 1
        assert here.counts() == (1, 0, max_retries + 1, 0)
        assert (await here.client.ask(question("Another", server.url))).content == "other"


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_a_server_that_never_answered_stops_the_run_when_retries_end(
    chat: ChatHttp, tmp_path: Path, max_retries: int
) -> None:
    script = [http(503, "busy")] * (max_retries + 1)
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=max_retries) as here:
        with pytest.raises(EndpointError, match=r"brought no answer in (one attempt|3 attempts): HTTP 503"):
            await here.client.ask(question(endpoint=server.url))
        with pytest.raises(EndpointError):
            await here.client.ask(question("Another", server.url))


async def test_nobody_listening_stops_the_run(chat: ChatHttp, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{closed_port()}/v1"
    async with shop(chat, tmp_path, max_retries=1) as here:
        with pytest.raises(EndpointError, match=nobody):
            await here.client.ask(question(endpoint=nobody))


async def test_a_server_that_never_answers_stops_the_run(chat: ChatHttp, tmp_path: Path) -> None:
    # Nobody was answered: the first is alone, until it was tried twice.
    script = [Reply(b"", "hang")] * 2
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=1, timeout=0.05) as here:
        asking = [here.client.ask(question(str(number), server.url)) for number in range(2)]
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(error) for error in ended} == {EndpointError}
        with pytest.raises(EndpointError, match="brought no answer in 2 attempts: no answer from"):
            here.stop.check()


@pytest.mark.parametrize("reply", [http(429, "slow down", "Retry-After: 0"), http(500, "no")])
async def test_a_server_that_brings_nothing_for_too_long_stops_the_run(
    chat: ChatHttp, tmp_path: Path, reply: bytes
) -> None:
    # Patience of no time at all: the second failure is too late already.
    script = [completion(), reply, reply]
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=9, patience=0.0) as here:
        await answered_once(here, server)
        with pytest.raises(EndpointError, match="has brought no answer for 0 minutes"):
            await here.client.ask(question(endpoint=server.url))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "value",
    [
        "9" * 20,
        "9" * 300,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "1e20",
        "-1",
        "nan",
        "inf",
        "99999999999d",
        "a\x1b[2Jb\u202e",
    ],
)
async def test_whatever_a_server_asks_to_wait_ends_with_patience_and_is_named(
    chat: ChatHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, value: str
) -> None:
    monkeypatch.setattr(lanes, "FIRST_PAUSE", 0.01)
    reply = http(status, "slow down", f"Retry-After: {value}")
    script = [completion(), reply, reply]
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=9, patience=0.0) as here:
        await answered_once(here, server)
        with pytest.raises(EndpointError, match=r"\(Retry-After: ") as caught:
            await here.client.ask(question(endpoint=server.url))
    message = str(caught.value)
    assert f"(Retry-After: {printable_line(value, 60)})" in message
    assert message.isprintable()


@pytest.mark.parametrize("name", ["x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset"])
@pytest.mark.parametrize(
    "value", ["9" * 20, "1e20", "9999-12-31T23:59:59Z", "99999999999d", "-5s", "nan", "7 fortnights"]
)
async def test_no_time_of_a_reset_holds_a_run_back_for_ever(
    chat: ChatHttp, tmp_path: Path, name: str, value: str
) -> None:
    left = name.replace("reset", "remaining")
    limited = http(200, completion().partition(b"\r\n\r\n")[2], f"{left}: 0", f"{name}: {value}")
    async with Scripted([limited, completion()]) as server, shop(chat, tmp_path) as here:
        await answered_once(here, server)
        assert (await here.client.ask(question("2", server.url))).content == "an answer"


@pytest.mark.parametrize("max_retries", [3, -1])
async def test_a_server_that_only_answers_without_an_answer_stops_the_run_after_ten_in_a_row(
    chat: ChatHttp, tmp_path: Path, max_retries: int
) -> None:
    odd = http(200, '{"id": "x-1", "choices": []}')
    script = [completion(), *[odd] * 9, completion(), *[odd] * MOST_UNUSABLE]
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=max_retries) as here:
        await here.client.ask(question("first", server.url))
        ended = []
        for number in range(8):
            try:
                ended.append((await here.client.ask(question(f"{number}", server.url))).content)
            except (CallError, EndpointError) as error:
                ended.append(type(error).__name__)
        last = "EndpointError"
        assert ended[-1] == last
        assert ended.count("an answer") == 1
        assert here.stop.requested
        with pytest.raises(EndpointError, match=r'10 requests in a row with status 200 .*"id": "x-1"'):
            here.stop.check()


async def test_a_call_that_waits_for_its_own_retry_after_is_seen(chat: ChatHttp, tmp_path: Path) -> None:
    script = [http(429, "no", "Retry-After: 90")]
    async with Scripted(script) as server, shop(chat, tmp_path, patience=600.0) as here:
        call = asyncio.create_task(here.client.ask(question(endpoint=server.url)))
        await until(lambda: here.progress.waits)
        ((end, asked),) = here.progress.waits.values()
        assert asked
        assert 60 < end - time.monotonic() < 91
        here.stop.request(RunInterrupted(signal.SIGTERM))
        with pytest.raises(RunInterrupted):
            await call
        assert here.progress.waits == {}


async def test_retries_without_an_end_go_on(chat: ChatHttp, tmp_path: Path) -> None:
    # One fewer than make the breaker pause.
    async with (
        Scripted([*[http(500, "no")] * 9, completion("at last")]) as server,
        shop(chat, tmp_path, max_retries=-1) as here,
    ):
        assert (await here.client.ask(question(endpoint=server.url))).content == "at last"
        assert here.counts() == (1, 0, 9, 0)


@pytest.mark.parametrize("max_retries", [0, 1])
async def test_refusals_for_being_too_fast_do_not_use_up_retries(
    chat: ChatHttp, tmp_path: Path, max_retries: int
) -> None:
    slow_down, busy = http(429, "slow down", "Retry-After: 0"), http(503, "busy")
    script = [
        completion(),
        *[slow_down] * 20,
        *[busy, slow_down] * max_retries,
        slow_down,
        completion("at last"),
    ]
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=max_retries) as here:
        await answered_once(here, server)
        assert (await here.client.ask(question(endpoint=server.url))).content == "at last"


async def test_a_lost_connection_has_no_status(chat: ChatHttp, tmp_path: Path) -> None:
    # The first of them comes over the connection of the answer, which may have been closed before.
    script: list[bytes | Reply] = [completion(), Reply(b"", "close"), Reply(b"", "close")]
    async with Scripted(script) as server, shop(chat, tmp_path, max_retries=0) as here:
        await answered_once(here, server)
        with pytest.raises(CallError) as caught:
            await here.client.ask(question(endpoint=server.url))
    assert (caught.value.cause, caught.value.status) == ("connection", None)


async def test_who_joined_a_call_that_fails_hears_of_it_and_may_ask_anew(
    chat: ChatHttp, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    script: list[bytes | Reply] = [Reply(http(400, "no"), gate=gate), completion("now it works")]
    async with Scripted(script) as server, shop(chat, tmp_path) as here:
        asking = [asyncio.create_task(here.client.ask(question(endpoint=server.url))) for _ in range(3)]
        await server.arrived.wait()
        gate.set()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(error) for error in ended] == [RefusedError] * 3
        assert (await here.client.ask(question(endpoint=server.url))).content == "now it works"
        assert here.counts() == (1, 0, 1, 0)


def left_in(quota: Quota) -> int:
    """Take what could go at once; how much it was."""
    now, left = asyncio.get_running_loop().time(), 0
    while quota.wait(now) <= 0:
        quota.take(now)
        left += 1
    return left


async def test_every_attempt_passes_the_lane_and_nothing_else_does(chat: ChatHttp, tmp_path: Path) -> None:
    quota = Quota(10, 50)
    script = [http(500, "no"), http(500, "no"), completion()]
    async with Scripted(script) as server, shop(chat, tmp_path, quota=quota) as here:
        request = question(endpoint=server.url)
        for _ in range(5):
            await here.client.ask(request)
        assert left_in(quota) == 5 - 3


async def test_no_place_is_held_during_a_pause(chat: ChatHttp, tmp_path: Path) -> None:
    script = [http(503, "no", "Retry-After: 86400"), completion()]
    async with Scripted(script) as server, shop(chat, tmp_path, places=1) as here:
        asking = asyncio.create_task(here.client.ask(question(endpoint=server.url)))
        await until(lambda: here.progress.attempts_failed)
        assert (await here.client.ask(question("Another", server.url))).content == "an answer"
        asking.cancel()


async def test_a_stop_during_a_pause_ends_it_and_nothing_more_is_sent(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([http(503, "no", "Retry-After: 86400")]) as server, shop(chat, tmp_path) as here:
        asking = asyncio.create_task(here.client.ask(question(endpoint=server.url)))
        await until(lambda: here.progress.attempts_failed)
        await settle()
        assert not asking.done()
        here.stop.request(RunInterrupted(signal.SIGTERM))
        with pytest.raises(RunInterrupted) as caught:
            await asking
        assert caught.value.exit_code == 143
        assert here.counts() == (0, 0, 1, 0)


async def test_a_stop_while_waiting_for_a_turn_sends_nothing(chat: ChatHttp, tmp_path: Path) -> None:
    quota = Quota(1, 1)
    async with Scripted([]) as server, shop(chat, tmp_path, quota=quota) as here:
        left_in(quota)
        request = question(endpoint=server.url)
        asking = asyncio.create_task(here.client.ask(request, {request.key: None}))
        await settle()
        here.stop.request(RunInterrupted(signal.SIGINT))
        with pytest.raises(RunInterrupted):
            await asking
        assert here.counts() == (0, 0, 0, 0)


async def test_after_a_stop_nothing_is_sent_and_what_was_paid_for_is_still_given(
    chat: ChatHttp, tmp_path: Path
) -> None:
    async with Scripted([completion()]) as server, shop(chat, tmp_path) as here:
        brought = await here.client.ask(question(endpoint=server.url))
        here.stop.request(RunInterrupted(signal.SIGINT))
        assert await here.client.ask(question(endpoint=server.url)) == brought
        with pytest.raises(RunInterrupted):
            await here.client.ask(question("Another", server.url))


async def test_an_answer_that_arrives_after_a_stop_is_kept(chat: ChatHttp, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Scripted([Reply(completion(), gate=gate)]) as server, shop(chat, tmp_path) as here:
        asking = asyncio.create_task(here.client.ask(question(endpoint=server.url)))
        await server.arrived.wait()
        here.stop.request(RunInterrupted(signal.SIGINT))
        gate.set()
        assert (await asking).content == "an answer"
        assert len(rows_in(tmp_path)) == 1


async def test_after_the_ledger_broke_nothing_is_sent(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([]) as server, shop(chat, tmp_path) as here:
        request = question(endpoint=server.url)
        here.broken()
        for known in (None, {request.key: None}):
            with pytest.raises(LedgerError, match="no space left"):
                await here.client.ask(request, known)
        assert here.counts() == (0, 0, 0, 0)


async def test_an_answer_that_cannot_be_kept_is_the_last_one(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([completion()]) as server, shop(chat, tmp_path) as here:
        await sql(f"sqlite:///{tmp_path}/ledger.db", "DROP TABLE calls")
        for text in ("one", "two", "three"):
            request = question(text, server.url)
            with pytest.raises(LedgerError):
                await here.client.ask(request, {request.key: None})
        assert here.counts() == (1, 0, 0, 0)


async def test_who_waits_while_the_ledger_breaks_learns_of_it_at_once(chat: ChatHttp, tmp_path: Path) -> None:
    # One goes; the others wait for the next minute.
    async with Scripted([completion()]) as server, shop(chat, tmp_path, quota=Quota(1, 1)) as here:
        await sql(f"sqlite:///{tmp_path}/ledger.db", "DROP TABLE calls")
        requests = [question(str(number), server.url) for number in range(20)]
        async with asyncio.timeout(BOUND):
            asking = [here.client.ask(each, {each.key: None}) for each in requests]
            ended = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(error) for error in ended} == {LedgerError}
        assert here.counts() == (1, 0, 0, 0)


async def test_a_budget_that_is_reached_stops_within_the_calls_in_flight(
    chat: ChatHttp, tmp_path: Path
) -> None:
    async with (
        DemoServer(Behaviour(latency_ms=5)) as server,
        shop(chat, tmp_path, places=4, budget={"max_calls": 10}) as here,
    ):
        asking = [here.client.ask(question(str(number), server.base_url)) for number in range(40)]
        ended = await asyncio.gather(*asking, return_exceptions=True)
        bought = [each for each in ended if not isinstance(each, BaseException)]
        assert 10 <= len(bought) < 10 + 4
        assert {type(each) for each in ended if isinstance(each, BaseException)} == {BudgetError}
        assert server.stats.requests == len(bought) == len(rows_in(tmp_path))


async def test_a_form_that_is_refused_is_left_at_once_at_no_cost_of_a_retry(
    chat: ChatHttp, tmp_path: Path
) -> None:
    refused = http(400, '{"error": {"message": "response_format json_schema is not supported"}}')
    refused_too = http(400, '{"error": {"message": "response_format json_object is not supported"}}')
    script = [refused, refused_too, completion("[]"), completion("[]")]
    async with (
        Scripted(script) as server,
        shop(chat, tmp_path, max_retries=0, structured_output="auto") as here,
    ):
        for text in ("one list", "other list"):
            assert (await here.client.ask(question(text, server.url, schema="items"))).content == "[]"
        asked = [each.body.get("response_format", {}).get("type") for each in server.received]
        assert asked == ["json_schema", "json_object", None, None]


async def test_counters_add_up_whatever_happens(chat: ChatHttp, tmp_path: Path) -> None:
    behaviour = Behaviour(error=0.3, rate_limited=0.2, truncate=0.1, fail_matching="number 77.")
    async with DemoServer(behaviour) as server, shop(chat, tmp_path, max_retries=-1) as here:
        requests = [question(f"Tell of number {number}.", server.base_url) for number in range(100)]
        first = await asyncio.gather(*map(here.client.ask, requests), return_exceptions=True)
        brought = [each for each in first if not isinstance(each, BaseException)]
        refused = [each for each in first if isinstance(each, CallError)]
        assert (len(brought), len(refused)) == (99, 1)
        paid, reused, failed, in_flight = here.counts()
        assert (paid, reused, in_flight) == (99, 0, 0)
        assert failed > len(refused)
        assert server.stats.requests == paid + failed
        assert server.stats.duplicates == 0
        assert here.progress.prompt_tokens == sum(each.prompt_tokens or 0 for each in brought) > 0
        assert here.progress.completion_tokens == sum(each.completion_tokens or 0 for each in brought) > 0
        again = await asyncio.gather(*map(here.client.ask, requests), return_exceptions=True)
        assert [each for each in again if not isinstance(each, BaseException)] == brought
        assert here.counts() == (99, 99, failed + 1, 0)


async def test_nothing_is_in_flight_after_a_cancelled_call(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([Reply(b"", gate=asyncio.Event())]) as server, shop(chat, tmp_path) as here:
        asking = asyncio.create_task(here.client.ask(question(endpoint=server.url)))
        await server.arrived.wait()
        assert here.progress.in_flight == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert here.counts() == (0, 0, 0, 0)


async def test_what_was_recalled_is_not_asked_for_again(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([completion("bought now")]) as server, shop(chat, tmp_path) as here:
        kept, absent, unasked = (question(text, server.url) for text in ("kept", "absent", "unasked"))
        for request in (kept, unasked):
            await here.ledger.put(LedgerEntry(request, answer(f"kept: {request.messages[0][1]}"), "before"))
        known = await here.client.recall([kept, absent, kept])
        assert known == {kept.key: answer("kept: kept"), absent.key: None}
        assert await here.client.ask(kept, known) == answer("kept: kept")
        assert (await here.client.ask(absent, known)).content == "bought now"
        # What was not recalled is looked up.
        assert await here.client.ask(unasked, known) == answer("kept: unasked")
        assert here.counts() == (1, 2, 0, 0)


async def test_recalling_nothing_is_nothing(chat: ChatHttp, tmp_path: Path) -> None:
    async with shop(chat, tmp_path) as here:
        assert await here.client.recall([]) == {}


async def test_of_two_runs_that_want_the_same_at_once_one_pays_for_it(chat: ChatHttp, tmp_path: Path) -> None:
    script = [Reply(completion("one"), gate=(gate := asyncio.Event()))]
    async with Scripted(script) as server, shop(chat, tmp_path) as here, shop(chat, tmp_path) as there:
        for each in (here, there):
            await each.ledger.claims.open()
        request = question(endpoint=server.url)
        asking = [asyncio.create_task(each.client.ask(request)) for each in (here, there)]
        await until(lambda: len(server.received) == 1)
        gate.set()
        mine, yours = await asyncio.gather(*asking)
        assert mine == yours
        assert sorted((here.counts(), there.counts())) == [(0, 1, 0, 0), (1, 0, 0, 0)]
    assert len(rows_in(tmp_path)) == 1


async def test_who_waits_for_anothers_answer_stops_when_it_is_told_to(chat: ChatHttp, tmp_path: Path) -> None:
    script = [Reply(completion("one"), gate=(gate := asyncio.Event()))]
    async with Scripted(script) as server, shop(chat, tmp_path) as here, shop(chat, tmp_path) as there:
        for each in (here, there):
            await each.ledger.claims.open()
        request = question(endpoint=server.url)
        first = asyncio.create_task(here.client.ask(request))
        await until(lambda: len(server.received) == 1)
        waits = asyncio.create_task(there.client.ask(request))
        await until(lambda: request.key in there.ledger.claims._waited_for)
        there.stop.request(RunInterrupted(2))
        with pytest.raises(RunInterrupted):
            await waits
        gate.set()
        assert (await first).content == "one"


async def test_what_is_negotiated_is_not_in_the_key(chat: ChatHttp, tmp_path: Path) -> None:
    async with Scripted([completion()] * 2) as server:
        async with shop(chat, tmp_path, structured_output="auto") as here:
            await here.client.ask(question("prose", server.url))
            await here.client.ask(question("list", server.url, schema="items"))
        async with shop(chat, tmp_path) as here:
            # The list asked for with a schema is found without one.
            await here.client.ask(question("list", server.url, schema="items"))
        asked = ["response_format" in each.body for each in server.received]
    assert asked == [False, True]

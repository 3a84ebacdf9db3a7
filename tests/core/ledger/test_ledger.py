"""The ledger on a real database: what was put is there, for everybody, and whatever happens next."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import asdict, replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from tasks.core.exchange.request import Answer
from tasks.core.ledger.ledger import BATCH, Ledger
from tasks.core.ledger.schema import COMPRESS_FROM, LedgerEntry, pack, storable, unpack
from tasks.core.models import Failure, Phase, Purpose
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql

if TYPE_CHECKING:
    from pathlib import Path

texts = st.text(st.characters(exclude_categories=["Cs"]))
long_texts = st.tuples(texts, st.integers(1, 400)).map(lambda pair: pair[0] * pair[1])
tokens = st.none() | st.integers(0, 2**53 - 1)
answers = st.builds(
    Answer,
    content=texts | long_texts | st.just("\0🙂\u2028"),
    reasoning=texts,
    finish_reason=texts,
    prompt_tokens=tokens,
    completion_tokens=tokens,
    model=texts,
    started=st.floats(0, 1e11),
    finished=st.floats(0, 1e11),
)


def entry(text: str = "Why?", brought: Answer | None = None, session: str = "session_1") -> LedgerEntry:
    return LedgerEntry(question(text), brought or answer(f"Because of {text}"), session)


def keys_of(texts: list[str]) -> list[bytes]:
    return [question(text).key for text in texts]


@given(answers)
def test_an_answer_is_unpacked_as_it_was_packed(brought: Answer) -> None:
    packed = pack(brought)
    assert unpack(packed) == brought
    assert len(packed) <= max(COMPRESS_FROM, len(repr(asdict(brought)).encode()) * 2)


@given(st.text(), st.integers(0, 3))
def test_long_answers_are_compressed(text: str, times: int) -> None:
    brought = answer("a long story, told again and again " * 100 * times)
    packed = pack(brought)
    assert (packed[:1] != b"{") == (times > 0)
    assert len(packed) < COMPRESS_FROM
    assert unpack(packed) == brought
    assert storable(text).encode().count(0) == 0


@settings(max_examples=25)
@given(st.lists(answers, min_size=1, max_size=20))
def test_what_is_put_is_there_after_reopening(brought: list[Answer]) -> None:
    async def check(url: str) -> None:
        entries = [entry(str(number), each) for number, each in enumerate(brought)]
        async with await Ledger.open(url) as ledger:
            assert await asyncio.gather(*map(ledger.put, entries)) == brought
        async with await Ledger.open(url) as ledger:
            for each in entries:
                assert await ledger.get(each.request.key) == each.answer

    with TemporaryDirectory() as folder:
        asyncio.run(check(f"sqlite:///{folder}/ledger.db"))


async def test_an_answer_is_kept_with_what_users_query(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger.put(entry("a", answer("A", prompt_tokens=3, completion_tokens=5, finished=1.5), "here"))
        await ledger.put(entry("b", answer("B")))
    columns = "key, purpose, model, session, prompt_tokens, completion_tokens, finished"
    rows = await sql(url, f"SELECT {columns} FROM calls ORDER BY session")  # noqa: S608 - our own names
    assert [tuple(row) for row in rows] == [
        (question("a").key, "chosen", "demo-strong", "here", 3, 5, 1.5),
        (question("b").key, "chosen", "demo-strong", "session_1", None, None, 0.0),
    ]


async def test_the_first_answer_stays(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        assert await ledger.put(entry("a", answer("first"))) == answer("first")
        assert await ledger.put(entry("a", answer("second"))) == answer("first")
        assert await ledger.get(question("a").key) == answer("first")


async def test_of_two_alike_at_once_everybody_gets_the_one_that_is_kept(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        given_back = await asyncio.gather(*(ledger.put(entry("a", answer(str(n)))) for n in range(50)))
        kept = await ledger.get(question("a").key)
    assert kept is not None
    assert set(given_back) == {kept}


async def test_ledgers_on_one_database_agree(url: str) -> None:
    names = [str(number) for number in range(BATCH)]
    async with (
        await Ledger.open(url) as one,
        await Ledger.open(url) as two,
        await Ledger.open(url) as three,
    ):
        assert one.id == two.id == three.id

        async def put_all(ledger: Ledger, seed: int) -> dict[str, Answer]:
            # Each in its own order, so that each holds rows that the others wait for.
            order = random.Random(seed).sample(names, len(names))
            kept = await asyncio.gather(*(ledger.put(entry(name, answer(str(seed)))) for name in order))
            return dict(zip(order, kept, strict=True))

        first, *others = await asyncio.gather(put_all(one, 1), put_all(two, 2), put_all(three, 3))
        found = await three.get_many(keys_of(names))
    assert others == [first, first]
    assert found == {question(name).key: kept for name, kept in first.items()}


async def test_two_ledgers_that_write_all_the_time_agree(url: str) -> None:
    names = [str(number) for number in range(120)]

    async def one_by_one(ledger: Ledger, mine: str, order: list[str]) -> list[Answer]:
        return [await ledger.put(entry(name, answer(mine))) for name in order]

    async with await Ledger.open(url) as one, await Ledger.open(url) as other:
        forth, back = await asyncio.gather(
            one_by_one(one, "one", names), one_by_one(other, "other", names[::-1])
        )
    assert forth == back[::-1]
    assert set(forth) == {answer("one"), answer("other")}


async def test_what_waits_at_the_same_time_is_committed_together(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        counted: Counter[str] = Counter()
        event.listen(ledger._engine.sync_engine, "commit", lambda _: counted.update(["commits"]))
        await asyncio.gather(*(ledger.put(entry(str(number))) for number in range(BATCH)))
        assert 1 <= counted["commits"] <= 5
        await asyncio.gather(*(ledger.put(entry(f"more {number}")) for number in range(BATCH + 1)))
        assert counted["commits"] <= 10
        await ledger.put(entry("alone"))
    assert [tuple(row) for row in await sql(url, "SELECT count(*) FROM calls")] == [(2 * BATCH + 2,)]


async def test_many_keys_are_looked_up_at_once(url: str) -> None:
    names = [str(number) for number in range(3 * BATCH)]
    async with await Ledger.open(url) as ledger:
        await asyncio.gather(*(ledger.put(entry(name)) for name in names))
        wanted = [key for name in names for key in keys_of([name, f"absent {name}"])]
        found = await ledger.get_many([*wanted, *wanted[:10]])
        assert found == {entry(name).request.key: entry(name).answer for name in names}
        assert await ledger.get_many([]) == {}
        assert await ledger.get(question("absent").key) is None
        apart = await asyncio.gather(*(ledger.get(key) for key in keys_of(names)))
        assert apart == [entry(name).answer for name in names]


async def test_failures_are_listed_as_they_were(url: str) -> None:
    full = Failure(Phase.PAIRS, "job 17", Purpose.JUDGE, "http_500", "HTTP 500: no", 500, 4, "ab" * 32)
    found = [full, Failure(Phase.SUBTOPICS, "chunk 3", Purpose.SUBTOPICS, "timeout", "no answer"), full]
    async with await Ledger.open(url) as ledger:
        await ledger.add_failures("here", found)
        await ledger.add_failures("there", [])
    columns = "phase, item, purpose, cause, message, status, attempts, request"
    rows = await sql(url, f"SELECT {columns} FROM failures WHERE session = 'here' AND at > 0")  # noqa: S608 - our own names
    assert Counter(map(tuple, rows)) == Counter(tuple(asdict(item).values()) for item in found)


@settings(max_examples=25)
@given(st.text(), st.text())
def test_a_failure_may_quote_whatever_a_model_wrote(item: str, message: str) -> None:
    assert storable(storable(item)) == storable(item)
    listed = (storable(item), storable(message))
    assert "\0" not in "".join(listed)
    "".join(listed).encode()
    if "\0" not in item and not any("\ud800" <= char <= "\udfff" for char in item):
        assert listed[0] == item


async def test_a_failure_that_quotes_nul_breaks_nothing(url: str) -> None:
    odd = Failure(Phase.PROMPTS, "a\0subtopic", Purpose.PROMPTS, "no_list", "half a pair: \ud83d")
    async with await Ledger.open(url) as ledger:
        await ledger.add_failures("here", [odd])
        ledger.check()
    assert [tuple(row) for row in await sql(url, "SELECT item, message FROM failures")] == [
        ("a\N{REPLACEMENT CHARACTER}subtopic", "half a pair: ?")
    ]


async def test_a_list_remembers_how_long_it_once_was(url: str) -> None:
    one, other = keys_of(["one", "other"])
    async with await Ledger.open(url) as ledger:
        assert await ledger.reached(one) == []
        for target in (30, 10, 20, 10):
            await ledger.add_reached(one, target)
        await ledger.add_reached(other, 7)
    async with await Ledger.open(url) as ledger:
        assert await ledger.reached(one) == [10, 20, 30]
        assert await ledger.reached(other) == [7]


async def test_a_ledger_keeps_its_id_and_another_has_another(url: str, tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        async with await Ledger.open(url) as ledger:
            ids.append(ledger.id)
    async with await Ledger.open(f"sqlite:///{tmp_path}/another.db") as ledger:
        assert ledger.id != ids[0]
    assert ids[0] == ids[1] == str(uuid.UUID(ids[0]))


async def test_closing_finishes_what_waits(url: str) -> None:
    ledger = await Ledger.open(url)
    waiting = [asyncio.ensure_future(ledger.put(entry(str(number)))) for number in range(2 * BATCH)]
    await asyncio.sleep(0)
    await ledger.close()
    assert all(future.done() for future in waiting)
    assert [tuple(row) for row in await sql(url, "SELECT count(*) FROM calls")] == [(2 * BATCH,)]


async def test_an_answer_is_kept_although_who_paid_was_cancelled(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        paying = asyncio.ensure_future(ledger.put(entry("a")))
        await asyncio.sleep(0)
        paying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await paying
        # The one behind it in the queue is answered as if nothing had happened.
        assert await ledger.put(replace(entry("a"), answer=answer("another"))) == entry("a").answer


async def test_readers_that_were_cancelled_do_not_hold_up_the_others(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await ledger.put(entry("a"))
        reads: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(ledger.get(question("a").key)) for _ in range(10)
        ]
        await asyncio.sleep(0)
        for read in reads[::2]:
            read.cancel()
        assert await asyncio.gather(*reads[1::2]) == [entry("a").answer] * 5

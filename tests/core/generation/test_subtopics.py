"""Phase 1: how the list of subtopics grows, and that growing it further pays only for what is new."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import PhaseError
from tasks.core.generation.subtopics import BARREN_ROUNDS, find_subtopics
from tasks.core.models import Phase, Purpose
from tests.core.running import ChatServer, Reply, listed_failures, running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.core.running import Answer, Chat


async def found(folder: Path, server: ChatServer, number: int, **settings: Any) -> tuple[str, ...]:
    """What a run of its own finds."""
    options = {f"generation__{name}": value for name, value in settings.items()}
    async with running(folder, server.base_url, generation__num_subtopics=number, **options) as run:
        return await find_subtopics(run)


def asked_for(chat: Chat) -> tuple[int, str]:
    """How many subtopics a request asks for, and which ones it excludes."""
    count, _, exclude = chat.text.partition(" but ")
    return int(count), exclude


async def endless(chat: Chat) -> list[str]:
    """A model that always has new ones: `s<chunk>.<number>`."""
    return [f"s{chat.sample}.{number}" for number in range(asked_for(chat)[0])]


def scripted(answers: Mapping[int, Answer]) -> ChatServer:
    """A server that answers each chunk once by its number, and any other request fails the test."""
    left = dict(answers)

    async def script(chat: Chat) -> Answer:
        return left.pop(chat.sample, None)

    return ChatServer(script)


@pytest.mark.parametrize(
    ("number", "options", "asked"),
    [
        (7, {"subtopic_chunk_size": 3}, [3, 3, 1]),
        (6, {"subtopic_chunk_size": 3}, [3, 3]),
        (10, {"subtopic_chunk_size": 5, "over_generation_buffer": 0.15}, [5, 5, 2]),
        (40, {"subtopic_chunk_size": 0}, [40]),
        (1, {}, [1]),
    ],
)
async def test_chunks_are_asked_for_at_once_and_the_count_is_exact(
    tmp_path: Path, number: int, options: dict[str, Any], asked: list[int]
) -> None:
    async def script(chat: Chat) -> Answer:
        # Nothing is answered before all were asked.
        await server.until(lambda: len(server.asked) == len(asked))
        return await endless(chat)

    async with ChatServer(script) as server:
        subtopics = await found(tmp_path, server, number, **options)
        by_chunk = sorted(server.asked, key=lambda chat: chat.sample)
    assert [asked_for(chat)[0] for chat in by_chunk] == asked
    everything = [f"s{chunk}.{place}" for chunk, count in enumerate(asked) for place in range(count)]
    assert list(subtopics) == everything[:number]


async def test_no_more_chunks_are_in_flight_than_the_concurrency(tmp_path: Path) -> None:
    most = 0

    async def script(chat: Chat) -> Answer:
        nonlocal most
        most = max(most, run.progress.in_flight)
        await server.until(lambda: len(server.asked) >= 2)
        return await endless(chat)

    options: dict[str, Any] = {
        "generation__num_subtopics": 8,
        "generation__subtopic_chunk_size": 1,
        "generation__concurrency": 2,
    }
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        assert len(await find_subtopics(run)) == 8
    assert most == 2


async def test_duplicates_are_dropped_in_the_order_of_chunks_not_of_arrival(tmp_path: Path) -> None:
    answers: dict[int, list[str]] = {0: ["Harbours", "Tides"], 1: [" tides.", "HARBOURS", "Wrecks"]}

    async def script(chat: Chat) -> Answer:
        if chat.sample == 0:
            await server.until(lambda: server.answered == 1)
        return answers[chat.sample]

    async with ChatServer(script) as server:
        subtopics = await found(tmp_path, server, 3, subtopic_chunk_size=2)
    assert subtopics == ("Harbours", "Tides", "Wrecks")


async def test_a_shortage_is_asked_for_again_with_the_last_of_the_known(tmp_path: Path) -> None:
    script: dict[int, Answer] = {
        0: ["a", "b", "c"],
        1: ["A", "B", "C"],
        2: ["d", "C"],
        3: ["e", "D"],
        4: ["f"],
    }
    async with scripted(script) as server:
        subtopics = await found(tmp_path, server, 6, subtopic_chunk_size=3, max_exclusion_list_size=2)
        asked = {chat.sample: asked_for(chat) for chat in server.asked}
    assert subtopics == ("a", "b", "c", "d", "e", "f")
    assert asked == {0: (3, ""), 1: (3, ""), 2: (3, "b, c"), 3: (2, "c, d"), 4: (1, "d, e")}


async def test_without_an_exclusion_list_a_shortage_is_asked_for_all_the_same(tmp_path: Path) -> None:
    async with scripted({0: ["a"], 1: ["a"], 2: ["b"]}) as server:
        assert await found(tmp_path, server, 2, max_exclusion_list_size=0) == ("a", "b")
        assert [asked_for(chat)[1] for chat in server.asked] == ["", "", ""]


async def test_a_model_that_has_no_more_is_asked_a_bounded_number_of_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(_: Chat) -> Answer:
        return ["Tides", "Wrecks"]

    async with ChatServer(script) as server:
        assert await found(tmp_path, server, 5) == ("Tides", "Wrecks")
        assert len(server.asked) == 1 + BARREN_ROUNDS
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "the model has 2 subtopics of 5; going on with those"
        ]
        assert await found(tmp_path, server, 5) == ("Tides", "Wrecks")
        assert len(server.asked) == 1 + BARREN_ROUNDS


@pytest.mark.parametrize("garbage", ["I would rather talk about birds.", "", "[1, 2", "[]", "{}", "\0"])
async def test_a_chunk_answered_with_garbage_brings_none(tmp_path: Path, garbage: str) -> None:
    async with scripted({0: garbage, 1: ["a", "b"], 2: ["c", "d"]}) as server:
        assert await found(tmp_path, server, 4, subtopic_chunk_size=2) == ("a", "b", "c", "d")


async def test_a_list_in_the_reasoning_counts_and_a_refusal_does_not(tmp_path: Path) -> None:
    sorry = "I'm sorry, but I can't help with that."
    script: dict[int, Answer] = {
        0: Reply(reasoning='["a", "b"]'),
        1: [sorry],
        2: ["c", sorry],
        3: [sorry],
        4: Reply(finish_reason="length", reasoning='Perhaps ["x"]'),
        5: '[{"difficulty": "easy", "topic": "d"}]',
    }
    async with scripted(script) as server:
        assert await found(tmp_path, server, 4, subtopic_chunk_size=2) == ("a", "b", "c", "d")


async def test_no_subtopic_at_all_ends_the_phase(tmp_path: Path) -> None:
    async def script(_: Chat) -> Answer:
        return "There is nothing to be said about it."

    async with ChatServer(script) as server:
        with pytest.raises(PhaseError, match="no subtopic came"):
            await found(tmp_path, server, 3)
        assert len(server.asked) == BARREN_ROUNDS


async def test_a_failing_chunk_ends_the_phase_and_is_all_that_a_re_run_pays_for(tmp_path: Path) -> None:
    async def failing(chat: Chat) -> Answer:
        return Reply(status=500) if chat.sample == 1 else await endless(chat)

    async def mended(chat: Chat) -> Answer:
        return await endless(chat) if chat.sample == 1 else None

    options: dict[str, Any] = {"generation__num_subtopics": 6, "generation__subtopic_chunk_size": 2}
    async with ChatServer(failing) as server:
        async with running(tmp_path, server.base_url, **options) as run:
            with pytest.raises(PhaseError, match=r"1 of 3 subtopic requests failed: HTTP 500: scripted 500"):
                await find_subtopics(run)
            assert run.progress.failures == 1
            (failure,) = await listed_failures(run)
            assert (failure["phase"], failure["item"]) == (Phase.SUBTOPICS, "chunk 1")
            assert (failure["purpose"], failure["cause"]) == (Purpose.SUBTOPICS, "http_500")
            assert (failure["status"], failure["attempts"], failure["session"]) == (500, 3, "s")
            assert failure["request"] == run.questions.subtopics(2, "", 1).key.hex()
        server.script = mended
        async with running(tmp_path, server.base_url, **options) as run:
            assert await find_subtopics(run) == ("s0.0", "s0.1", "s1.0", "s1.1", "s2.0", "s2.1")
            assert (run.progress.paid.total(), run.progress.reused.total()) == (1, 2)


async def test_a_chunk_that_fails_in_a_later_round_is_named_by_its_own_number(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return {0: ["a", "b"], 1: ["A"]}.get(chat.sample, Reply(status=422))

    async with ChatServer(script) as server:
        options: dict[str, Any] = {"generation__num_subtopics": 3, "generation__subtopic_chunk_size": 2}
        async with running(tmp_path, server.base_url, **options) as run:
            with pytest.raises(PhaseError, match="HTTP 422"):
                await find_subtopics(run)
            assert [failure["item"] for failure in await listed_failures(run)] == ["chunk 2"]


async def test_a_list_that_is_grown_further_keeps_its_beginning_and_pays_only_for_what_is_new(
    tmp_path: Path,
) -> None:
    shorter: dict[int, Answer] = {0: ["a", "b"], 1: ["A", "c"], 2: ["d"]}  # one short, so a second round
    longer: dict[int, Answer] = {3: ["e", "f"], 4: ["g", "E"], 5: ["h"], 6: ["i"]}
    async with scripted(shorter | longer) as server:
        four = await found(tmp_path, server, 4, subtopic_chunk_size=2)
        assert (four, len(server.asked)) == (("a", "b", "c", "d"), 3)
        nine = await found(tmp_path, server, 9, subtopic_chunk_size=2)
        assert nine == ("a", "b", "c", "d", "e", "f", "g", "h", "i")
        # Every answer of the script was asked for once; from here on nothing is.
        assert len(server.asked) == 7
        for number in (4, 9, 6, 9, 1, 4):
            assert await found(tmp_path, server, number, subtopic_chunk_size=2) == nine[:number]


async def test_a_shorter_list_is_cut_from_the_longer_one(tmp_path: Path) -> None:
    async with scripted({0: ["a", "b", "c"]}) as server:
        assert await found(tmp_path, server, 3) == ("a", "b", "c")
        for number in (2, 3, 1, 3, 2):
            assert await found(tmp_path, server, number) == ("a", "b", "c")[:number]


@settings(max_examples=6)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.15, 1.0]),
    st.integers(0, 5),
)
def test_whatever_lengths_are_asked_for_in_whatever_order_one_list_is_paid_for_once(
    lengths: list[int], chunk: int, buffer: float, exclusion: int
) -> None:
    async def repeating(chat: Chat) -> list[str]:
        # Every third chunk says what the one before it said.
        said = chat.sample - 1 if chat.sample % 3 == 2 else chat.sample
        return [f"s{said}.{number}" for number in range(asked_for(chat)[0])]

    async def lists() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with ChatServer(repeating) as server:
                options = {
                    "subtopic_chunk_size": chunk,
                    "over_generation_buffer": buffer,
                    "max_exclusion_list_size": exclusion,
                }
                seen: tuple[str, ...] = ()
                for length in lengths * 2:
                    paid = len(server.asked)
                    subtopics = await found(Path(folder), server, length, **options)
                    assert len(subtopics) == length
                    if length > len(seen):
                        assert subtopics[: len(seen)] == seen
                        seen = subtopics
                    else:
                        assert subtopics == seen[:length]
                        assert len(server.asked) == paid

    asyncio.run(lists())

"""A preview: a few pairs, and nothing of them is paid for again by the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import PhaseError
from tasks.core.forecast.estimate import preview
from tasks.core.models import Purpose
from tests.core.forecast.test_survey import generate, surveyed, writing
from tests.core.running import ChatServer, Reply, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.running import Answer, Chat

S, P, C, R, J, *_ = Purpose
COUNTS: dict[str, Any] = {"generation__num_subtopics": 4, "generation__num_prompts_per_subtopic": 3}


async def test_the_whole_run_reuses_every_call_of_a_preview(tmp_path: Path) -> None:
    async with ChatServer(writing) as server:
        async with running(tmp_path, server.base_url, **COUNTS) as run:
            made = await preview(run, 5)
        assert {purpose: server.count(purpose) for purpose in (S, P, C, R)} == {S: 1, P: 4, C: 5, R: 5}
        found = await surveyed(tmp_path, server, **COUNTS)
        assert found.reused.total() == len(server.asked) == 15
        jobs = await generate(tmp_path, server.base_url, **COUNTS)
        assert len(server.asked) == 1 + 4 + 2 * 12
        assert len(server.asked) - 15 == found.to_pay.total()
    # One of each subtopic, then a second of the first.
    assert [job.id for job in made.jobs] == [0, 1, 3, 6, 9]
    assert set(made.jobs) <= set(jobs)
    assert set(made.pairs) == {job.id for job in made.jobs}
    assert made.failures == ()


@pytest.mark.parametrize(
    ("number", "ids", "prompts"), [(1, [0], 1), (2, [0, 3], 2), (99, list(range(12)), 4)]
)
async def test_no_more_prompts_are_asked_for_than_there_are_pairs(
    tmp_path: Path, number: int, ids: list[int], prompts: int
) -> None:
    async with ChatServer(writing) as server:
        async with running(tmp_path, server.base_url, **COUNTS) as run:
            made = await preview(run, number)
        assert server.count(P) == prompts
    assert [job.id for job in made.jobs] == ids


async def test_duplicates_do_not_make_it_ask_what_the_run_would_not(tmp_path: Path) -> None:
    async def repeating(chat: Chat) -> Answer:
        if chat.purpose is Purpose.PROMPTS and not chat.round:
            return ["The same everywhere", f"Of {chat.subject} alone"]
        return await writing(chat)

    counts = COUNTS | {"generation__num_prompts_per_subtopic": 2}
    async with ChatServer(repeating) as server:
        async with running(tmp_path, server.base_url, **counts) as run:
            made = await preview(run, 4)
        asked = len(server.asked)
        found = await surveyed(tmp_path, server, **counts)
        await generate(tmp_path, server.base_url, **counts)
        assert found.reused.total() == asked
        assert len({chat.body["messages"][0]["content"] for chat in server.asked}) == len(server.asked)
    assert [job.prompt for job in made.jobs][:2] == [
        "The same everywhere",
        f"Of {made.jobs[1].sub_topic} alone",
    ]


async def test_pairs_that_fail_or_are_kept_out_are_told_apart(tmp_path: Path) -> None:
    async def mixed(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHOSEN and chat.subject.startswith("Prompt 1"):
            return Reply(status=400)
        return await writing(chat)

    strict: dict[str, Any] = {"judge_filtering__enabled": True, "judge_filtering__min_chosen_score": 5.0}
    async with ChatServer(mixed) as server, running(tmp_path, server.base_url, **strict) as run:
        made = await preview(run, 3)
    assert [job.id for job in made.jobs] == [0, 1, 2]
    assert made.pairs == {0: None, 2: None}
    assert [failure.item for failure in made.failures] == ["job 1"]


async def test_without_prompts_there_is_no_preview(tmp_path: Path) -> None:
    async def silent(chat: Chat) -> Answer:
        return "Nothing." if chat.purpose is Purpose.PROMPTS else await writing(chat)

    async with ChatServer(silent) as server, running(tmp_path, server.base_url, **COUNTS) as run:
        with pytest.raises(PhaseError, match="only 0 of 2 subtopics"):
            await preview(run, 2)

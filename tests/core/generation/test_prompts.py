"""Phase 2: the prompts of each subtopic, whatever comes back and in whatever order."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import PhaseError
from tasks.core.generation.pairs import PairsOutcome
from tasks.core.generation.prompts import (
    PairQuota,
    Subtopic,
    SubtopicPrompts,
    complete_prompts,
    jobs_of,
    write_prompts,
)
from tasks.core.models import Failure, Job, Phase, Purpose
from tests.core.running import NOBODY, ChatServer, Reply, listed_failures, running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.core.generation.run import Run
    from tests.core.running import Answer, Chat

NO_LIST = "What a pity that it rains."


def subtopics(names: str) -> list[Subtopic]:
    return [Subtopic(index, name) for index, name in enumerate(names)]


def scripted(answers: Mapping[tuple[str, int, int], Answer]) -> ChatServer:
    """A server that answers each subtopic, round and try once; any other request fails the test."""
    left = dict(answers)

    async def script(chat: Chat) -> Answer:
        return left.pop((chat.subject, chat.round, chat.sample), None)

    return ChatServer(script)


async def completed(run: Run, names: str) -> dict[str, tuple[str, ...]]:
    """The prompts of each subtopic after both steps."""
    found = (await complete_prompts(run, await write_prompts(run, subtopics(names)))).found
    assert [entry.subtopic for entry in found] == subtopics(names)
    return {entry.subtopic.name: entry.prompts for entry in found}


async def test_each_subtopic_is_asked_once_and_its_answer_cut_to_the_count(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        await server.until(lambda: len(server.asked) == 3)  # all at once
        return [f"{chat.subject}{number}" for number in range(7)]

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__num_prompts_per_subtopic=4) as run,
    ):
        found = await write_prompts(run, subtopics("xyz"))
        assert [entry.prompts for entry in found] == [
            ("x0", "x1", "x2", "x3"),
            ("y0", "y1", "y2", "y3"),
            ("z0", "z1", "z2", "z3"),
        ]
        assert {chat.text for chat in server.asked} == {"4 of x", "4 of y", "4 of z"}
        assert (await complete_prompts(run, found)).found == found


async def test_no_more_subtopics_are_asked_at_once_than_the_concurrency(tmp_path: Path) -> None:
    most = 0

    async def script(chat: Chat) -> Answer:
        nonlocal most
        most = max(most, run.progress.in_flight)
        await server.until(lambda: len(server.asked) >= 2)
        return [f"{chat.subject}{number}" for number in range(2)]

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__concurrency=2) as run,
    ):
        assert len(await completed(run, "uvwxyz")) == 6
    assert most == 2


async def test_duplicates_of_its_own_do_not_count(tmp_path: Path) -> None:
    script = {("x", 0, 0): ["One?", "ONE", " two", "one.", "Two", "three"]}
    async with scripted(script) as server, running(tmp_path, server.base_url) as run:
        (entry,) = await write_prompts(run, subtopics("x"))
        assert entry == SubtopicPrompts(Subtopic(0, "x"), ("One?", "two"))


async def test_an_answer_without_a_list_is_asked_for_again(tmp_path: Path) -> None:
    script: dict[tuple[str, int, int], Answer] = {
        ("x", 0, 0): NO_LIST,
        ("x", 0, 1): "",
        ("x", 0, 2): ["a", "b"],
    }
    async with scripted(script) as server:
        async with running(tmp_path, server.base_url) as run:
            assert await completed(run, "x") == {"x": ("a", "b")}
            assert run.progress.paid == {"prompts": 3}
        async with running(tmp_path, server.base_url) as run:
            assert await completed(run, "x") == {"x": ("a", "b")}
            assert (run.progress.paid, run.progress.reused) == ({}, {"prompts": 3})


async def test_a_list_in_the_reasoning_and_a_list_of_objects_are_read(tmp_path: Path) -> None:
    question = (
        '[{"difficulty": "easy", "question": "Why do keepers count ships?"}, {"level": 2, "task": "b"}]'
    )
    script: dict[tuple[str, int, int], Answer] = {
        ("x", 0, 0): Reply(reasoning='["first", "second"]'),
        ("y", 0, 0): question,
    }
    async with scripted(script) as server, running(tmp_path, server.base_url) as run:
        assert await completed(run, "xy") == {
            "x": ("first", "second"),
            "y": ("Why do keepers count ships?", "b"),
        }
        assert run.progress.paid == {"prompts": 2}


async def test_a_refusal_is_asked_for_again_and_never_a_prompt(tmp_path: Path) -> None:
    sorry = "I'm sorry, but I can't help with that."
    script: dict[tuple[str, int, int], Answer] = {
        ("x", 0, 0): [sorry],
        ("x", 0, 1): sorry,
        ("x", 0, 2): ["a", sorry, "b"],
        **{("y", 0, sample): [sorry] for sample in range(3)},
    }
    async with scripted(script) as server, running(tmp_path, server.base_url) as run:
        fine, failed = await write_prompts(run, subtopics("xy"))
        assert fine.prompts == ("a", "b")
        assert failed.failure is not None
        assert (failed.failure.cause, failed.failure.attempts) == ("refused", 3)


async def test_a_subtopic_without_a_list_in_any_try_is_a_failure(tmp_path: Path) -> None:
    script = {("x", 0, sample): NO_LIST for sample in range(3)} | {("y", 0, 0): ["a", "b"]}
    async with scripted(script) as server, running(tmp_path, server.base_url) as run:
        failed, fine = await write_prompts(run, subtopics("xy"))
        assert fine.prompts == ("a", "b")
        assert failed == SubtopicPrompts(
            Subtopic(0, "x"),
            (),
            Failure(
                phase=Phase.PROMPTS,
                item="x",
                purpose=Purpose.PROMPTS,
                cause="no_list",
                message="the answer holds no list of prompts",
                attempts=3,
                request=run.questions.prompts("x", 2, (), 2).key.hex(),
            ),
        )
        # Its tries are used up; only what came is completed.
        assert [entry.prompts for entry in (await complete_prompts(run, [failed, fine])).found] == [
            (),
            ("a", "b"),
        ]


async def test_a_subtopic_whose_calls_fail_is_tried_again_with_the_same_request(tmp_path: Path) -> None:
    down = 7  # three attempts of the first time, three of the second, one of the third

    async def script(chat: Chat) -> Answer:
        return Reply(status=503) if 1 < server.count(chat.purpose) <= 1 + down else ["a", "b"]

    async with ChatServer(script) as server, running(tmp_path, server.base_url) as run:
        # A model that never answered anything would stop the run.
        await write_prompts(run, subtopics("y"))
        assert await completed(run, "x") == {"x": ("a", "b")}
        assert {(chat.round, chat.sample) for chat in server.asked} == {(0, 0)}
        assert (len(server.asked), run.progress.failures) == (1 + down + 1, 0)


async def test_a_subtopic_whose_calls_fail_every_time_is_a_failure(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return Reply(status=503) if chat.subject == "x" else ["a", "b"]

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__prompt_retry_attempts=1) as run,
    ):
        await write_prompts(run, subtopics("y"))
        (entry,) = await write_prompts(run, subtopics("x"))
        assert entry.failure is not None
        assert (entry.failure.cause, entry.failure.status, entry.failure.attempts) == ("http_503", 503, 3)
        assert len(server.asked) == 1 + 2 * 3


async def test_what_is_double_over_the_run_is_asked_for_again_and_the_lower_subtopic_wins(
    tmp_path: Path,
) -> None:
    script = {
        ("x", 0, 0): ["a", "b"],
        ("y", 0, 0): ["B.", "c"],  # one double
        ("z", 0, 0): ["d"],  # one short
        ("y", 1, 0): ["e", "f"],  # one replaced; "f" is more than is asked for
        ("z", 1, 0): ["f", "g"],  # free to take "f"
    }
    async with scripted(script) as server:
        async with running(tmp_path, server.base_url) as run:
            assert await completed(run, "xyz") == {"x": ("a", "b"), "y": ("c", "e"), "z": ("d", "f")}
            again = {chat.subject: chat.text for chat in server.asked if chat.round == 1}
            told = "2 of {}\n\nDo not repeat any of these:\n{}"
            assert again == {"y": told.format("y", "- c\n- B.\n- c"), "z": told.format("z", "- d\n- d")}
        async with running(tmp_path, server.base_url) as run:
            assert await completed(run, "xyz") == {"x": ("a", "b"), "y": ("c", "e"), "z": ("d", "f")}
            assert run.progress.paid.total() == 0


async def test_the_exclusion_list_is_bounded(tmp_path: Path) -> None:
    script = {("x", 0, 0): ["a", "b", "c"], ("x", 1, 0): ["d"]}
    options: dict[str, Any] = {"generation__num_prompts_per_subtopic": 4}
    async with scripted(script) as server:
        async with running(
            tmp_path, server.base_url, generation__max_exclusion_list_size=2, **options
        ) as run:
            assert await completed(run, "x") == {"x": ("a", "b", "c", "d")}
        assert server.asked[1].text.splitlines()[-2:] == ["- b", "- c"]
    async with scripted(script) as server:
        async with running(
            tmp_path, server.base_url, generation__max_exclusion_list_size=0, **options
        ) as run:
            assert await completed(run, "x") == {"x": ("a", "b", "c", "d")}
        assert [chat.text for chat in server.asked] == ["4 of x", "4 of x"]


async def test_a_shortage_that_stays_is_asked_again_as_often_as_configured(tmp_path: Path) -> None:
    async def script(_: Chat) -> Answer:
        return ["a"]

    async with ChatServer(script) as server:
        for attempts in (0, 3):
            async with running(tmp_path, server.base_url, generation__prompt_retry_attempts=attempts) as run:
                assert await completed(run, "x") == {"x": ("a",)}
                assert len(server.asked) == 1 + attempts
                assert await listed_failures(run) == []
    # Each round is a try of its own, although from the second on it asks the same.
    assert [(chat.round, chat.sample) for chat in server.asked] == [(0, 0), (1, 0), (2, 0), (3, 0)]


async def test_a_failed_request_for_what_is_short_is_asked_again_as_it_was_and_listed_when_it_stays_so(
    tmp_path: Path,
) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.round == 0:
            return [f"{chat.subject}1"]
        return ["y2"] if chat.subject == "y" and server.count(Purpose.PROMPTS) > limit else Reply(status=422)

    limit = 4
    async with ChatServer(script) as server, running(tmp_path, server.base_url) as run:
        assert await completed(run, "xy") == {"x": ("x1",), "y": ("y1", "y2")}
        assert [(chat.subject, chat.round) for chat in server.asked].count(("y", 1)) == 2
        (failure,) = await listed_failures(run)
        assert (failure["item"], failure["cause"], failure["status"]) == ("x", "question_refused", 422)
        assert run.progress.failures == 1


async def test_who_wins_a_common_prompt_does_not_depend_on_whose_request_failed_at_first(
    tmp_path: Path,
) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.round == 0:
            return [f"{chat.subject}1"]
        failed = chat.subject == "x" and [item.subject for item in server.asked].count("x") == 2
        return Reply(status=422) if failed else ["common"]

    async with ChatServer(script) as server, running(tmp_path, server.base_url) as run:
        assert (await completed(run, "xy"))["x"] == ("x1", "common")
        assert [chat.subject for chat in server.asked].count("x") == 3


async def test_what_a_failed_request_was_to_bring_is_not_asked_of_another(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.round and chat.subject == "x":
            return Reply(status=500)
        return [f"{chat.subject}{chat.round}{number}" for number in range(2)]

    settings: dict[str, Any] = {"generation__max_prompts_per_pair": 3.0, "models__main__max_retries": 0}
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **settings) as run:
        candidates = await complete_prompts(run, await write_prompts(run, subtopics("xy")))
        jobs = jobs_of(run, candidates.found)
        quota = PairQuota(run.config, candidates)
        # y yields no pair, and has no more prompts to bring than x is asked for beside its own share.
        quota.note(jobs, [PairsOutcome(2, {2: "refused", 3: "refused"}, ())])
        assert quota.needs() == [0, 2]
        assert await candidates.more([2, 0]) == []
        assert (candidates.failed, candidates.owed(0)) == ({0}, 2)
        # A resume asks x for them; y is not to bring them as well.
        assert quota.needs() == [0, 0]


async def test_another_number_of_retries_asks_nothing_anew(tmp_path: Path) -> None:
    script: dict[tuple[str, int, int], Answer] = {
        ("x", 0, 0): ["a"],
        ("x", 1, 0): NO_LIST,
        ("x", 1, 1): ["a"],
        ("x", 2, 0): ["b"],
    }
    async with scripted(script) as server:
        for retries in (1, 5):
            async with running(tmp_path, server.base_url, models__main__max_retries=retries) as run:
                assert await completed(run, "x") == {"x": ("a", "b")}
        assert run.progress.paid.total() == 0


async def test_ids_do_not_move_when_a_subtopic_fails_and_comes_back(tmp_path: Path) -> None:
    working = False

    async def script(chat: Chat) -> Answer:
        if chat.subject == "y" and not working:
            return Reply(status=400)
        return [f"{chat.subject}{number}" for number in range(2)]

    async with ChatServer(script) as server:
        async with running(tmp_path, server.base_url, generation__min_success_rate=0.5) as run:
            found = (await complete_prompts(run, await write_prompts(run, subtopics("xyz")))).found
            with_gap = jobs_of(run, found)
        working = True
        async with running(tmp_path, server.base_url) as run:
            found = (await complete_prompts(run, await write_prompts(run, subtopics("xyz")))).found
            whole = jobs_of(run, found)
            assert run.progress.paid.total() == 1
    assert with_gap == [
        Job(0, "The sea", "x", "x0"),
        Job(1, "The sea", "x", "x1"),
        Job(4, "The sea", "z", "z0"),
        Job(5, "The sea", "z", "z1"),
    ]
    assert [job for job in whole if job.id not in {2, 3}] == with_gap
    assert [job.prompt for job in whole] == ["x0", "x1", "y0", "y1", "z0", "z1"]
    assert [job.id for job in whole] == list(range(6))


@pytest.mark.parametrize(
    ("rate", "prompts", "message"),
    [
        (0.5, ["a", ""], None),
        (0.0, ["a", ""], None),
        (1.0, ["a", "b"], None),
        (0.51, ["a", ""], r"only 1 of 2 subtopics have prompts: 50%.* asks for 51%"),
        (1.0, ["a", ""], r"only 1 of 2 subtopics"),
        (0.0, ["", ""], r"only 0 of 2 subtopics"),
    ],
)
async def test_too_few_subtopics_with_prompts_end_the_phase(
    tmp_path: Path, rate: float, prompts: Sequence[str], message: str | None
) -> None:
    failure = Failure(Phase.PROMPTS, "x", Purpose.PROMPTS, "timeout", "no answer in time")
    found = [
        SubtopicPrompts(Subtopic(index, "x"), tuple(text), None if text else failure)
        for index, text in enumerate(prompts)
    ]
    async with running(tmp_path, NOBODY, generation__min_success_rate=rate) as run:
        if message is None:
            assert [job.prompt for job in jobs_of(run, found)] == [text for text in prompts if text]
        else:
            with pytest.raises(PhaseError, match=message + ".*no answer in time") as raised:
                jobs_of(run, found)
            assert "\n" not in str(raised.value)


@settings(max_examples=8)
@given(st.permutations(range(5)), st.permutations(range(5)), st.integers(1, 5))
def test_the_order_in_which_answers_arrive_decides_nothing(
    first: Sequence[int], later: Sequence[int], concurrency: int
) -> None:
    # Much is double and short, so that several rounds are needed.
    words = ["a b c", "B d", "c d e", "f", "a e g"]
    more = ["a h i", "h j k", "i k", "f l m", "b o j p"]

    async def script(chat: Chat) -> Answer:
        place = "vwxyz".index(chat.subject)
        await asyncio.sleep((later if chat.round else first)[place] / 1000)
        return f"{(more if chat.round else words)[place]} {chat.round}".split()

    async def prompts() -> tuple[dict[str, tuple[str, ...]], int]:
        options: dict[str, Any] = {
            "generation__num_prompts_per_subtopic": 3,
            "generation__concurrency": concurrency,
        }
        with tempfile.TemporaryDirectory() as folder:
            async with ChatServer(script) as server:
                async with running(Path(folder), server.base_url, **options) as run:
                    found = await completed(run, "vwxyz")
                async with running(Path(folder), server.base_url, **options) as run:
                    assert await completed(run, "vwxyz") == found
                    return found, run.progress.paid.total()

    assert asyncio.run(prompts()) == (
        {
            "v": ("a", "b", "c"),
            "w": ("d", "0", "h"),
            "x": ("e", "i", "k"),
            "y": ("f", "l", "m"),
            "z": ("g", "o", "j"),
        },
        0,
    )

"""A run that brings nothing stops early, says why, and shows what was answered."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import LossError
from tasks.core.generation.losses import BEGUN, FIRST, quoted, what_helps
from tasks.core.generation.pairs import FILTERED, PairsOutcome, make_pairs
from tasks.core.lint.linter import PREFIX
from tasks.core.models import UNUSABLE, Purpose
from tests.core.running import ChatServer, Reply, listed_failures, running, some_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.running import Answer, Chat, Script

REFUSAL = "I'm sorry, but I can't help with that. As an AI, I keep away from the sea and all that is in it."
PROSE = "I find the first one \x1b[2J rather\nmore moving than the other."
JUDGED: dict[str, Any] = {"generation__dataset_mode": "mo-dpo"}
TRIES = {f"models__{role}__max_retries": 0 for role in ("main", "rejected", "judge")}
HALVES = (Purpose.CHOSEN, Purpose.REJECTED)


async def writing(chat: Chat) -> Answer:
    """Models with which nothing is wrong."""
    if chat.purpose is Purpose.JUDGE:
        return json.dumps({"style": 4, "depth": 4})
    return f"{chat.purpose} of {chat.subject}: the keeper lit the lamp, and all the ships came home."


def answering(purpose: Purpose, reply: Answer) -> Script:
    """The same, where every call of one kind brings this."""

    async def script(chat: Chat) -> Answer:
        return reply if chat.purpose is purpose else await writing(chat)

    return script


async def worked(
    folder: Path, server: ChatServer, jobs: int, **settings: Any
) -> tuple[PairsOutcome | LossError, list[Chat]]:
    """What became of some jobs, and the calls that were made for them."""
    asked = len(server.asked)
    async with running(folder, server.base_url, **settings) as run:
        try:
            outcome: PairsOutcome | LossError = await make_pairs(
                run, some_jobs(jobs), lambda _job, _pair: None
            )
        except LossError as error:
            outcome = error
    return outcome, server.asked[asked:]


@pytest.mark.parametrize("concurrency", [1, 4, 30])
async def test_a_judge_that_cannot_be_read_costs_few_pairs_and_is_shown(
    tmp_path: Path, concurrency: int
) -> None:
    async with ChatServer(answering(Purpose.JUDGE, PROSE)) as server:
        error, calls = await worked(tmp_path, server, 300, generation__concurrency=concurrency, **JUDGED)
    assert isinstance(error, LossError)
    assert error.exit_code == 3
    told = str(error)
    assert told.startswith(
        "the run stops, for it brings nothing: 20 of the first 20 prompts yielded no usable pair: "
    )
    assert "20 bad_scores; for example job " in told
    assert 'the model answered: "I find the first one [2J rather more moving than the other."; what' in told
    assert told.endswith("to go on all the same: --set execution.stop_at_loss=1")
    assert told.isprintable()
    begun = max(BEGUN, FIRST + concurrency)
    for half in HALVES:
        assert sum(chat.purpose is half for chat in calls) <= begun
    assert sum(chat.purpose is Purpose.JUDGE for chat in calls) <= begun * 2 * 3


async def test_the_list_of_failures_has_what_stopped_the_run(tmp_path: Path) -> None:
    async with (
        ChatServer(answering(Purpose.JUDGE, PROSE)) as server,
        running(tmp_path, server.base_url, generation__concurrency=4, **JUDGED) as run,
    ):
        with pytest.raises(LossError):
            await make_pairs(run, some_jobs(60), lambda _job, _pair: None)
        listed = await listed_failures(run)
        assert FIRST <= len(listed) <= FIRST + 4
        assert {row["cause"] for row in listed} == {"bad_scores"}
        assert run.progress.causes == {"bad_scores": len(listed)}


async def test_a_half_that_always_fails_stops_the_run_whatever_the_causes(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.purpose is not Purpose.REJECTED:
            return await writing(chat)
        return Reply("", finish_reason="content_filter") if chat.subject[-1] in "02468" else Reply("")

    async with ChatServer(script) as server:
        error, calls = await worked(tmp_path, server, 200, generation__concurrency=4, **TRIES)
    assert "20 of the first 20 prompts yielded no usable pair by the rejected call: 10 " in str(error)
    assert "10 refused" in str(error)
    assert "10 empty" in str(error)
    assert sum(chat.purpose is Purpose.CHOSEN for chat in calls) <= FIRST + 4


@pytest.mark.parametrize(
    ("purpose", "reply", "settings", "words"),
    [
        (Purpose.CHOSEN, REFUSAL, {}, ["20 refused", "I'm sorry, but", "another wording"]),
        (Purpose.CHOSEN, "No.", {}, ["20 too_short", 'answered: "No."']),
        (Purpose.REJECTED, Reply("", finish_reason="length"), {}, ["token_exhaustion", "max_output_tokens"]),
        (
            Purpose.JUDGE,
            '{"style": 1, "depth": 1}',
            {"judge_filtering__enabled": True},
            ["20 filtered", "judge_filtering keeps it out, with chosen 1.00 and rejected 1.00"],
        ),
    ],
)
async def test_each_cause_that_is_final_counts(
    tmp_path: Path, purpose: Purpose, reply: Answer, settings: dict[str, Any], words: list[str]
) -> None:
    async with ChatServer(answering(purpose, reply)) as server:
        error, _ = await worked(tmp_path, server, 60, generation__concurrency=1, **TRIES, **settings)
    assert isinstance(error, LossError)
    assert all(word in str(error) for word in words), str(error)


@pytest.mark.parametrize(
    ("jobs", "spared", "settings"),
    [
        (FIRST - 1, 0, {}),  # too few to make anything of it
        (60, 3, {}),  # 17 of the first 20
        (60, 0, {"execution__stop_at_loss": 1.0}),
    ],
)
async def test_a_run_goes_on_where_some_prompts_bring_a_pair_or_it_is_to_go_on(
    tmp_path: Path, jobs: int, spared: int, settings: dict[str, Any]
) -> None:
    # One at a time, in the order of jobs: what comes later is past its share.
    async def script(chat: Chat) -> Answer:
        number = int(chat.subject[1:])
        lost = chat.purpose is Purpose.CHOSEN and number % 20 >= spared
        return REFUSAL if lost else await writing(chat)

    async with ChatServer(script) as server:
        outcome, _ = await worked(tmp_path, server, jobs, generation__concurrency=1, **TRIES, **settings)
    assert isinstance(outcome, PairsOutcome)
    assert len(outcome.failures) == jobs - spared * jobs // 20


async def test_failures_that_may_come_about_later_do_not_count(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        fails = chat.purpose is Purpose.REJECTED and int(chat.subject[1:]) % 2
        return Reply(status=500) if fails else await writing(chat)

    settings: dict[str, Any] = {"generation__concurrency": 1, "execution__stop_at_loss": 0.4} | TRIES
    async with ChatServer(script) as server:
        outcome, _ = await worked(tmp_path, server, 60, **settings)
    assert isinstance(outcome, PairsOutcome)
    assert (outcome.kept, len(outcome.failures)) == (30, 30)


async def test_what_the_ledger_answers_does_not_stop_a_resume(tmp_path: Path) -> None:
    """While the judge stays as it is, the next prompts stop it again; mended, it goes through."""
    settings: dict[str, Any] = {"generation__concurrency": 1} | JUDGED
    async with ChatServer(answering(Purpose.JUDGE, PROSE)) as server:
        error, _ = await worked(tmp_path, server, 60, **settings)
        assert isinstance(error, LossError)
        error, calls = await worked(tmp_path, server, 60, **settings)
        assert isinstance(error, LossError)
        assert sum(chat.purpose is Purpose.CHOSEN for chat in calls) >= FIRST - 2
        server.script = writing
        outcome, _ = await worked(tmp_path, server, 60, **settings)
    assert isinstance(outcome, PairsOutcome)
    assert len(outcome.failures) >= 2 * FIRST
    assert outcome.kept == 60 - len(outcome.failures)


async def test_generating_runs_ahead_once_the_judge_has_given_scores(tmp_path: Path) -> None:
    ahead = BEGUN + 10

    async def script(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE and " of p0:" not in chat.text:
            await server.until(lambda: server.count(Purpose.CHOSEN) >= ahead)
        return await writing(chat)

    settings: dict[str, Any] = {"generation__concurrency": 2} | JUDGED
    async with ChatServer(script) as server, asyncio.timeout(60):
        outcome, _ = await worked(tmp_path, server, 40, **settings)
    assert outcome == PairsOutcome(40, {}, ())


@pytest.mark.parametrize("cause", sorted(UNUSABLE | {FILTERED, f"{PREFIX}chatter"}))
def test_each_cause_has_something_that_helps(cause: str) -> None:
    assert what_helps(cause)


def test_what_a_model_answered_is_shown_on_one_line_and_cut() -> None:
    assert quoted("a\x1b[2J\n\u202eb") == '"a [2J b"'
    assert quoted("x" * 10**6, 10) == '"xxxxxxxxxx…"'
    assert quoted("x" * 10, 10) == '"xxxxxxxxxx"'

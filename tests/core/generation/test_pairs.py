"""Phase 3: chosen and rejected answers and their scores, whatever the models say."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.config.templates import DEFAULT_CRITERIA, JUDGE_RUBRIC
from tasks.core.errors import RunInterrupted
from tasks.core.generation.pairs import PairsOutcome
from tasks.core.models import Failure, Pair, Phase, Purpose, Score, Scores, Text
from tasks.core.traffic.stop import Stop
from tests.core.running import PATIENCE, ChatServer, Reply, listed_failures, running, settled, some_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tasks.core.generation.run import Run
    from tasks.core.models import Job
    from tests.core.running import Answer, Chat

PROSE = (Purpose.CHOSEN, Purpose.REJECTED)
REFUSAL = "I'm sorry, but I can't help with that. As an AI, I keep away from the sea and all that is in it."
FILTERING: dict[str, Any] = {"judge_filtering__enabled": True}


def story(purpose: Purpose, prompt: str, sample: int = 0) -> str:
    """What the models write when nothing is wrong: one line."""
    return f"{purpose} {sample} of {prompt}: the keeper lit the lamp, and all the ships came home."


def scores(**criteria: float) -> str:
    return json.dumps(criteria)


async def writing(chat: Chat) -> str:
    """Models with which nothing is wrong; the chosen answer is better."""
    if chat.purpose is Purpose.JUDGE:
        return scores(style=5, depth=4) if chat.subject.startswith("chosen") else scores(style=2, depth=1)
    return story(chat.purpose, chat.subject, chat.sample)


async def made(
    run: Run, jobs: list[Job], kept: dict[int, Pair | None] | None = None
) -> tuple[PairsOutcome, dict[int, Pair | None]]:
    """The outcome, and what was handed on, which is each job at most once."""
    taken: dict[int, Pair | None] = {} if kept is None else kept

    def keep(job: Job, pair: Pair | None) -> None:
        assert job.id not in taken
        taken[job.id] = pair

    outcomes = await settled(run, jobs, keep)
    place = {job.id: at for at, job in enumerate(jobs)}
    found = sorted(
        (failure for outcome in outcomes for failure in outcome.failures),
        key=lambda failure: place[int(failure.item.removeprefix("job "))],
    )
    lost = {number: cause for outcome in outcomes for number, cause in outcome.lost.items()}
    kept_at_all, still_open = (
        sum(getattr(outcome, name) for outcome in outcomes) for name in ("kept", "open")
    )
    return PairsOutcome(kept_at_all, lost, tuple(found), still_open), taken


def text_of(purpose: Purpose, prompt: str, sample: int = 0) -> Text:
    return Text(story(purpose, prompt, sample))


def scores_of(**criteria: float) -> Scores:
    return Scores({name: Score(score, "") for name, score in criteria.items()})


@pytest.mark.parametrize(
    ("mode", "options", "asked"),
    [
        ("sft", {}, {"chosen": 5}),
        ("dpo", {}, {"chosen": 5, "rejected": 5}),
        ("kto", {}, {"chosen": 5, "rejected": 5}),
        ("mo-dpo", {}, {"chosen": 5, "rejected": 5, "judge": 10}),
        ("sft", FILTERING, {"chosen": 5, "judge": 5}),
        ("kto", FILTERING, {"chosen": 5, "rejected": 5, "judge": 10}),
    ],
)
async def test_each_mode_asks_for_what_it_needs_and_a_re_run_for_nothing(
    tmp_path: Path, mode: str, options: dict[str, Any], asked: dict[str, int]
) -> None:
    jobs = some_jobs(5)
    pairs = {
        job.id: Pair(
            job,
            text_of(Purpose.CHOSEN, job.prompt),
            text_of(Purpose.REJECTED, job.prompt) if "rejected" in asked else None,
            scores_of(style=5, depth=4) if "judge" in asked else None,
            scores_of(style=2, depth=1) if {"judge", "rejected"} <= set(asked) else None,
        )
        for job in jobs
    }
    async with ChatServer(writing) as server:
        for counts in ({"paid": asked, "reused": {}}, {"paid": {}, "reused": asked}):
            async with running(tmp_path, server.base_url, generation__dataset_mode=mode, **options) as run:
                assert await made(run, jobs) == (PairsOutcome(5, {}, ()), pairs)
                assert {"paid": run.progress.paid, "reused": run.progress.reused} == counts
                assert run.progress.done == 5


async def test_the_models_are_asked_as_they_are_configured(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "models__main__temperature": 0.0,
        "models__rejected__top_k": 40,
        "models__rejected__min_p": 0.0,
        "models__judge__structure_temperature": 0.25,
        "prompt_templates__chosen_system_prompt": "Write about {{.SubTopic}}.",
    }
    async with (
        ChatServer(writing) as server,
        running(tmp_path, server.base_url, generation__dataset_mode="mo-dpo", **options) as run,
    ):
        await made(run, some_jobs(1))
        body = {chat.purpose: chat.body for chat in server.asked}
    assert body[Purpose.CHOSEN] == {
        "model": "strong",
        "messages": [
            {"role": "system", "content": "Write about Tides."},
            {"role": "user", "content": "chosen p0"},
        ],
        "temperature": 0.0,
        "max_tokens": 4096,
    }
    assert body[Purpose.REJECTED] == {
        "model": "weak",
        "messages": [{"role": "user", "content": "rejected p0"}],
        "temperature": 0.7,
        "max_tokens": 4096,
        "top_k": 40,
        "min_p": 0.0,
    }
    assert (body[Purpose.JUDGE]["model"], body[Purpose.JUDGE]["temperature"]) == ("critic", 0.25)


async def test_both_answers_of_a_job_are_asked_for_at_the_same_time(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        await server.until(lambda: len(server.asked) == 2)
        return await writing(chat)

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__concurrency=1) as run,
    ):
        outcome, _ = await made(run, some_jobs(1))
    assert outcome.kept == 1


async def test_no_more_jobs_are_in_flight_than_the_concurrency(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        await server.until(lambda: len(server.asked) >= 6)
        return await writing(chat)

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, generation__concurrency=3) as run,
    ):
        # Two blocks at once, as the flow works on them, share the slots.
        jobs = some_jobs(14)
        first, second = await asyncio.gather(made(run, jobs[:7]), made(run, jobs[7:]))
        assert first[0].kept + second[0].kept == 14
        assert server.most_prose == 6


@pytest.mark.parametrize(
    ("unusable", "cause"),
    [
        (Reply(REFUSAL), "refused"),
        (Reply("  "), "empty"),
        (Reply("No."), "too_short"),
        (Reply("The keeper lit the lamp, and then he heard how, far below, the"), "incomplete"),
        (Reply("", finish_reason="length", reasoning="Let me think."), "token_exhaustion"),
    ],
)
async def test_an_unusable_chosen_answer_is_asked_for_again_and_a_re_run_walks_the_same_path(
    tmp_path: Path, unusable: Reply, cause: str
) -> None:
    async def script(chat: Chat) -> Answer:
        return unusable if chat.purpose is Purpose.CHOSEN and chat.sample < 2 else await writing(chat)

    jobs = some_jobs(1)
    pair = Pair(jobs[0], text_of(Purpose.CHOSEN, "p0", 2), text_of(Purpose.REJECTED, "p0"))
    async with ChatServer(script) as server:
        for counts in ((4, 0), (0, 4)):
            async with running(tmp_path, server.base_url) as run:
                assert await made(run, jobs) == (PairsOutcome(1, {}, ()), {0: pair})
                assert (run.progress.paid.total(), run.progress.reused.total()) == counts
        # Samples that are there are read, whatever number of tries is allowed by now.
        async with running(tmp_path, server.base_url, models__main__max_retries=0) as run:
            assert await made(run, jobs) == (PairsOutcome(1, {}, ()), {0: pair})
            assert run.progress.paid.total() == 0
        other = tmp_path / "other"
        other.mkdir()
        server.script = lambda chat: _with(unusable, chat)
        for tries in (1, 0):
            async with running(other, server.base_url, models__main__max_retries=tries) as run:
                outcome, _ = await made(run, jobs)
                assert [(failure.cause, failure.attempts) for failure in outcome.failures] == [(cause, 2)]


async def _with(unusable: Reply, chat: Chat) -> Answer:
    return unusable if chat.purpose is Purpose.CHOSEN else await writing(chat)


async def test_a_job_without_a_usable_answer_is_a_failure_and_the_others_are_unharmed(
    tmp_path: Path,
) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHOSEN and chat.subject == "p1":
            return REFUSAL
        if chat.purpose is Purpose.REJECTED and chat.subject == "p3":
            return Reply(status=422)
        return await writing(chat)

    async with ChatServer(script) as server, running(tmp_path, server.base_url) as run:
        jobs = some_jobs(5)
        outcome, kept = await made(run, jobs)
        refused = Failure(
            phase=Phase.PAIRS,
            item="job 1",
            purpose=Purpose.CHOSEN,
            cause="refused",
            message='the answer is a refusal ("as an ai")',
            attempts=3,
            request=run.questions.chosen(jobs[1], 2).key.hex(),
        )
        forbidden = Failure(
            phase=Phase.PAIRS,
            item="job 3",
            purpose=Purpose.REJECTED,
            cause="question_refused",
            message="HTTP 422: scripted 422",
            status=422,
            attempts=1,
            request=run.questions.rejected(jobs[3], 0).key.hex(),
        )
        # What a server refuses is listed when it was asked once more, after all others.
        assert outcome == PairsOutcome(3, {}, (refused, forbidden), 2)
        assert sorted(kept) == [0, 2, 4]
        assert (run.progress.done, run.progress.failures) == (5, 2)
        assert [(row["item"], row["cause"]) for row in await listed_failures(run)] == [
            ("job 1", "refused"),
            ("job 3", "question_refused"),
        ]


async def test_failed_jobs_that_get_another_try_get_it_at_the_same_time(tmp_path: Path) -> None:
    async def refusing(chat: Chat) -> Answer:
        return REFUSAL if chat.purpose is Purpose.CHOSEN else await writing(chat)

    async def mended(chat: Chat) -> Answer:
        await server.until(lambda: len(server.asked) == 6 + 3)
        return await writing(chat)

    jobs = some_jobs(3)
    async with ChatServer(refusing) as server:
        async with running(tmp_path, server.base_url, models__main__max_retries=0) as run:
            outcome, _ = await made(run, jobs)
            assert len(outcome.failures) == 3
        server.script = mended
        async with running(tmp_path, server.base_url, models__main__max_retries=1) as run:
            outcome, _ = await made(run, jobs)
            assert (outcome.kept, run.progress.paid) == (3, {"chosen": 3})


async def test_an_endless_number_of_retries_spends_a_bounded_number_of_calls(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return REFUSAL if chat.purpose is Purpose.CHOSEN else await writing(chat)

    async with (
        ChatServer(script) as server,
        running(tmp_path, server.base_url, models__main__max_retries=-1) as run,
    ):
        outcome, _ = await made(run, some_jobs(1))
        assert outcome.failures[0].attempts == run.progress.paid["chosen"] == 11


async def test_rejected_answers_are_taken_as_they_are_unless_they_are_empty(tmp_path: Path) -> None:
    rejected = {"p0": REFUSAL, "p1": "No.", "p2": " Because the ", "p3": ""}

    async def script(chat: Chat) -> Answer:
        if chat.purpose is Purpose.REJECTED and not (chat.subject == "p3" and chat.sample):
            return rejected[chat.subject]
        return await writing(chat)

    async with ChatServer(script) as server, running(tmp_path, server.base_url) as run:
        _, kept = await made(run, some_jobs(4))
        assert [kept[place] and kept[place].rejected for place in range(4)] == [  # type: ignore[union-attr]
            Text(REFUSAL),
            Text("No."),
            Text("Because the"),
            text_of(Purpose.REJECTED, "p3", 1),
        ]
        assert run.progress.paid == {"chosen": 4, "rejected": 5}


async def test_answers_cut_by_the_token_limit_are_kept_and_counted(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return Reply(story(chat.purpose, chat.subject) + " And then", finish_reason="length")

    async with ChatServer(script) as server, running(tmp_path, server.base_url) as run:
        _, kept = await made(run, some_jobs(2))
        assert [pair and pair.chosen.truncated for pair in kept.values()] == [True, True]
        assert run.progress.truncated == 2


async def test_a_slow_judge_does_not_hold_up_generating(tmp_path: Path) -> None:
    # The judge says nothing until all that is to be generated is there.
    async def script(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE:
            await server.until(lambda: server.count(*PROSE) == 16 and not server.in_flight(*PROSE))
        return await writing(chat)

    jobs = some_jobs(8)
    options: dict[str, Any] = {"generation__dataset_mode": "mo-dpo", "generation__concurrency": 2}
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        first = asyncio.create_task(made(run, jobs[:4]))
        # Every slot for judging is taken when the second block comes.
        await server.until(lambda: server.count(Purpose.JUDGE) == 2)
        second = await made(run, jobs[4:])
        assert ((await first)[0].kept, second[0].kept, run.progress.paid["judge"]) == (4, 4, 16)


async def test_no_more_texts_are_judged_at_once_than_the_concurrency(tmp_path: Path) -> None:
    most = 0

    async def script(chat: Chat) -> Answer:
        nonlocal most
        if chat.purpose is Purpose.JUDGE:
            most = max(most, server.in_flight(Purpose.JUDGE))
            await server.until(lambda: server.count(Purpose.JUDGE) >= 3)
        return await writing(chat)

    options: dict[str, Any] = {"generation__dataset_mode": "mo-dpo", "generation__concurrency": 3}
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        assert (await made(run, some_jobs(6)))[0].kept == 6
    assert most == 3


@pytest.mark.parametrize(
    ("verdict", "cause", "attempts"),
    [(Reply(status=422), "question_refused", 1), (Reply("It is rather good."), "bad_scores", 3)],
)
@pytest.mark.parametrize("options", [FILTERING, {"generation__dataset_mode": "mo-dpo"}])
async def test_a_pair_that_the_judge_does_not_score_is_a_failure(
    tmp_path: Path, options: dict[str, Any], verdict: Reply, cause: str, attempts: int
) -> None:
    async def script(chat: Chat) -> Answer:
        silent = chat.purpose is Purpose.JUDGE and chat.subject == story(Purpose.REJECTED, "p1")
        return verdict if silent else await writing(chat)

    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        outcome, kept = await made(run, some_jobs(3))
        (failure,) = outcome.failures
        assert (failure.item, failure.purpose) == ("job 1", Purpose.JUDGE)
        assert (failure.cause, failure.attempts) == (cause, attempts)
        assert (sorted(kept), outcome.kept, outcome.lost) == ([0, 2], 2, {})


@pytest.mark.parametrize(
    ("mode", "chosen", "rejected", "passes"),
    [
        ("dpo", {"a": 4, "b": 4}, {"a": 3, "b": 3}, True),  # both at their bounds
        ("dpo", {"a": 3, "b": 5}, {"a": 1, "b": 5}, True),  # the averages count
        ("dpo", {"a": 3, "b": 4}, {"a": 1, "b": 1}, False),
        ("kto", {"a": 5, "b": 5}, {"a": 3, "b": 3.5}, False),
        ("kto", {"a": 1, "b": 1}, {"a": 5, "b": 5}, False),
        ("sft", {"a": 4}, {"a": 5}, True),
        ("sft", {"a": 3.9}, {"a": 1}, False),
        ("mo-dpo", {"a": 1}, {"a": 5}, True),
    ],
)
async def test_pairs_beyond_the_thresholds_are_done_and_not_in_the_dataset(
    tmp_path: Path, mode: str, chosen: dict[str, float], rejected: dict[str, float], *, passes: bool
) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE:
            return scores(**(chosen if chat.subject.startswith("chosen") else rejected))
        return await writing(chat)

    options: dict[str, Any] = FILTERING | {"generation__dataset_mode": mode}
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        outcome, kept = await made(run, some_jobs(1))
        assert outcome == PairsOutcome(int(passes), {} if passes else {0: "filtered"}, ())
        assert (kept[0] is not None) is passes
        assert (run.progress.lost, run.progress.failures) == ({} if passes else {"filtered": 1}, 0)
        assert await listed_failures(run) == []


async def judged(folder: Path, verdicts: Mapping[tuple[str, int], str], **options: Any) -> Pair | Failure:
    """The one pair, or its failure, for these verdicts by side and try; a re-run pays for nothing."""

    async def script(chat: Chat) -> Answer:
        if chat.purpose is not Purpose.JUDGE:
            return await writing(chat)
        side = "chosen" if story(Purpose.CHOSEN, "p0") in chat.text else "rejected"
        return verdicts.get((side, chat.sample))

    results: list[Pair | Failure] = []
    async with ChatServer(script) as server:
        for again in (False, True):
            async with running(folder, server.base_url, generation__dataset_mode="mo-dpo", **options) as run:
                outcome, kept = await made(run, some_jobs(1))
                assert not again or not run.progress.paid
                results += [pair for pair in kept.values() if pair] or outcome.failures
        assert len(server.asked) == 2 + len(verdicts)
    assert results[0] == results[1]
    return results[0]


async def test_both_answers_are_scored_on_the_same_criteria(tmp_path: Path) -> None:
    verdicts = {
        ("chosen", 0): scores(style=4, depth=3, wit=5),
        ("rejected", 0): scores(style=2, depth=1),
        ("rejected", 1): scores(wit=1, depth=2, style=3),
    }
    pair = await judged(tmp_path, verdicts)
    assert isinstance(pair, Pair)
    assert pair.chosen_scores == scores_of(style=4, depth=3, wit=5)
    assert pair.rejected_scores == scores_of(style=3, depth=2, wit=1)


async def test_a_criterion_that_stays_missing_is_a_failure(tmp_path: Path) -> None:
    verdicts = {("chosen", 0): scores(style=4, wit=5)} | {
        ("rejected", sample): scores(style=2) for sample in range(3)
    }
    failure = await judged(tmp_path, verdicts)
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.attempts) == ("bad_scores", 3)
    assert "no score for wit" in failure.message


async def test_the_built_in_rubric_is_scored_on_all_its_criteria(tmp_path: Path) -> None:
    every = dict.fromkeys(reversed(DEFAULT_CRITERIA), 4.0)
    verdicts = {
        ("chosen", 0): scores(relevance=4),
        ("chosen", 1): scores(**every, beauty=1),
        ("rejected", 0): scores(**every),
    }
    pair = await judged(tmp_path, verdicts, prompt_templates__judge_rubric=JUDGE_RUBRIC)
    assert isinstance(pair, Pair)
    assert pair.chosen_scores == pair.rejected_scores == scores_of(**every)
    assert pair.chosen_scores is not None
    assert tuple(pair.chosen_scores.criteria) == DEFAULT_CRITERIA


@pytest.mark.parametrize(
    ("options", "explained"),
    [
        ({"generation__dataset_mode": "mo-dpo"}, True),
        (FILTERING | {"judge_filtering__use_explanations": True}, True),
        (FILTERING, False),
    ],
)
async def test_reasoning_is_asked_for_where_it_is_wanted(
    tmp_path: Path, options: dict[str, Any], *, explained: bool
) -> None:
    async with ChatServer(writing) as server, running(tmp_path, server.base_url, **options) as run:
        await made(run, some_jobs(1))
        rubrics = [chat.text for chat in server.asked if chat.purpose is Purpose.JUDGE]
    assert len(rubrics) == 2
    assert all(("without reasoning" not in rubric) is explained for rubric in rubrics)


async def test_an_interruption_lets_calls_in_flight_finish_and_keeps_them(tmp_path: Path) -> None:
    stop, stopped = Stop(), asyncio.Event()

    async def script(chat: Chat) -> Answer:
        await asyncio.wait_for(stopped.wait(), PATIENCE)
        return await writing(chat)

    jobs = some_jobs(6)
    kept: dict[int, Pair | None] = {}
    async with ChatServer(script) as server:
        async with running(tmp_path, server.base_url, stop=stop, generation__concurrency=2) as run:
            work = asyncio.create_task(made(run, jobs, kept))
            await server.until(lambda: len(server.asked) == 4)
            stop.request(RunInterrupted(signal.SIGTERM))
            stopped.set()
            with pytest.raises(RunInterrupted) as raised:
                await work
            assert raised.value.exit_code == 128 + signal.SIGTERM
            # Both jobs that were under way are whole, and no other was begun.
            assert (sorted(kept), len(server.asked), run.progress.paid.total()) == ([0, 1], 4, 4)
        async with running(tmp_path, server.base_url) as run:
            outcome, whole = await made(run, jobs)
            assert (outcome.kept, sorted(whole)) == (6, list(range(6)))
            assert (run.progress.paid.total(), run.progress.reused.total()) == (8, 4)
            assert {job: whole[job] for job in kept} == kept

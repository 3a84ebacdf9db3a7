"""What is paid for and what is not, counted exactly, without asking or writing anything."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from tasks.core.forecast.survey import survey
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import calls, connect, failures, ledger_url, milestones, sessions
from tasks.core.models import Purpose
from tests.core.running import TEMPLATES, ChatServer, configured, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.forecast.survey import Survey
    from tasks.core.models import Job, Pair
    from tests.core.running import Answer, Chat

S, P, C, R, J, *_ = Purpose
JUDGED: dict[str, Any] = {
    "judge_filtering__enabled": True,
    "judge_filtering__min_chosen_score": 1.0,
    "judge_filtering__max_rejected_score": 5.0,
}


async def writing(chat: Chat) -> Answer:
    """Models with which nothing is wrong."""
    match chat.purpose:
        case Purpose.SUBTOPICS:
            wanted = re.findall(r"\d+", chat.text)[0]
            return [f"Subtopic {chat.sample}.{number}" for number in range(int(wanted))]
        case Purpose.PROMPTS:
            wanted = chat.text.split()[0]
            return [f"Prompt {number} of {chat.subject}" for number in range(int(wanted))]
        case Purpose.JUDGE:
            return json.dumps({"style": 4, "depth": 4})
        case _:
            return f"{chat.purpose} of {chat.subject}: the keeper lit the lamp, and all the ships came home."


async def generate(folder: Path, url: str, pairs: int | None = None, **settings: Any) -> list[Job]:
    """Run the pipeline, stopped after some pairs; returns all jobs."""
    async with running(folder, url, **settings) as run:
        names = await find_subtopics(run)
        found = await write_prompts(run, [Subtopic(index, name) for index, name in enumerate(names)])
        jobs = jobs_of(run, (await complete_prompts(run, found)).found)
        await make_pairs(run, jobs[:pairs], lambda _job, _pair: None)
        return jobs


async def contents(config: Config) -> list[Sequence[Any]]:
    """All rows of all tables."""
    engine = connect(ledger_url(config))
    try:
        async with engine.connect() as connection:
            return [
                row
                for table in (calls, failures, milestones, sessions)
                for row in await connection.execute(select(table))
            ]
    finally:
        await engine.dispose()


async def surveyed(folder: Path, server: ChatServer, **settings: Any) -> Survey:
    """A survey, which leaves the ledger as it was and the server alone."""
    config = configured(server.base_url, output__folder=str(folder), **settings)
    asked = len(server.asked)
    async with await Ledger.open(ledger_url(config)) as ledger:
        before = await contents(config)
        found = await survey(config, ledger)
        assert await contents(config) == before
    assert len(server.asked) == asked
    return found


@asynccontextmanager
async def scripted() -> AsyncIterator[ChatServer]:
    async with ChatServer(writing) as server:
        yield server


async def test_of_an_empty_ledger_everything_is_to_be_paid_for(tmp_path: Path) -> None:
    async with scripted() as server:
        found = await surveyed(tmp_path, server)
    assert +found.to_pay == {S: 1, P: 2, C: 4, R: 4}
    assert (+found.reused, found.keys, found.jobs, found.done) == ({}, set(), [], 0)


@pytest.mark.parametrize(
    ("settings", "paid"),
    [
        ({}, {S: 1, P: 2, C: 4, R: 4}),
        ({"generation__dataset_mode": "sft"}, {S: 1, P: 2, C: 4}),
        ({"generation__dataset_mode": "mo-dpo"}, {S: 1, P: 2, C: 4, R: 4, J: 8}),
        ({"generation__dataset_mode": "sft"} | JUDGED, {S: 1, P: 2, C: 4, J: 4}),
    ],
)
async def test_a_finished_run_costs_nothing_more(
    tmp_path: Path, settings: dict[str, Any], paid: dict[Purpose, int]
) -> None:
    async with scripted() as server:
        jobs = await generate(tmp_path, server.base_url, **settings)
        found = await surveyed(tmp_path, server, **settings)
        assert len(found.keys) == len(server.asked)
    assert (+found.to_pay, +found.reused) == ({}, paid)
    assert (found.jobs, found.done, len(found.subtopics)) == (jobs, 4, 2)


@pytest.mark.parametrize(
    ("settings", "to_pay"), [({}, {C: 3, R: 3}), (JUDGED, {C: 3, R: 3, J: 6})], ids=["plain", "judged"]
)
async def test_a_half_done_run_costs_the_rest(
    tmp_path: Path, settings: dict[str, Any], to_pay: dict[Purpose, int]
) -> None:
    counts = {"generation__num_prompts_per_subtopic": 4}
    async with scripted() as server:
        await generate(tmp_path, server.base_url, pairs=5, **counts, **settings)
        found = await surveyed(tmp_path, server, **counts, **settings)
        asked = len(server.asked)
        await generate(tmp_path, server.base_url, **counts, **settings)
        assert len(server.asked) - asked == found.to_pay.total()
    assert +found.to_pay == to_pay
    assert (found.reused[C], found.reused[R], found.done) == (5, 5, 5)


async def test_what_was_judged_twice_does_not_pay_for_what_was_not(tmp_path: Path) -> None:
    async def muttering_first(chat: Chat) -> Answer:
        return "no scores" if chat.purpose is Purpose.JUDGE and chat.sample == 0 else await writing(chat)

    async with ChatServer(muttering_first) as server:
        await generate(tmp_path, server.base_url, pairs=2, **JUDGED)
        found = await surveyed(tmp_path, server, **JUDGED)
    assert found.reused[J] == 8
    assert +found.to_pay == {C: 2, R: 2, J: 4}


async def test_a_changed_rejected_template_costs_the_rejected_answers_alone(tmp_path: Path) -> None:
    templates = TEMPLATES | {"rejected_generation": "rejected {{.Prompt}}, but badly"}
    async with scripted() as server:
        await generate(tmp_path, server.base_url)
        found = await surveyed(tmp_path, server, prompt_templates=templates)
    assert +found.to_pay == {R: 4}
    assert +found.reused == {S: 1, P: 2, C: 4}
    assert found.done == 0


@pytest.mark.parametrize(
    ("side", "purpose"), [("chosen_generation", C), ("rejected_generation", R)], ids=["chosen", "rejected"]
)
async def test_scores_of_the_answers_that_stay_are_not_paid_for_again(
    tmp_path: Path, side: str, purpose: Purpose
) -> None:
    templates = TEMPLATES | {side: TEMPLATES[side] + " anew"}
    async with scripted() as server:
        await generate(tmp_path, server.base_url, generation__dataset_mode="mo-dpo")
        changed: dict[str, Any] = {"generation__dataset_mode": "mo-dpo", "prompt_templates": templates}
        found = await surveyed(tmp_path, server, **changed)
        asked = len(server.asked)
        await generate(tmp_path, server.base_url, **changed)
        assert len(server.asked) - asked == found.to_pay.total()
    assert +found.to_pay == {purpose: 4, J: 4}
    assert found.reused[J] == 4


async def test_more_subtopics_cost_only_what_is_new(tmp_path: Path) -> None:
    async with scripted() as server:
        jobs = await generate(tmp_path, server.base_url)
        found = await surveyed(tmp_path, server, generation__num_subtopics=5)
        asked = len(server.asked)
        await generate(tmp_path, server.base_url, generation__num_subtopics=5)
        assert len(server.asked) - asked == found.to_pay.total()
    assert +found.to_pay == {S: 1, P: 3, C: 6, R: 6}
    assert +found.reused == {S: 1, P: 2, C: 4, R: 4}
    assert (found.jobs, found.done, found.subtopics) == (jobs, 4, ())


async def test_a_prompt_request_that_would_be_tried_again_is_counted_once(tmp_path: Path) -> None:
    async def stuck(chat: Chat) -> Answer:
        assert chat.purpose is Purpose.SUBTOPICS
        return await writing(chat)

    settings: dict[str, Any] = {"generation__prompt_retry_attempts": 2}
    async with ChatServer(stuck) as server:
        async with running(tmp_path, server.base_url, **settings) as run:
            await find_subtopics(run)
        found = await surveyed(tmp_path, server, **settings)
    assert +found.to_pay == {P: 2, C: 4, R: 4}
    assert (+found.reused, len(found.subtopics)) == ({S: 1}, 2)


async def test_some_prompts_that_are_there_lead_to_the_pairs_that_are(tmp_path: Path) -> None:
    templates = TEMPLATES | {"chosen_generation": "chosen {{.Prompt}} again"}
    settings: dict[str, Any] = {"generation__num_subtopics": 4}
    async with scripted() as server:
        async with running(tmp_path, server.base_url, **settings) as run:
            names = await find_subtopics(run)
            [found] = await write_prompts(run, [Subtopic(0, names[0])])
            await make_pairs(run, jobs_of(run, [found]), lambda _job, _pair: None)
        counted = await surveyed(tmp_path, server, **settings)
        changed = await surveyed(tmp_path, server, **settings, prompt_templates=templates)
    assert +counted.to_pay == {P: 3, C: 6, R: 6}
    assert +counted.reused == {S: 1, P: 1, C: 2, R: 2}
    assert +changed.to_pay == {P: 3, C: 8, R: 6}


async def test_a_topic_that_has_no_more_subtopics_owes_nothing(tmp_path: Path) -> None:
    async def poor(chat: Chat) -> Answer:
        return ["Only one"] if chat.purpose is Purpose.SUBTOPICS else await writing(chat)

    async with ChatServer(poor) as server:
        await generate(tmp_path, server.base_url)
        found = await surveyed(tmp_path, server)
    assert +found.to_pay == {}
    assert (len(found.subtopics), found.done) == (1, 2)


async def test_an_answer_that_can_never_be_used_is_no_debt(tmp_path: Path) -> None:
    async def refusing(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHOSEN and chat.subject.startswith("Prompt 0"):
            return "I'm sorry, but I can't help with that, whatever it may be that you want from me."
        return await writing(chat)

    async with ChatServer(refusing) as server:
        await generate(tmp_path, server.base_url, **JUDGED)
        found = await surveyed(tmp_path, server, **JUDGED)
    assert +found.to_pay == {}
    assert (found.reused[C], found.reused[J], found.done) == (2 + 2 * 3, 4, 2)


async def test_finished_jobs_are_handed_on_also_those_that_were_filtered(tmp_path: Path) -> None:
    kept: dict[int, Pair | None] = {}

    def keep(job: Job, pair: Pair | None) -> None:
        kept[job.id] = pair

    strict = JUDGED | {"judge_filtering__min_chosen_score": 5.0}
    async with scripted() as server:
        jobs = await generate(tmp_path, server.base_url, pairs=3, **strict)
        config = configured(server.base_url, output__folder=str(tmp_path), **strict)
        async with await Ledger.open(ledger_url(config)) as ledger:
            found = await survey(config, ledger, keep, jobs=jobs)
    assert kept == dict.fromkeys(range(3))
    assert found.done == 3

"""What was answered where it could not be used, as people are shown it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.models import Phase, Purpose
from tasks.core.session.record import SessionRecord
from tasks.core.session.retrying import OF_EACH, unusable_answers
from tests.core.running import ChatServer, Reply, running, some_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.running import Answer, Chat

SETTINGS: dict[str, Any] = {
    "generation__num_prompts_per_subtopic": 4,
    "generation__dataset_mode": "mo-dpo",
    "models__main__max_retries": 0,
    "models__rejected__max_retries": 0,
    "models__judge__max_retries": 1,
}


async def script(chat: Chat) -> Answer:  # noqa: PLR0911 - a table
    """Subtopic t1 has no list of prompts; of t0, one is refused, one fails, and no other can be judged."""
    match chat.purpose:
        case Purpose.SUBTOPICS:
            return ["t0", "t1"]
        case Purpose.PROMPTS if chat.subject == "t1":
            return "I would rather not."
        case Purpose.PROMPTS:
            return [f"p{number} of {chat.subject}" for number in range(4)]
        case Purpose.JUDGE:
            return f"Rather good,\nthe {chat.sample}th time."
        case Purpose.CHOSEN if chat.subject == "p0 of t0":
            return Reply("", reasoning="Let me think.")
        case Purpose.CHOSEN if chat.subject == "p1 of t0":
            return Reply(status=422)
    return f"{chat.purpose} of {chat.subject}: the keeper lit the lamp, and all the ships came home."


async def test_a_few_answers_of_each_call_and_cause_come_with_what_was_asked(tmp_path: Path) -> None:
    options = SETTINGS | {"generation__min_success_rate": 0.0}
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        names = await find_subtopics(run)
        found = await write_prompts(run, [Subtopic(index, name) for index, name in enumerate(names)])
        await run.list_failures(entry.failure for entry in found if entry.failure)
        jobs = jobs_of(run, (await complete_prompts(run, found)).found)
        await make_pairs(run, jobs, lambda _job, _pair: None)
        asked = len(server.asked)
        settings = run.config.model_dump(mode="json", exclude_unset=True)
        answered = await unusable_answers(run.ledger, SessionRecord("s", 0.0, settings))
        given = await unusable_answers(run.ledger, SessionRecord("s", 0.0, {}), of_each=1, jobs=jobs[2:])
        assert len(server.asked) == asked
    kinds = [(item.phase, item.purpose, item.cause) for item in answered]
    assert kinds == [
        (Phase.PROMPTS, Purpose.PROMPTS, "no_list"),
        (Phase.PAIRS, Purpose.CHOSEN, "empty"),
        (Phase.PAIRS, Purpose.JUDGE, "bad_scores"),
        (Phase.PAIRS, Purpose.JUDGE, "bad_scores"),
    ]
    listed, empty, judged, _ = answered
    assert (listed.answer, listed.variables) == (
        "I would rather not.",
        {"MainTopic": "The sea", "SubTopic": "t1"},
    )
    assert (empty.answer, empty.reasoning, empty.finish_reason) == ("", "Let me think.", "stop")
    assert empty.variables == {"MainTopic": "The sea", "SubTopic": "t0", "Prompt": "p0 of t0"}
    # The last of its tries.
    assert judged.answer == "Rather good,\nthe 1th time."
    assert judged.variables["Prompt"] in {"p2 of t0", "p3 of t0"}
    assert judged.variables["StoryText"].startswith("chosen of p")
    assert [item.variables.get("Prompt", "") for item in given] == ["", "", "p3 of t0"]


async def test_no_more_are_shown_of_a_cause_than_a_few(tmp_path: Path) -> None:
    async def refusing(chat: Chat) -> Answer:
        return "No." if chat.purpose is Purpose.CHOSEN else await script(chat)

    async with ChatServer(refusing) as server, running(tmp_path, server.base_url, **SETTINGS) as run:
        await make_pairs(run, some_jobs(9), lambda _job, _pair: None)
        answered = await unusable_answers(run.ledger, SessionRecord("s", 0.0, {}))
    assert [item.item for item in answered] == [f"job {number}" for number in range(9 - OF_EACH, 9)]
    assert {item.answer for item in answered} == {"No."}

"""Several sessions made into one: whose rows are whose, what is paid for, and what does not go together."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from tasks.core.errors import LedgerError, SessionError, UsageError
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.run import open_run
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url, sessions
from tasks.core.ledger.sessions import count_calls, find_session_row, spent_by
from tasks.core.models import Phase, Purpose
from tasks.core.portable.archive import export_session, import_session
from tasks.core.portable.merging import merge_sessions
from tasks.core.progress import Progress
from tasks.core.secrets import Keys
from tasks.core.session.adoption import SAMPLES_A_PAIR, unpack_jobs
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.folder import locked
from tasks.core.session.record import read_record, settings_of
from tasks.core.session.resuming import check_resumption, find_resumption, survey_session
from tasks.core.session.session import open_session
from tasks.core.traffic.stop import Stop
from tests.core.running import ChatServer, Reply, configured
from tests.core.session.exported import run_session
from tests.core.session.full_disk import no_file_larger_than
from tests.core.session.vellumforge2 import checkpoint, go_jobs, write_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tasks.core.errors import VellumforgeError
    from tasks.core.models import Job
    from tasks.core.portable.merging import Merged
    from tests.core.running import Answer, Chat

NEW = "session_merged"
ROOM = 100_000
"""Bytes of a file that are room enough for what the ledger notes of a session, and not for its rows."""
WARM: dict[str, Any] = {"models__main__temperature": 1.25, "models__rejected__temperature": 1.25}
"""Other settings: every question of theirs has another key, and the models answer otherwise."""

OTHER_CHOSEN: dict[str, Any] = {"prompt_templates__chosen_generation": "chosen {{.Prompt}}\nin verse"}
"""The same prompts, for which another chosen answer is asked."""

FILTERING: dict[str, Any] = {
    "judge_filtering__enabled": True,
    "judge_filtering__min_chosen_score": 4.0,
    "judge_filtering__max_rejected_score": 5.0,
}
REASONING: dict[str, Any] = {"generation__enable_reasoning_capture": True}


async def writing(chat: Chat) -> Answer:
    """Models whose answers show under which settings they were asked."""
    manner = "warm" if chat.body["temperature"] == 1.25 else "cool"
    match chat.purpose:
        case Purpose.SUBTOPICS:
            return ["Tides", "Storms"] if manner == "cool" else ["STORMS", "Harbours"]
        case Purpose.PROMPTS if chat.subject.casefold() == "storms":
            return (
                ["Who lit the lamp?", "Who rowed?"]
                if manner == "cool"
                else ["Who slept?", "who lit the lamp"]
            )
        case Purpose.PROMPTS:
            return [f"Tell of {chat.subject} by {hour}." for hour in ("day", "night")]
        case Purpose.JUDGE:
            return json.dumps({"style": {"score": 3, "reasoning": f"{manner}, {chat.body['model']}"}})
        case _:
            verse = " in verse" if chat.text.endswith("in verse") else ""
            content = f"{chat.purpose}, {manner}{verse}, of {chat.subject}: the keeper lit the lamp at dusk."
            return Reply(content, reasoning=f"{manner} thoughts")


class Place:
    """An output folder with its ledger, and a model server."""

    def __init__(self, output: Path, server: ChatServer) -> None:
        self.output = output
        self.server = server

    async def session(self, part: slice = slice(None), **settings: Any) -> str:
        """A session of two subtopics with two prompts each, some of whose jobs are done; returns its name."""
        folder, _ = await run_session(self.config(**settings), part)
        return folder.name

    def config(self, **settings: Any) -> Any:
        common = {"output__folder": str(self.output), "generation__enable_checkpointing": True}
        return configured(self.server.base_url, **common | settings)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        async with await Ledger.open(ledger_url(self.config())) as ledger:
            yield ledger

    async def merge(self, *names: str, into: str = NEW) -> Merged:
        """Merge sessions, for which nobody is asked anything."""
        asked = len(self.server.asked)
        async with self.ledger() as ledger:
            merged = await merge_sessions(names, into, self.output, ledger)
        assert len(self.server.asked) == asked
        return merged

    async def resume(self, name: str = NEW) -> list[Chat]:
        """Go on with a session that has its jobs from elsewhere; returns what had to be asked."""
        asked = len(self.server.asked)
        found = find_resumption(self.output / name)
        config, progress = found.before, Progress()
        assert config is not None
        async with self.ledger() as ledger:
            with open_session(
                config, progress, text="", overridden={}, ledger=ledger.id, resumption=found
            ) as session:
                session.checkpoint.state.jobs = await self.jobs(ledger, name)
                async with open_run(
                    config,
                    Keys({}, {}),
                    session=found.record.id,
                    ledger=ledger,
                    stop=Stop(),
                    progress=progress,
                ) as run:
                    outcome = await make_pairs(run, session.checkpoint.state.jobs, session.keep)
                await session.finish(complete=not outcome.failures)
            assert not outcome.failures
        return self.server.asked[asked:]

    async def jobs(self, ledger: Ledger, name: str = NEW) -> list[Job]:
        """The jobs of a session that has them from elsewhere."""
        record = read_record(self.output / name)
        assert record is not None
        row = await find_session_row(ledger, record.id)
        assert row is not None
        assert row.jobs is not None
        jobs = unpack_jobs(row.jobs)[1]
        assert jobs is not None
        return jobs

    def rows(self, name: str = NEW, file: str = "dataset.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / name / file).read_text().splitlines()]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with ChatServer(writing) as server:
        yield Place(tmp_path / "output", server)


def texts(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Prompt and manner of the chosen answer of each row."""
    return [(row["prompt"], row["chosen"].partition(" of ")[0]) for row in rows]


async def test_jobs_stand_in_the_order_of_sessions_without_duplicates_and_numbered_anew(place: Place) -> None:
    first, second = await place.session(), await place.session(**WARM)
    merged = await place.merge(first, second)
    assert merged.complete
    assert texts(place.rows()) == [
        ("Tell of Tides by day.", "chosen, cool,"),
        ("Tell of Tides by night.", "chosen, cool,"),
        ("Who lit the lamp?", "chosen, cool,"),
        ("Who rowed?", "chosen, cool,"),
        ("Who slept?", "chosen, warm,"),
        ("Tell of Harbours by day.", "chosen, warm,"),
        ("Tell of Harbours by night.", "chosen, warm,"),
    ]
    checkpoint = read_checkpoint(place.output / NEW)
    assert checkpoint is not None
    assert [job.id for job in checkpoint.jobs] == list(range(7))
    assert (checkpoint.subtopics, checkpoint.current_phase) == (
        ("Tides", "Storms", "Harbours"),
        Phase.COMPLETE,
    )
    assert merged.lines() == [
        f"{first}: 4 jobs, 0 duplicates, 4 done",
        f"{second}: 4 jobs, 1 duplicates, 4 done",
        "  its settings differ, and hold for nothing that is not done yet:",
        "  models.main.temperature: 0.7 -> 1.25 (changes subtopics, prompts, pairs)",
        "  models.rejected.temperature: 0.7 -> 1.25 (changes pairs)",
        f"{NEW}: 7 jobs, 7 done, 0 calls to pay for",
        f"it is complete, and nothing is to be paid for: {place.output / NEW / 'dataset.jsonl'}",
    ]


async def test_halves_of_the_same_session_are_the_undisturbed_one(place: Place) -> None:
    first, second = await place.session(slice(2)), await place.session(slice(2, 4))
    asked = len(place.server.asked)
    whole = await place.session()
    assert len(place.server.asked) == asked
    async with place.ledger() as ledger:
        calls = await count_calls(ledger)
    assert (await place.merge(first, second)).complete
    assert (place.output / NEW / "dataset.jsonl").read_bytes() == (
        place.output / whole / "dataset.jsonl"
    ).read_bytes()
    async with place.ledger() as ledger:
        assert await count_calls(ledger) == calls


async def test_a_resume_pays_only_for_what_is_done_in_none_under_the_settings_of_the_first(
    place: Place,
) -> None:
    first = await place.session(slice(1))
    second = await place.session(slice(2), **WARM)
    merged = await place.merge(first, second)
    # Done: Tides by day in one; Who slept, who lit the lamp in the other. The latter takes the first's place.
    assert (merged.survey.done, merged.survey.to_pay.total()) == (3, 8)
    assert texts(place.rows()) == [
        ("Tell of Tides by day.", "chosen, cool,"),
        ("who lit the lamp", "chosen, warm,"),
        ("Who slept?", "chosen, warm,"),
    ]
    assert merged.lines()[-2:] == [
        f"{NEW}: 7 jobs, 3 done, 8 calls to pay for",
        f"to go on with it: vellumforge2 checkpoint resume {NEW}",
    ]
    asked = await place.resume()
    assert len(asked) == 8
    assert {chat.body["temperature"] for chat in asked} == {0.7}
    assert texts(place.rows())[:3] == [
        ("Tell of Tides by day.", "chosen, cool,"),
        ("Tell of Tides by night.", "chosen, cool,"),
        ("who lit the lamp", "chosen, warm,"),
    ]
    assert len(place.rows()) == 7


async def test_an_answer_that_another_session_has_counts_where_the_first_has_only_refusals(
    place: Place,
) -> None:
    async def refusing(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHOSEN and chat.text == "Who rowed?":
            return "I cannot write that."
        return await writing(chat)

    place.server.script = refusing
    first, second = await place.session(), await place.session(**OTHER_CHOSEN)
    assert len(place.rows(first)) == 3
    assert (await place.merge(first, second)).complete
    assert texts(place.rows())[3] == ("Who rowed?", "chosen, cool in verse,")
    assert texts(place.rows())[:3] == texts(place.rows(first))
    async with place.ledger() as ledger:
        jobs = await place.jobs(ledger)
    assert [job.first_sample for job in jobs] == [0, 0, 0, SAMPLES_A_PAIR]
    # The first session itself is as it was.
    assert texts(place.rows(first)) == texts(place.rows())[:3]


async def test_a_pair_is_not_mixed_from_the_answers_of_two_sessions(place: Place) -> None:
    async def half(chat: Chat) -> Answer:
        if chat.purpose is Purpose.REJECTED:
            return Reply(status=400)
        return await writing(chat)

    whole = await place.session(slice(2, 4), **OTHER_CHOSEN, models__rejected__temperature=1.25)
    place.server.script = half
    first = await place.session()
    assert place.rows(first) == []
    merged = await place.merge(first, whole)
    # Of the first two, the first session has the chosen answers.
    assert (merged.survey.done, +merged.survey.to_pay) == (2, {Purpose.REJECTED: 2})
    assert [(row["chosen"], row["rejected"]) for row in place.rows()] == [
        (row["chosen"], row["rejected"]) for row in place.rows(whole)
    ]


@pytest.mark.parametrize("mode", ["sft", "kto", "dpo", "mo-dpo"])
async def test_rows_of_every_mode_stay_what_they_are(place: Place, mode: str) -> None:
    settings: dict[str, Any] = {"generation__dataset_mode": mode, **REASONING}
    first, second = await place.session(**settings), await place.session(**WARM, **settings)
    assert (await place.merge(first, second)).complete
    for file in ("dataset.jsonl", "dataset_reasoning.jsonl"):
        ours = place.rows(file=file)
        one, other = place.rows(first, file), place.rows(second, file)
        double = 2 if mode == "kto" else 1
        assert ours == [*one, *other[:double], *other[2 * double :]]


async def test_scores_of_another_judge_stay_although_the_first_one_scored_a_half(place: Place) -> None:
    async def judging(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE and chat.body["model"] == "critic" and "rejected" in chat.text:
            return Reply(status=400)
        return await writing(chat)

    place.server.script = judging
    mode: dict[str, Any] = {"generation__dataset_mode": "mo-dpo"}
    first = await place.session(**mode)
    second = await place.session(**mode, models__judge__model_name="another")
    assert (place.rows(first), len(place.rows(second))) == ([], 4)
    assert (await place.merge(first, second)).complete
    assert place.rows() == place.rows(second)


async def test_filtered_pairs_stay_filtered(place: Place) -> None:
    first = await place.session(**FILTERING)
    second = await place.session(**WARM, **FILTERING)
    merged = await place.merge(first, second)
    assert (merged.complete, merged.choice.kept_out, place.rows()) == (True, 0, [])
    checkpoint = read_checkpoint(place.output / NEW)
    assert checkpoint is not None
    assert (checkpoint.stats.filtered, checkpoint.stats.total) == (7, 7)


async def test_filtered_pairs_stay_out_where_the_first_session_does_not_filter(place: Place) -> None:
    first = await place.session()
    second = await place.session(**WARM, **FILTERING)
    merged = await place.merge(first, second)
    assert (merged.complete, merged.choice.kept_out) == (True, 3)
    assert place.rows() == place.rows(first)
    assert "3 filtered pairs stay out, with their jobs" in merged.lines()


async def test_what_is_taken_over_is_nobodys_spending(place: Place) -> None:
    first, second = await place.session(), await place.session(**WARM)
    await place.merge(first, second)
    record = read_record(place.output / NEW)
    assert record is not None
    assert (record.adopted, record.complete) == (True, True)
    assert settings_of(record) == place.config()
    async with place.ledger() as ledger:
        assert (await spent_by(ledger, record.id)).usage().calls == 0


async def test_a_merged_session_is_merged_again(place: Place) -> None:
    first = await place.session(slice(1))
    second = await place.session(slice(2), **WARM)
    third = await place.session(slice(2, 4), **OTHER_CHOSEN)
    await place.merge(first, second)
    again = await place.merge(third, NEW, into="session_again")
    assert texts(place.rows("session_again")) == [
        ("Tell of Tides by day.", "chosen, cool,"),
        ("Who lit the lamp?", "chosen, cool in verse,"),
        ("Who rowed?", "chosen, cool in verse,"),
        ("Who slept?", "chosen, warm,"),
    ]
    assert again.survey.done == 4
    checkpoint = read_checkpoint(place.output / "session_again")
    assert checkpoint is not None
    assert checkpoint.subtopics == ("Tides", "Storms", "Harbours")


async def test_a_merged_session_goes_elsewhere_with_all_that_is_paid_for(
    place: Place, tmp_path: Path
) -> None:
    first, second = await place.session(slice(1)), await place.session(slice(2), **WARM)
    await place.merge(first, second)
    record = read_record(place.output / NEW)
    assert record is not None
    async with place.ledger() as ledger:
        row = await find_session_row(ledger, record.id)
        walked = await survey_session(record, place.config(), ledger)
        assert row is not None
        keys = sorted(walked.keys)
        archive = tmp_path / "moved.zip"
        folder = place.output / NEW
        await export_session(archive, folder, record, ledger, keys=keys, questions=[], jobs=row.jobs)
    elsewhere = Place(tmp_path / "elsewhere", place.server)
    elsewhere.output.mkdir()
    async with elsewhere.ledger() as ledger:
        await import_session(archive, elsewhere.output, ledger)
    assert len(await elsewhere.resume()) == 8
    await place.resume()
    assert (elsewhere.output / NEW / "dataset.jsonl").read_bytes() == (
        place.output / NEW / "dataset.jsonl"
    ).read_bytes()


async def test_a_session_that_has_only_some_of_its_prompts_brings_those(place: Place) -> None:
    async def failing(chat: Chat) -> Answer:
        if chat.purpose is Purpose.PROMPTS and chat.subject == "Storms":
            return Reply(status=400)
        return await writing(chat)

    place.server.script = failing
    first = await place.session(generation__min_success_rate=0.0)
    second = await place.session(**WARM)
    merged = await place.merge(first, second)
    assert len(merged.choice.found) == 6
    assert "  not all of its prompts are there; those that are missing stay out" in merged.lines()


async def test_a_merged_session_cannot_be_asked_for_more(place: Place) -> None:
    await place.merge(await place.session(slice(1)), await place.session(slice(2), **WARM))
    more = place.config(generation__num_subtopics=3)
    async with place.ledger() as ledger:
        with pytest.raises(UsageError, match="its subtopics and prompts were taken over"):
            await check_resumption(find_resumption(place.output / NEW), more, ledger, accept_changes=False)
        await place.resume()
        found = find_resumption(place.output / NEW)
        with pytest.raises(UsageError, match=f"{NEW} is complete; to get more, run without resuming"):
            await check_resumption(found, place.config(), ledger, accept_changes=False)


async def contents(place: Place) -> tuple[list[str], int, int]:
    """What is in the output folder, and how many calls and sessions are in the ledger."""
    async with place.ledger() as ledger:
        calls = await count_calls(ledger)
        async with ledger.transaction("read") as connection:
            known = (await connection.execute(select(func.count()).select_from(sessions))).scalar_one()
    names = sorted(
        str(path.relative_to(place.output))
        for path in place.output.rglob("*")
        if not path.name.startswith(("ledger.db", ".lock"))
    )
    return names, calls, known


async def refused(
    place: Place, *names: str, into: str = NEW, error: type[VellumforgeError] = UsageError
) -> str:
    """Merge in vain, which changes nothing; returns why."""
    before = await contents(place)
    with pytest.raises(error) as raised:
        await place.merge(*names, into=into)
    assert await contents(place) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


async def test_what_does_not_go_together_is_refused(place: Place) -> None:
    first = await place.session(slice(1))
    assert "at least two" in await refused(place, first)
    assert "at least two" in await refused(place)
    assert "named twice" in await refused(place, first, first)
    assert "there is no session" in await refused(place, first, "session_nowhere")
    assert "is no session's name" in await refused(place, first, "../output")
    second = await place.session(slice(2), **WARM)
    assert "is no session's name" in await refused(place, first, second, into="merged")
    assert "already" in await refused(place, first, second, into=first)
    topic = await place.session(slice(1), generation__main_topic="Tea")
    assert "main_topic is 'The sea' in one and 'Tea' in the other" in await refused(place, first, topic)
    mode = await place.session(slice(1), generation__dataset_mode="kto")
    assert "dataset_mode is 'dpo' in one and 'kto' in the other" in await refused(place, first, mode)
    with locked(place.output / second):
        assert "is being written by process" in await refused(place, first, second, error=SessionError)
    (place.output / "session_link").symlink_to(place.output / first)
    assert "named twice" in await refused(place, first, "session_link")


async def test_a_session_of_vellumforge2_is_resumed_before_it_is_merged(place: Place) -> None:
    first = await place.session(slice(1))
    foreign = write_session(place.output, checkpoint(go_jobs(2, 2), [0]))
    assert "is VellumForge2's; resume it first" in await refused(place, first, foreign.name)


async def test_sessions_of_two_ledgers_are_not_merged(place: Place, tmp_path: Path) -> None:
    first = await place.session(slice(1))
    second = await place.session(slice(1), output__ledger=f"sqlite:///{tmp_path / 'other.db'}")
    assert "another ledger" in await refused(place, first, second)


async def test_a_session_without_prompts_is_not_merged(place: Place) -> None:
    first = await place.session(slice(1))
    with open_session(place.config(**WARM), Progress(), text="", overridden={}, ledger="") as session:
        pass
    assert "has no prompts yet" in await refused(place, first, session.name)


async def test_without_room_for_the_answers_there_is_no_merged_session(place: Place) -> None:
    first, second = await place.session(), await place.session(**WARM)
    with no_file_larger_than(4096):
        await _merge_in_vain(place, first, second, LedgerError)
    assert (await place.merge(first, second)).complete


async def test_without_room_for_the_rows_there_is_no_merged_session(place: Place) -> None:
    async def long_winded(chat: Chat) -> Answer:
        return ROOM * "x" if chat.purpose is Purpose.REJECTED else await writing(chat)

    place.server.script = long_winded
    first, second = await place.session(slice(2)), await place.session(slice(2, 4))
    with no_file_larger_than(ROOM):
        await _merge_in_vain(place, first, second, SessionError)
    assert (await place.merge(first, second)).complete
    assert len(place.rows()) == 4


async def _merge_in_vain(place: Place, first: str, second: str, error: type[VellumforgeError]) -> None:
    names = sorted(path.name for path in place.output.iterdir())
    with pytest.raises(error, match=r"full|large|I/O"):
        await place.merge(first, second)
    left = sorted(path.name for path in place.output.iterdir())
    assert [name for name in left if not name.startswith("ledger.db-")] == names


async def test_a_record_that_is_gone_is_put_back_before_merging(place: Place) -> None:
    first, second = await place.session(), await place.session(**WARM)
    (place.output / second / "session.json").unlink()
    assert (await place.merge(first, second)).complete
    assert read_record(place.output / second) is not None

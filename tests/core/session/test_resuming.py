"""Going on with a session: the same work is let through, other work is refused with its price."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import SessionError, UsageError
from tasks.core.exchange.request import Answer
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry, ledger_url
from tasks.core.ledger.sessions import SessionRow, put_session
from tasks.core.questions import Questions
from tasks.core.rows.vellumforge2 import ForeignRow
from tasks.core.session.adoption import entries_of, pack_jobs
from tasks.core.session.record import SessionRecord, write_record
from tasks.core.session.resuming import check_resumption, find_resumption, with_seed_of
from tests.core.running import configured
from tests.core.session.test_difference import SPEED
from tests.core.session.vellumforge2 import (
    BACKUP,
    NAME,
    UUID,
    checkpoint,
    chosen_text,
    go_jobs,
    rejected_text,
    rows_of_all,
    write_session,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.session.resuming import Resumption

JOBS = go_jobs(2, 2)
OURS = str(uuid.UUID(int=7))


@dataclass
class Place:
    """A ledger and a session folder beside it."""

    output: Path
    ledger: Ledger

    def session(self, *, name: str = NAME, **record: Any) -> Resumption:
        """A session of ours, begun with the configuration of `config`."""
        settings = record.pop("before", self.config()).model_dump(mode="json", exclude_unset=True)
        folder = self.output / name
        folder.mkdir()
        write_record(folder, SessionRecord(OURS, 0.0, settings, **({"ledger": self.ledger.id} | record)))
        return find_resumption(folder)

    def config(self, **settings: Any) -> Config:
        return configured(output__folder=str(self.output), **settings)

    async def check(self, found: Resumption, *, accept_changes: bool = False, **settings: Any) -> list[str]:
        """The keys of the changes that are let through."""
        config = self.config(**settings)
        changes = await check_resumption(found, config, self.ledger, accept_changes=accept_changes)
        return [change.key for change in changes]

    async def refusal(self, found: Resumption, **settings: Any) -> list[str]:
        """The lines of the refusal."""
        with pytest.raises(UsageError) as caught:
            await self.check(found, **settings)
        return str(caught.value).splitlines()

    async def pay_for_lists(self) -> None:
        """Put the one chunk of subtopics, and the prompts of both, into the ledger."""
        questions = Questions(self.config())
        asked = [(questions.subtopics(2, "", 0), '["Fog", "Salt"]')]
        asked += [
            (questions.prompts(name, 2, (), 0), f'["{name} 1", "{name} 2"]') for name in ("Fog", "Salt")
        ]
        await self.ledger.put_all([LedgerEntry(request, Answer(content), OURS) for request, content in asked])


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(output: Path) -> AsyncIterator[Place]:
    async with await Ledger.open(ledger_url(configured(output__folder=str(output)))) as ledger:
        yield Place(output, ledger)


async def test_the_same_configuration_goes_on(place: Place) -> None:
    assert await place.check(place.session()) == []


async def test_speed_settings_are_never_a_mismatch(place: Place) -> None:
    found = place.session()
    assert await check_resumption(found, configured(**SPEED), place.ledger, accept_changes=False) == []


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("models__main__temperature", 0.1, "  models.main.temperature: 0.7 -> 0.1 (changes subtopics, "),
        (
            "prompt_templates__rejected_generation",
            "rejected {{.Prompt}} badly",
            "  prompt_templates.rejected_generation: 'rejected {{.Prompt}}' -> 'rejected {{.Prompt}} badly' ",
        ),
        ("generation__dataset_mode", "kto", "  generation.dataset_mode: 'dpo' -> 'kto' (changes pairs, "),
        ("generation__main_topic", "Tea", "  generation.main_topic: 'The sea' -> 'Tea' (changes subtopics, "),
        ("generation__num_subtopics", 1, "  generation.num_subtopics: 2 -> 1 (changes subtopics)"),
        ("generation__num_prompts_per_subtopic", 3, "  generation.num_prompts_per_subtopic: 2 -> 3 "),
    ],
)
async def test_config_mismatch_is_refused_with_what_changed_and_can_be_accepted(
    place: Place, setting: str, value: object, line: str
) -> None:
    found = place.session()
    lines = await place.refusal(found, **{setting: value})
    assert lines[0].startswith(f"session {NAME} cannot be resumed as it is: the configuration differs")
    assert lines[1].startswith(line)
    assert lines[2] == "what going on would cost:"
    assert "--accept-changes" in lines[-1]
    assert await place.check(found, accept_changes=True, **{setting: value}) == [setting.replace("__", ".")]


async def test_a_refusal_says_what_going_on_would_cost(place: Place) -> None:
    await place.pay_for_lists()
    lines = await place.refusal(place.session(), models__rejected__temperature=0.1)
    assert lines[2:-1] == [
        "what going on would cost:",
        "  subtopics: 1 calls reused, 0 to be paid for",
        "  prompts: 2 calls reused, 0 to be paid for",
        "  pairs: 0 calls reused, 8 to be paid for",
    ]


async def test_a_complete_session_is_refused(place: Place) -> None:
    [line] = await place.refusal(place.session(complete=True))
    assert line.startswith(f"session {NAME} is complete; to get more, raise num_subtopics")


async def test_a_complete_session_goes_on_when_more_is_asked_for(place: Place) -> None:
    found = place.session(complete=True)
    assert await place.check(found, generation__num_subtopics=5) == ["generation.num_subtopics"]
    lines = await place.refusal(found, generation__num_subtopics=5, models__main__top_p=0.5)
    assert [line.split(":")[0] for line in lines[1:3]] == [
        "  generation.num_subtopics",
        "  models.main.top_p",
    ]


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        # Two subtopics with two prompts each.
        ({}, {"generation__target_pairs": 5}, True),
        ({}, {"generation__target_pairs": 3}, False),
        ({"generation__target_pairs": 5}, {"generation__target_pairs": 7}, True),
        # Their first prompts would be more of each subtopic, and stand between those that there are.
        ({"generation__target_pairs": 2}, {"generation__target_pairs": 4}, False),
        # Ten pairs are divided among more of them, so that each brings fewer.
        (
            {"generation__target_pairs": 10},
            {"generation__target_pairs": 10, "generation__num_subtopics": 5},
            False,
        ),
        ({}, {"generation__target_pairs": 20, "generation__num_subtopics": 5}, False),
    ],
)
async def test_a_target_is_raised_where_the_pairs_that_there_are_keep_their_places(
    place: Place, before: dict[str, Any], after: dict[str, Any], *, goes_on: bool
) -> None:
    found = place.session(complete=True, before=place.config(**before))
    if goes_on:
        assert await place.check(found, **after) == ["generation.target_pairs"]
    else:
        lines = await place.refusal(found, **after)
        assert lines[0].endswith("the configuration differs from the one it began with")


async def test_another_ledger_is_refused(place: Place) -> None:
    found = place.session(ledger="elsewhere")
    lines = await place.refusal(found)
    assert lines[0] == f"session {NAME} has its answers in another ledger than this one"
    assert lines[1] == "what going on would cost:"
    assert await place.check(found, accept_changes=True) == []


async def test_another_ledger_is_named_beside_what_changed(place: Place) -> None:
    lines = await place.refusal(place.session(ledger="elsewhere"), generation__dataset_mode="kto")
    assert lines[1] == f"session {NAME} has its answers in another ledger than this one"
    assert lines[2].startswith("  generation.dataset_mode")


async def test_the_seed_of_a_fresh_session_is_taken_over(place: Place) -> None:
    found = place.session(before=place.config(generation__seed=4711))
    config = with_seed_of(found, place.config())
    assert config.generation.seed == 4711
    assert await check_resumption(found, config, place.ledger, accept_changes=False) == []


async def test_a_seed_that_the_configuration_names_stays_its_own(place: Place) -> None:
    found = place.session(before=place.config(generation__seed=4711))
    named = place.config(generation__seed=5)
    assert with_seed_of(found, named) == named
    assert with_seed_of(found, named, always=True).generation.seed == 4711
    [line] = [line for line in await place.refusal(found, generation__seed=5) if "seed" in line]
    assert line.startswith("  generation.seed: 4711 -> 5")


async def test_a_session_whose_settings_are_unknown_is_let_through_with_the_configuration(
    place: Place,
) -> None:
    folder = place.output / NAME
    folder.mkdir()
    write_record(folder, SessionRecord(OURS, 0.0, {"generation": {"from": "the future"}}))
    found = find_resumption(folder)
    assert found.before is None
    assert with_seed_of(found, place.config()) == place.config()
    assert await place.check(found) == []


async def test_the_cost_of_a_session_that_was_taken_over_is_that_of_its_own_jobs(place: Place) -> None:
    config, found = place.config(), place.session(adopted=True)
    for job in JOBS[:3]:
        row = ForeignRow(job.prompt, chosen_text(job), rejected_text(job))
        await place.ledger.put_all(entries_of(config, Questions(config), job, row, OURS))
    jobs = pack_jobs(sorted({job.sub_topic for job in JOBS}), JOBS)
    await put_session(place.ledger, SessionRow(OURS, NAME, "", "{}", jobs))
    lines = await place.refusal(found, models__rejected__temperature=0.1)
    assert "  pairs: 3 calls reused, 5 to be paid for" in lines
    assert not any("subtopics:" in line or "prompts:" in line for line in lines)


@pytest.mark.parametrize("complete", [True, False])
async def test_jobs_that_were_taken_over_do_not_become_more(place: Place, *, complete: bool) -> None:
    lines = await place.refusal(place.session(adopted=True, complete=complete), generation__num_subtopics=9)
    assert "its subtopics and prompts were taken over: a resume keeps them and asks for no others" in lines


async def test_checkpoint_not_found_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(SessionError, match=f"session {NAME} has neither a record nor a checkpoint"):
        find_resumption(tmp_path / NAME)


async def test_a_session_of_vellumforge2_is_found_with_its_own_configuration(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(go_jobs(), range(20)), rows_of_all("dpo", go_jobs()[:24]))
    found = find_resumption(folder)
    assert (found.foreign, found.done) == (True, 20)
    assert (found.record.id, found.record.ledger, found.record.complete) == (UUID, "", False)
    assert found.before is not None
    generation = found.before.generation
    assert (generation.num_subtopics, generation.dataset_mode) == (8, "dpo")
    async with opened(tmp_path) as place:
        goes_on = check_resumption(found, found.before, place.ledger, accept_changes=False)
        assert await goes_on == []
        lines = await place.refusal(found)
    assert any(line.startswith("  generation.num_subtopics: 8 -> 2") for line in lines)
    assert not any("would cost" in line for line in lines)


async def test_a_complete_session_of_vellumforge2_is_refused(place: Place) -> None:
    jobs = go_jobs()
    folder = write_session(place.output, checkpoint(jobs, range(40), phase="complete"))
    found = find_resumption(folder)
    assert found.before is not None
    with pytest.raises(UsageError, match="is complete; to get more, run without resuming"):
        await check_resumption(found, found.before, place.ledger, accept_changes=False)


@pytest.mark.parametrize("backup", [None, b"\xff\xfe", b"[generation", BACKUP.replace("dpo", "opd").encode()])
async def test_without_a_usable_backup_the_settings_are_unknown(tmp_path: Path, backup: bytes | None) -> None:
    folder = write_session(tmp_path, checkpoint(go_jobs(), range(20)))
    (folder / "config.toml.bak").unlink()
    if backup is not None:
        (folder / "config.toml.bak").write_bytes(backup)
    found = find_resumption(folder)
    assert (found.before, found.foreign, found.record.settings) == (None, True, {})


@pytest.mark.parametrize("content", [b"", b'{"completed_job_ids": {"0": tr'])
async def test_a_torn_checkpoint_of_ours_does_not_hinder_a_resume(place: Place, content: bytes) -> None:
    folder = place.session().folder
    (folder / "checkpoint.json").write_bytes(content)
    found = find_resumption(folder)
    assert (found.done, found.foreign) == (0, False)
    assert await place.check(found) == []


async def test_a_damaged_checkpoint_of_vellumforge2_is_an_error(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(go_jobs(), range(20)))
    (folder / "checkpoint.json").write_bytes(b'{"session_id": ')
    with pytest.raises(SessionError, match="is damaged: it is not JSON"):
        find_resumption(folder)

"""What the specification claims besides: "Key Features", "Performance Impact", "Migration Notes"."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tasks.core.models import Job, Phase
from tasks.core.progress import Progress
from tasks.core.session.checkpoint import CheckpointState, CheckpointWriter
from tasks.core.session.session import open_session
from tests.core.running import PATIENCE, configured
from tests.core.session.vellumforge2 import checkpoint, go_jobs, go_json
from tests.flows.specification.story import JOBS, SUBTOPICS, checkpoint_of, dataset_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, User
    from tests.flows.specification.story import Story

INTERVAL = 10
PENDING = 10
"""Writes that VellumForge2's buffer holds before it falls back to a synchronous one."""


def writer_of(path: Path, jobs: list[Job]) -> CheckpointWriter:
    state = CheckpointState("id", "hash", started=0.0, phase=Phase.PAIRS, jobs=jobs, subtopics=["Tides"])
    return CheckpointWriter(path, state, enabled=True, interval=INTERVAL)


def written(folder: Path) -> bool:
    return (folder / "checkpoint.json").exists()


async def test_async_writes_for_job_completions_every_n_jobs(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "checkpoint.json", go_jobs())
    for job_id in range(INTERVAL - 1):
        writer.completed(job_id)
    for _ in range(100):
        await asyncio.sleep(0)  # so that a writer in the background has its turns
    assert not written(tmp_path)
    writer.completed(INTERVAL - 1)
    assert not written(tmp_path), "the caller waits for no write"
    async with asyncio.timeout(PATIENCE):
        while not written(tmp_path):  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.001)
    assert len(checkpoint_of(tmp_path)["completed_job_ids"]) == INTERVAL
    writer.close()


async def test_buffered_writes_never_make_a_job_wait(tmp_path: Path) -> None:
    """There is no buffer to be full: the newest state alone is kept, and the next write takes it."""
    jobs = go_jobs(40, 10 * PENDING)
    writer = writer_of(tmp_path / "checkpoint.json", jobs)
    for job in jobs:  # without a pause, so that no write can even begin
        writer.completed(job.id)
    assert not written(tmp_path)
    await writer.save()
    writer.close()
    assert len(checkpoint_of(tmp_path)["completed_job_ids"]) == len(jobs) == 400 * PENDING


async def test_synchronous_writes_for_phase_transitions(tmp_path: Path) -> None:
    config = configured(output__folder=str(tmp_path), generation__enable_checkpointing=True)
    with open_session(config, Progress(), text="", overridden={}, ledger="ledger") as session:
        for phase in (Phase.PROMPTS, Phase.PAIRS):
            await session.enter(phase)
            assert checkpoint_of(session.folder)["current_phase"] == str(phase)
        await session.finish(complete=True)
        assert checkpoint_of(session.folder)["current_phase"] == "complete"


def test_phase_1_is_saved_when_all_subtopics_are_generated(story: Story) -> None:
    """The first calls for prompts were in flight when this checkpoint stood there."""
    saved = story.in_prompts.running
    assert (saved["current_phase"], saved["subtopics_complete"]) == ("prompts", True)
    assert len(saved["subtopics"]) == SUBTOPICS
    assert (saved["prompts_complete"], saved["prompts"]) == (False, None)


def test_phase_2_is_saved_when_all_prompts_are_generated(story: Story) -> None:
    """The first calls for pairs were in flight; the ten jobs of an interval were not done."""
    saved = story.in_pairs.running
    assert (saved["current_phase"], saved["prompts_complete"]) == ("pairs", True)
    assert [prompt["ID"] for prompt in saved["prompts"]] == list(range(JOBS))
    assert saved["completed_job_ids"] == {}


def test_phase_4_is_saved_at_the_end(undisturbed: Path) -> None:
    saved = checkpoint_of(undisturbed)
    assert saved["current_phase"] == "complete"
    assert saved["completed_job_ids"] == {str(job_id): True for job_id in range(JOBS)}


def test_resume_skips_completed_phases_and_filters_pending_jobs(
    story: Story, resumed: tuple[User, Ended, list[str]]
) -> None:
    _, ended, asked = resumed
    assert asked == ["prose"] * story.missing
    assert ended.summary["paid"] == story.missing


def test_resume_restores_cumulative_statistics(
    story: Story, resumed: tuple[User, Ended, list[str]], undisturbed: Path
) -> None:
    first = story.in_prompts.running
    last = checkpoint_of(resumed[0].folder / "output" / story.name)
    for name in ("session_id", "created_at", "config_hash"):
        assert last[name] == first[name]
    stats = last["stats"]
    assert (stats["TotalPrompts"], stats["SuccessCount"], stats["FailureCount"]) == (JOBS, JOBS, 0)
    assert stats["StartTime"] == first["stats"]["StartTime"]
    # The interrupted parts count too: they waited for slow answers, as the undisturbed run did not.
    assert stats["TotalDuration"] > checkpoint_of(undisturbed)["stats"]["TotalDuration"]
    assert stats["AverageDuration"] == stats["TotalDuration"] // JOBS


def test_resume_appends_to_the_existing_dataset(story: Story, resumed: tuple[User, Ended, list[str]]) -> None:
    """The rows that were there stay as they were, and the others stand where an undisturbed run has them."""
    before = dataset_of(story.session).splitlines()
    after = dataset_of(resumed[0].folder / "output" / story.name).splitlines()
    assert 0 < len(before) < len(after) == JOBS
    assert before == [row for row in after if row in before]


def test_storage_overhead_of_finished_jobs_is_small() -> None:
    """At most 18 bytes for each, 18 KB for 1,000; the jobs themselves stand in VellumForge2's file too."""
    jobs = go_jobs(40, 25)
    state = CheckpointState("id", "hash", started=0.0, phase=Phase.PAIRS, jobs=jobs, subtopics=["Tides"])
    nothing_done = len(b"".join(state.render(0.0)))
    state.completed = [job.id for job in jobs]
    whole = b"".join(state.render(0.0))
    all_done = len(whole)
    assert all_done - nothing_done <= 18 * len(jobs)
    theirs = json.loads(whole) | {"prompts": checkpoint(jobs, [])["prompts"]}
    assert all_done <= len(go_json(theirs, indent=2).encode())


def test_storage_is_a_single_file_a_session(story: Story) -> None:
    files = [path.name for path in story.session.iterdir() if "checkpoint" in path.name]
    assert files == ["checkpoint.json"]


async def test_migration_checkpointing_is_opt_in(tmp_path: Path) -> None:
    config = configured(output__folder=str(tmp_path))
    assert not config.generation.enable_checkpointing
    with open_session(config, Progress(), text="", overridden={}, ledger="the ledger") as session:
        for job_id in range(3 * INTERVAL):
            session.keep(Job(job_id, "The sea", "Tides", f"p{job_id}"), None)
            await asyncio.sleep(0)
        await session.enter(Phase.PAIRS)
        await session.finish(complete=True)
    assert not written(session.folder)

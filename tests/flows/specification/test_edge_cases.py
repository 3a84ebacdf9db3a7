"""The rows of the specification's "Edge Cases Handled", by their numbers."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

from tasks.core.models import Phase
from tasks.core.session.checkpoint import CheckpointState, CheckpointWriter
from tests.core.session.full_disk import no_file_larger_than
from tests.core.session.vellumforge2 import go_jobs
from tests.flows.command import rows_of
from tests.flows.specification.story import CALLS, JOBS, LISTS, checkpoint_of, dataset_of, vellumforge2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from tests.flows.command import Ended, Model, User
    from tests.flows.specification.story import Story

MANY = go_jobs(40, 25)


def writer_of(path: Path, *, interval: int = 1) -> CheckpointWriter:
    state = CheckpointState("id", "hash", started=0.0, phase=Phase.PAIRS, jobs=MANY, subtopics=["Tides"])
    return CheckpointWriter(path, state, enabled=True, interval=interval)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_edge_case_1_config_mismatch_is_refused(story: Story, server: Model) -> None:
    """By the settings themselves and not by a hash, so that it can be said which of them differ."""
    server.start()
    before = contents(story.session)
    story.user.write("other.toml", story.config.replace("Lighthouse keepers & the sea", "Tea"))
    refused = vellumforge2(story.user, "checkpoint", "resume", story.name, "--config", "other.toml")
    assert (refused.code, refused.out) == (2, "")
    assert "the configuration differs from the one it began with" in refused.err
    assert "generation.main_topic: 'Lighthouse keepers & the sea' -> 'Tea'" in refused.err
    assert contents(story.session) == before
    assert server.requests() == []


def test_edge_case_2_incomplete_phases_leave_no_half_phase_and_lose_no_call(story: Story) -> None:
    """The checkpoint stays at the boundary; the calls paid for behind it are used all the same."""
    stopped = story.in_prompts.stopped
    assert (stopped["current_phase"], stopped["prompts"]) == ("prompts", None)
    assert stopped["prompts_complete"] is False
    assert story.in_prompts.asked in range(2, LISTS)
    assert story.asked_twice == []
    assert story.in_pairs.stopped["subtopics"] == stopped["subtopics"]


async def test_edge_case_3_corrupted_checkpoint_cannot_come_about(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    writer = writer_of(path)
    await writer.save()
    found: list[int] = []
    over = threading.Event()

    def read_all_the_time() -> None:
        while not over.is_set():
            found.append(len(json.loads(path.read_bytes())["prompts"]))

    reader = threading.Thread(target=read_all_the_time)
    reader.start()
    try:
        for job in MANY[:200]:
            writer.completed(job.id)
            await writer.save()
    finally:
        over.set()
        reader.join()
        writer.close()
    assert set(found) == {len(MANY)}
    assert list(contents(tmp_path)) == ["checkpoint.json"]


def test_edge_case_3_corrupted_checkpoint_from_elsewhere_is_written_anew(
    story: Story, resumed_with: Mapping[str, tuple[User, Ended]], undisturbed: Path
) -> None:
    user, ended = resumed_with["torn files"]
    assert (ended.code, ended.summary["paid"]) == (0, story.missing), ended.err
    (session,) = user.sessions()
    assert checkpoint_of(session)["current_phase"] == "complete"
    assert dataset_of(session) == dataset_of(undisturbed)


async def test_edge_case_4_disk_full_logs_a_warning_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the checkpoint: where answers cannot be kept either, the run stops paying for more."""
    path = tmp_path / "checkpoint.json"
    writer = writer_of(path)
    await writer.save()
    whole = path.read_bytes()
    with no_file_larger_than(len(whole)):
        for job in MANY[:3]:
            writer.completed(job.id)
            await writer.save()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{path} cannot be written: File too large; going on without it")
    ]
    assert contents(tmp_path) == {"checkpoint.json": whole}
    await writer.save()
    writer.close()
    assert checkpoint_of(tmp_path)["completed_job_ids"] == {"0": True, "1": True, "2": True}


def test_edge_case_4_a_run_whose_checkpoint_cannot_be_written_makes_its_dataset(
    story: Story, resumed_with: Mapping[str, tuple[User, Ended]], undisturbed: Path
) -> None:
    user, ended = resumed_with["no room for the checkpoint"]
    assert (ended.code, ended.summary["paid"]) == (0, story.missing), ended.err
    (session,) = user.sessions()
    assert dataset_of(session) == dataset_of(undisturbed)
    said = " ".join(ended.err.split())
    assert said.count("going on without it") == 1
    assert "WARNING" in said


async def test_edge_case_5_concurrent_writes_end_on_the_newest_state(tmp_path: Path) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        writer = writer_of(folder / "checkpoint.json")

        async def finish(job_id: int, writer: CheckpointWriter = writer) -> None:
            writer.completed(job_id)
            await writer.save()

        await asyncio.gather(*(finish(job.id) for job in MANY[: 20 + attempt]))
        writer.close()
        assert len(checkpoint_of(folder)["completed_job_ids"]) == 20 + attempt


async def test_edge_case_6_buffer_overflow_loses_no_finished_job(tmp_path: Path) -> None:
    """Nothing overflows, nor falls back: while a write is under way the newest state waits for the next."""
    writer = writer_of(tmp_path / "checkpoint.json")
    saving = asyncio.create_task(writer.save())
    await asyncio.sleep(0)
    for job in MANY:
        writer.completed(job.id)
    assert not saving.done(), "a thousand jobs were done during one write"
    await saving
    await writer.save()
    writer.close()
    assert len(checkpoint_of(tmp_path)["completed_job_ids"]) == len(MANY)


def test_edge_case_7_graceful_shutdown_writes_what_waited(story: Story) -> None:
    """Fewer jobs were done than an interval has: without a last write none of them would be listed."""
    stopped, rows = story.in_pairs.stopped, rows_of(story.session)
    prompts = {str(prompt["ID"]): prompt["Prompt"] for prompt in stopped["prompts"]}
    assert 0 < len(rows) < 10
    assert {prompts[job_id] for job_id in stopped["completed_job_ids"]} == {row["prompt"] for row in rows}
    assert stopped["stats"]["SuccessCount"] == len(rows)


def test_edge_case_7_graceful_shutdown_keeps_the_calls_in_flight(story: Story) -> None:
    """Every call that was asked for became an answer in the dataset, or waits in the ledger for its job."""
    done = len(rows_of(story.session))
    assert LISTS + 2 * done <= story.in_pairs.asked < CALLS
    assert story.missing == CALLS - story.in_pairs.asked


def test_edge_case_8_complete_checkpoint_cannot_be_resumed(
    story: Story, resumed: tuple[User, Ended, list[str]], server: Model
) -> None:
    user, _, _ = resumed
    (session,) = user.sessions()
    before = contents(session)
    server.start()
    refused = vellumforge2(user, "checkpoint", "resume", story.name)
    assert (refused.code, refused.out) == (2, "")
    assert f"session {story.name} is complete" in refused.err
    assert contents(session) == before
    assert len(rows_of(session)) == JOBS
    assert server.requests() == []

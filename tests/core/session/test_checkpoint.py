"""`checkpoint.json`: VellumForge2's form to the letter; a cheap writer that ends on the newest state."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.models import Job, Phase
from tasks.core.session.checkpoint import CheckpointState, CheckpointWriter, config_hash, rfc3339
from tests.core.running import PATIENCE, configured

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "Lighthouse keepers & the sea"
STARTED = 1_795_407_867.25
SESSION = "d05c534e-587e-45d5-a314-d63b2ab337f7"

# Written by hand in the form of a session that VellumForge2 finished.
COMPLETE = """\
{
  "session_id": "d05c534e-587e-45d5-a314-d63b2ab337f7",
  "created_at": "2026-11-23T04:24:27.250000Z",
  "last_saved_at": "2026-11-23T04:24:37.000000Z",
  "current_phase": "complete",
  "subtopics_complete": true,
  "subtopics": [
    "Fog & salt",
    "Größe"
  ],
  "prompts_complete": true,
  "prompts": [
    {
      "ID": 0,
      "MainTopic": "Lighthouse keepers & the sea",
      "SubTopic": "Fog & salt",
      "Prompt": "What does \\"fog\\" sound like?"
    },
    {
      "ID": 2,
      "MainTopic": "Lighthouse keepers & the sea",
      "SubTopic": "Größe",
      "Prompt": "How tall?"
    }
  ],
  "failed_subtopics": null,
  "prompt_success_rate": 1.0,
  "completed_job_ids": {
    "2": true,
    "0": true
  },
  "stats": {
    "StartTime": "2026-11-23T04:24:27.250000Z",
    "EndTime": "2026-11-23T04:24:36.750000Z",
    "TotalPrompts": 2,
    "SuccessCount": 1,
    "FailureCount": 3,
    "FilteredCount": 1,
    "TotalDuration": 9500000000,
    "AverageDuration": 9500000000
  },
  "config_hash": "3d4c75ec61d2d7db"
}"""


def complete() -> CheckpointState:
    return CheckpointState(
        SESSION,
        "3d4c75ec61d2d7db",
        started=STARTED,
        ended=STARTED + 9.5,
        phase=Phase.COMPLETE,
        subtopics=("Fog & salt", "Größe"),
        jobs=[
            Job(0, TOPIC, "Fog & salt", 'What does "fog" sound like?'),
            Job(2, TOPIC, "Größe", "How tall?"),
        ],
        prompt_success_rate=1.0,
        completed=[2, 0],
        failures=3,
        filtered=1,
    )


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def until_written(path: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while path.name not in names(path.parent):  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.001)


def new_state(**changes: Any) -> CheckpointState:
    return CheckpointState(SESSION, "0" * 16, started=STARTED, **changes)


def test_a_finished_session_is_written_as_vellumforge2_writes_it() -> None:
    state = complete()
    assert b"".join(state.render(STARTED + 9.75)).decode() == COMPLETE
    assert b"".join(state.render(STARTED + 9.75, state.fixed_part())).decode() == COMPLETE


@pytest.mark.parametrize(
    ("phase", "subtopics", "jobs", "expected"),
    [
        (Phase.SUBTOPICS, (), (), (False, None, False, None)),
        (Phase.PROMPTS, ("a", "b"), (), (True, ["a", "b"], False, None)),
        (
            Phase.PAIRS,
            ("a",),
            (Job(0, "m", "a", "p"),),
            (True, ["a"], True, [{"ID": 0, "MainTopic": "m", "SubTopic": "a", "Prompt": "p"}]),
        ),
    ],
)
def test_a_session_that_is_worked_on_says_how_far_it_is(
    phase: Phase, subtopics: tuple[str, ...], jobs: tuple[Job, ...], expected: tuple[Any, ...]
) -> None:
    state = new_state(phase=phase, subtopics=subtopics, jobs=jobs, failed_subtopics=["x"])
    document = json.loads(b"".join(state.render(STARTED)))
    parts = ("subtopics_complete", "subtopics", "prompts_complete", "prompts")
    assert tuple(document[part] for part in parts) == expected
    assert document["current_phase"] == str(phase)
    assert document["failed_subtopics"] == ["x"]
    assert document["completed_job_ids"] == {}
    assert document["stats"] == {
        "StartTime": "2026-11-23T04:24:27.250000Z",
        "EndTime": "0001-01-01T00:00:00Z",
        "TotalPrompts": len(jobs),
        "SuccessCount": 0,
        "FailureCount": 0,
        "FilteredCount": 0,
        "TotalDuration": 0,
        "AverageDuration": 0,
    }
    assert list(document) == list(json.loads(COMPLETE))


def test_without_a_finished_job_there_is_no_average() -> None:
    stats = json.loads(b"".join(new_state(ended=STARTED + 2, completed=[4], filtered=1).render(STARTED)))[
        "stats"
    ]
    assert (stats["SuccessCount"], stats["TotalDuration"], stats["AverageDuration"]) == (0, 2 * 10**9, 0)


@pytest.mark.parametrize(
    ("subtopics", "prompts", "expected"), [(4, 3, "3d4c75ec61d2d7db"), (8, 5, "87c06cb5f6a749c5")]
)
def test_the_hash_of_the_configuration_is_vellumforge2s(subtopics: int, prompts: int, expected: str) -> None:
    counts = {"num_subtopics": subtopics, "num_prompts_per_subtopic": prompts}
    assert config_hash(configured(generation={"main_topic": TOPIC, **counts})) == expected
    # Three settings and no other.
    other = configured(generation={"main_topic": TOPIC, **counts, "dataset_mode": "kto", "seed": 4})
    assert config_hash(other) == expected
    assert config_hash(configured(generation={"main_topic": TOPIC + " ", **counts})) != expected


def test_times_are_utc_with_microseconds() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(STARTED) == "2026-11-23T04:24:27.250000Z"


async def test_the_newest_state_always_lands_last(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    for _ in range(20):
        writer = CheckpointWriter(path, new_state(phase=Phase.PAIRS), enabled=True, interval=1)
        for job_id in range(50):
            writer.completed(job_id)
            if job_id % 7 == 0:
                await asyncio.sleep(0)  # so that a write is under way
        writer.state.phase = Phase.COMPLETE
        await writer.save()
        writer.close()
        document = read(path)
        assert document["current_phase"] == "complete"
        assert len(document["completed_job_ids"]) == 50
    await asyncio.sleep(0)
    assert read(path) == document
    assert names(tmp_path) == ["checkpoint.json"]


async def test_finished_jobs_are_written_in_the_background(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    writer = CheckpointWriter(path, new_state(), enabled=True, interval=3)
    writer.completed(0)
    writer.completed(1)
    await asyncio.sleep(0)
    assert not path.exists()
    writer.completed(2)
    await until_written(path)
    assert read(path)["completed_job_ids"] == {"0": True, "1": True, "2": True}
    writer.close()


async def test_ten_thousand_jobs_are_written_a_small_number_of_times(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    jobs = [Job(place, "m", "s", f"prompt {place}") for place in range(10_000)]
    writer = CheckpointWriter(path, new_state(phase=Phase.PAIRS, jobs=jobs), enabled=True, interval=10)
    versions: set[tuple[int, int]] = set()
    for job in jobs:
        writer.completed(job.id)
        await (until_written(path) if job.id == 10 else asyncio.sleep(0))
        if job.id >= 10 and (version := (path.stat().st_ino, path.stat().st_mtime_ns)) not in versions:
            versions.add(version)
            # Whenever it is looked at, it is whole.
            assert len(read(path)["prompts"]) == 10_000
    await writer.save()
    writer.close()
    assert len(read(path)["completed_job_ids"]) == 10_000
    # Each of the 1,000 wakes would be a write, if the writer did not rest.
    assert 1 <= len(versions) <= 100


async def test_the_writer_rests_a_hundred_times_as_long_as_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    pause = asyncio.sleep

    async def noted(seconds: float) -> None:
        rests.append(seconds)
        await pause(0)

    monkeypatch.setattr("asyncio.sleep", noted)
    writer = CheckpointWriter(tmp_path / "checkpoint.json", new_state(), enabled=True, interval=1)
    for job_id in range(3):
        before = writer.seconds
        writer.completed(job_id)
        async with asyncio.timeout(PATIENCE):
            while len(rests) == job_id:
                await pause(0.001)
        assert rests[job_id] == pytest.approx(99 * (writer.seconds - before))
    writer.close()


async def test_the_newest_state_lands_last_although_an_earlier_write_was_cancelled(tmp_path: Path) -> None:
    path, disk = tmp_path / "checkpoint.json", threading.Event()
    writer = CheckpointWriter(path, new_state(phase=Phase.PROMPTS), enabled=True, interval=1)
    writer._thread.submit(disk.wait)  # a disk that is slow
    writer.completed(0)
    earlier = asyncio.create_task(writer.save())
    await asyncio.sleep(0)
    earlier.cancel()
    writer.state.phase = Phase.COMPLETE
    last = asyncio.create_task(writer.save())
    await asyncio.sleep(0)
    disk.set()
    await last
    writer.close()
    assert read(path)["current_phase"] == "complete"
    assert names(tmp_path) == ["checkpoint.json"]


async def test_nothing_is_written_any_more_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    for job_id in range(20):
        writer = CheckpointWriter(path, new_state(), enabled=True, interval=1)
        writer.completed(job_id)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # by now the write is under way, or about to be
        writer.close()
        assert [name for name in names(tmp_path) if name != path.name] == []
        before = path.read_bytes() if path.exists() else b""
        await asyncio.sleep(0.002)
        assert (path.read_bytes() if path.exists() else b"") == before


async def test_subtopics_and_prompts_are_rendered_again_when_their_phase_is_over(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    writer = CheckpointWriter(path, new_state(), enabled=True, interval=1)
    await writer.save()
    assert read(path)["subtopics"] is None
    writer.state.subtopics, writer.state.phase = ("a",), Phase.PROMPTS
    await writer.save()
    assert (read(path)["subtopics"], read(path)["prompts"]) == (["a"], None)
    writer.state.jobs, writer.state.phase = [Job(0, "m", "a", "p")], Phase.PAIRS
    await writer.save()
    assert len(read(path)["prompts"]) == 1


async def test_a_resume_writes_nothing_until_it_has_found_as_many_jobs_as_were_done(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    path.write_bytes(b"that of the run before, with five jobs")
    writer = CheckpointWriter(path, new_state(phase=Phase.PAIRS), enabled=True, interval=1, floor=5)
    for job_id in range(4):
        writer.completed(job_id)
        for _ in range(5):
            await asyncio.sleep(0)  # so that the writer in the background has its turn
        await writer.save()  # which waits for it
        assert path.read_bytes() == b"that of the run before, with five jobs"
    writer.completed(4)
    await writer.save()
    writer.close()
    assert len(read(path)["completed_job_ids"]) == 5


async def test_a_session_that_ends_with_fewer_jobs_than_before_says_so(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    path.write_bytes(b"that of the run before")
    writer = CheckpointWriter(path, new_state(phase=Phase.PAIRS), enabled=True, interval=10, floor=5)
    writer.completed(0)
    writer.state.phase = Phase.COMPLETE
    await writer.save()
    assert read(path)["completed_job_ids"] == {"0": True}


def test_the_time_of_earlier_runs_counts_and_the_pause_between_them_does_not() -> None:
    state = new_state(seconds_before=100.0, resumed=STARTED + 5000, ended=STARTED + 5010, completed=[1, 2])
    stats = json.loads(b"".join(state.render(STARTED)))["stats"]
    assert stats["StartTime"] == rfc3339(STARTED)
    assert (stats["TotalDuration"], stats["AverageDuration"]) == (110 * 10**9, 55 * 10**9)


async def test_a_disabled_writer_writes_nothing(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "checkpoint.json", new_state(), enabled=False, interval=1)
    for job_id in range(20):
        writer.completed(job_id)
        await asyncio.sleep(0)
    await writer.save()
    writer.close()
    assert names(tmp_path) == []
    assert writer.state.completed == list(range(20))


async def test_a_checkpoint_that_cannot_be_written_warns_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gone" / "checkpoint.json"
    writer = CheckpointWriter(path, new_state(), enabled=True, interval=1)
    for job_id in range(3):
        writer.completed(job_id)
        await writer.save()
    warning = f"{path} cannot be written: No such file or directory; going on without it"
    assert [record.getMessage() for record in caplog.records] == [warning]
    path.parent.mkdir()
    await writer.save()
    writer.close()
    assert len(read(path)["completed_job_ids"]) == 3

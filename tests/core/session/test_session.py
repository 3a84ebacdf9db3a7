"""An open session: what is kept stands in its files, once, whatever happens."""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from tasks.core.errors import SessionError
from tasks.core.models import Pair, Phase, Text
from tasks.core.progress import Progress
from tasks.core.session import session as module
from tasks.core.session.folder import SessionLockedError
from tasks.core.session.record import read_record, settings_of, write_record
from tasks.core.session.resuming import find_resumption
from tasks.core.session.session import open_session
from tests.core.running import configured, some_jobs
from tests.core.session.full_disk import no_file_larger_than

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.models import Job
    from tasks.core.session.resuming import Resumption
    from tasks.core.session.session import Session

JOBS = some_jobs(4)
OPTIONS: dict[str, Any] = {"generation__enable_checkpointing": True}


def config_for(folder: Path, **options: Any) -> Config:
    return configured(output__folder=str(folder / "output"), **OPTIONS, **options)


def opened(
    config: Config, progress: Progress | None = None, text: str = "", resumption: Resumption | None = None
) -> AbstractContextManager[Session]:
    return open_session(
        config,
        progress or Progress(),
        text=text,
        overridden={},
        ledger="the ledger",
        flow_run="the flow run",
        resumption=resumption,
    )


def pair_of(job: Job, chosen: str = "yes") -> Pair:
    return Pair(job, Text(f"{chosen} {job.id}", reasoning="why"), Text("no"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def checkpoint(session: Session) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((session.folder / "checkpoint.json").read_bytes())
    return document


@pytest.fixture(autouse=True)
def no_handler_is_left() -> Iterator[None]:
    before = list(logging.getLogger("vellumforge").handlers)
    yield
    assert logging.getLogger("vellumforge").handlers == before


async def test_a_session_has_its_files_and_its_rows_in_order(tmp_path: Path) -> None:
    progress = Progress()
    with opened(config_for(tmp_path), progress, text="# mine\r\n") as session:
        for job in reversed(JOBS):
            session.keep(job, pair_of(job))
        session.checkpoint.state.jobs = JOBS
        await session.enter(Phase.PAIRS)
        logging.getLogger("vellumforge.tests").info("almost done")
        await session.finish(complete=True)
    assert session.folder.parent == tmp_path / "output"
    assert session.name == session.folder.name
    datetime.strptime(session.name, "session_%Y-%m-%dT%H-%M-%S").astimezone()
    assert sorted(path.name for path in session.folder.iterdir()) == [
        ".lock",
        "checkpoint.json",
        "config.toml.bak",
        "dataset.jsonl",
        "session.json",
        "session.log",
    ]
    assert rows(session.folder / "dataset.jsonl") == [
        {"prompt": job.prompt, "chosen": f"yes {job.id}", "rejected": "no"} for job in JOBS
    ]
    assert progress.rows == 4
    assert (session.folder / "config.toml.bak").read_bytes() == b"# mine\r\n"
    assert [record["message"] for record in rows(session.folder / "session.log")] == ["almost done"]
    document = checkpoint(session)
    assert (document["session_id"], document["current_phase"]) == (session.record.id, "complete")
    assert document["completed_job_ids"] == dict.fromkeys("3210", True)
    assert document["stats"]["EndTime"] > document["stats"]["StartTime"]


async def test_a_job_that_is_kept_twice_is_there_once(tmp_path: Path) -> None:
    progress = Progress()
    with opened(config_for(tmp_path), progress) as session:
        session.keep(JOBS[0], pair_of(JOBS[0]))
        session.keep(JOBS[0], pair_of(JOBS[0], "another"))
        session.keep(JOBS[0], None)
        session.keep(JOBS[1], None)
        session.keep(JOBS[1], pair_of(JOBS[1]))
        await session.finish(complete=True)
    assert [row["chosen"] for row in rows(session.dataset.path)] == ["yes 0"]
    assert (progress.rows, session.dataset.jobs) == (1, 1)
    assert checkpoint(session)["completed_job_ids"] == {"0": True, "1": True}


async def test_filtered_jobs_are_done_without_a_row(tmp_path: Path) -> None:
    with opened(config_for(tmp_path)) as session:
        session.keep(JOBS[2], None)
        session.keep(JOBS[1], pair_of(JOBS[1]))
        await session.finish(complete=True)
    assert len(rows(session.dataset.path)) == 1
    document = checkpoint(session)
    assert document["completed_job_ids"] == {"2": True, "1": True}
    assert (document["stats"]["SuccessCount"], document["stats"]["FilteredCount"]) == (1, 1)


async def test_a_session_that_is_not_complete_can_be_resumed(tmp_path: Path) -> None:
    with opened(config_for(tmp_path)) as session:
        await session.enter(Phase.PAIRS)
        session.keep(JOBS[2], pair_of(JOBS[2]))
        session.keep(JOBS[1], pair_of(JOBS[1]))
        await session.finish(complete=False)
    assert [row["prompt"] for row in rows(session.dataset.path)] == ["p1", "p2"]
    document = checkpoint(session)
    assert document["current_phase"] == "pairs"
    assert document["stats"]["EndTime"] == "0001-01-01T00:00:00Z"


async def test_a_kto_pair_counts_as_two_rows(tmp_path: Path) -> None:
    progress = Progress()
    with opened(config_for(tmp_path, generation__dataset_mode="kto"), progress) as session:
        for job in JOBS:
            session.keep(job, pair_of(job))
        await session.finish(complete=True)
    assert [row["label"] for row in rows(session.dataset.path)] == [True, False] * 4
    assert (progress.rows, session.dataset.jobs) == (8, 4)


async def test_reasoning_stands_in_a_file_of_its_own_row_by_row(tmp_path: Path) -> None:
    config = config_for(tmp_path, generation__enable_reasoning_capture=True)
    with opened(config) as session:
        for job in (JOBS[3], JOBS[0]):
            session.keep(job, pair_of(job))
        session.keep(JOBS[1], None)
        await session.finish(complete=True)
    plain = rows(session.folder / "dataset.jsonl")
    reasoned = rows(session.folder / "dataset_reasoning.jsonl")
    assert [row["chosen"] for row in plain] == ["yes 0", "yes 3"]
    assert reasoned == [row | {"chosen": f"<think>\nwhy\n</think>\n\n{row['chosen']}"} for row in plain]


def test_without_checkpointing_there_is_no_checkpoint(tmp_path: Path) -> None:
    config = configured(output__folder=str(tmp_path))
    with opened(config) as session:
        for job in JOBS:
            session.keep(job, pair_of(job))
    assert not (session.folder / "checkpoint.json").exists()
    # Closed as it is, for its run was not finished.
    assert len(rows(session.folder / "dataset.jsonl")) == 4


def test_the_growing_files_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", -1.0)
    with opened(config_for(tmp_path, generation__enable_reasoning_capture=True)) as session:
        for number, job in enumerate(JOBS, 1):
            session.keep(job, pair_of(job))
            for name in ("dataset.jsonl", "dataset_reasoning.jsonl"):
                assert len(rows(session.folder / name)) == number


def test_settings_from_elsewhere_are_noted_below_the_copy_of_the_file(tmp_path: Path) -> None:
    text = '[generation]\nmain_topic = "The sea"\n\n\n'
    overridden = {"generation.main_topic": "Fog\n[models]\n#", "generation.seed": 7}
    with open_session(
        config_for(tmp_path), Progress(), text=text, overridden=overridden, ledger="the ledger"
    ) as session:
        backup = (session.folder / "config.toml.bak").read_text()
    assert backup.startswith(text.rstrip("\n"))
    assert "# generation.seed = 7\n" in backup
    assert tomli.loads(backup) == {"generation": {"main_topic": "The sea"}}


def test_two_sessions_at_once_are_apart(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    with opened(config) as one, opened(config) as other:
        assert one.folder != other.folder
        assert one.record.id != other.record.id
        one.keep(JOBS[0], pair_of(JOBS[0]))
        other.keep(JOBS[1], pair_of(JOBS[1]))
    assert [row["prompt"] for row in rows(one.dataset.path)] == ["p0"]
    assert [row["prompt"] for row in rows(other.dataset.path)] == ["p1"]


def test_an_error_inside_closes_the_files(tmp_path: Path) -> None:
    def begin_and_fail() -> None:
        with opened(config_for(tmp_path)) as session:
            session.keep(JOBS[0], pair_of(JOBS[0]))
            raise KeyError

    with pytest.raises(KeyError):
        begin_and_fail()
    (folder,) = (tmp_path / "output").iterdir()
    assert len(rows(folder / "dataset.jsonl")) == 1


@pytest.mark.parametrize("reasoning", [False, True])
async def test_a_full_disk_is_one_error_in_one_line(tmp_path: Path, *, reasoning: bool) -> None:
    config = config_for(tmp_path, generation__enable_reasoning_capture=reasoning)
    jobs = some_jobs(400)

    async def run() -> None:
        with opened(config) as session:
            try:
                for job in jobs:
                    session.keep(job, pair_of(job, "yes " * 100))
            finally:
                # As the flow does, whatever happened.
                await session.finish(complete=False)

    with no_file_larger_than(30_000), pytest.raises(SessionError) as raised:
        await run()
    message = str(raised.value)
    assert ".jsonl cannot be written: File too large" in message
    assert "every answer is in the ledger" in message
    assert "\n" not in message


def test_a_disk_that_is_full_from_the_beginning_is_the_same_error(tmp_path: Path) -> None:
    with (
        no_file_larger_than(3),
        pytest.raises(SessionError, match="cannot be written: File too large"),
        opened(config_for(tmp_path), text="# mine"),
    ):
        raise AssertionError("the session was opened")


async def test_a_session_is_recorded_from_its_first_moment_to_its_last(tmp_path: Path) -> None:
    config = config_for(tmp_path, generation__seed=7)
    before = time.time()
    with opened(config) as session:
        begun = read_record(session.folder)
        assert begun == session.record
        await session.finish(complete=True)
    assert begun is not None
    assert str(uuid.UUID(begun.id)) == begun.id
    assert before <= begun.created <= time.time()
    assert (begun.ledger, begun.flow_run, begun.complete) == ("the ledger", "the flow run", False)
    assert (begun.seconds, begun.adopted) == (0, False)
    assert settings_of(begun) == config
    ended = session.record
    assert read_record(session.folder) == ended == replace(begun, complete=True, seconds=ended.seconds)
    assert ended.seconds > 0


async def test_a_resumed_session_is_the_same_session(tmp_path: Path) -> None:
    with opened(config_for(tmp_path), text="# first") as first:
        await first.enter(Phase.PAIRS)
        first.keep(JOBS[1], pair_of(JOBS[1]))
        await first.finish(complete=False)
    config = config_for(tmp_path, generation__num_subtopics=3)
    with opened(config, text="# second", resumption=find_resumption(first.folder)) as second:
        for job in JOBS:
            second.keep(job, pair_of(job))
        await second.finish(complete=True)
    assert second.folder == first.folder
    assert [path.name for path in first.folder.parent.iterdir()] == [first.name]
    assert second.record == replace(
        first.record, settings=second.record.settings, seconds=second.record.seconds, complete=True
    )
    assert settings_of(second.record) == config
    assert second.record.seconds > first.record.seconds
    assert (second.folder / "config.toml.bak").read_text() == "# second"
    assert len(rows(second.dataset.path)) == 4
    document = checkpoint(second)
    assert document["session_id"] == first.record.id
    assert document["completed_job_ids"] == dict.fromkeys("0123", True)
    # The work of both runs, and not what lay between them.
    assert document["stats"]["TotalDuration"] >= first.record.seconds * 10**9


async def test_the_time_between_a_killed_run_and_its_resume_is_not_counted(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    with opened(config) as first:
        pass  # as a kill leaves it: never finished
    long_ago = replace(first.record, created=first.record.created - 1e6)
    write_record(first.folder, long_ago)
    with opened(config, resumption=find_resumption(first.folder)) as second:
        await second.finish(complete=True)
    stats = checkpoint(second)["stats"]
    assert stats["StartTime"] < stats["EndTime"]
    assert stats["TotalDuration"] < 1e6 * 10**9


@pytest.mark.parametrize("redone", range(3))
async def test_an_interrupted_resume_leaves_rows_and_checkpoint_as_they_were(
    tmp_path: Path, redone: int
) -> None:
    config = config_for(tmp_path, generation__checkpoint_interval=1)
    with opened(config) as first:
        await first.enter(Phase.PAIRS)
        for job in JOBS[:3]:
            first.keep(job, pair_of(job))
        await first.finish(complete=False)
    kept = {name: (first.folder / name).read_bytes() for name in ("dataset.jsonl", "checkpoint.json")}
    with opened(config, resumption=find_resumption(first.folder)) as second:
        await second.enter(Phase.PROMPTS)
        await second.enter(Phase.PAIRS)
        for job in JOBS[:redone]:
            second.keep(job, pair_of(job))
        await second.finish(complete=False)
    assert {name: (first.folder / name).read_bytes() for name in kept} == kept
    again = find_resumption(first.folder)
    assert (again.done, again.record) == (3, second.record)


def test_a_session_has_one_writer(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    with opened(config, text="# first") as first:
        first.keep(JOBS[0], pair_of(JOBS[0]))
        second = opened(config, text="# second", resumption=find_resumption(first.folder))
        with pytest.raises(SessionLockedError, match=first.name), second:
            raise AssertionError("the session was opened twice")
    # The one that was refused has touched nothing.
    assert len(rows(first.dataset.path)) == 1
    assert (first.folder / "config.toml.bak").read_text() == "# first"

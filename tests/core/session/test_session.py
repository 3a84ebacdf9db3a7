"""An open session: what is kept stands in its files, once, whatever happens."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from tasks.core.errors import SessionError
from tasks.core.models import Pair, Phase, Text
from tasks.core.progress import Progress
from tasks.core.session import session as module
from tasks.core.session.session import open_session
from tests.core.running import configured, some_jobs
from tests.core.session.full_disk import no_file_larger_than

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tasks.core.config.models import Config
    from tasks.core.models import Job
    from tasks.core.session.session import Session

JOBS = some_jobs(4)
OPTIONS: dict[str, Any] = {"generation__enable_checkpointing": True}


def config_for(folder: Path, **options: Any) -> Config:
    return configured(output__folder=str(folder / "output"), **OPTIONS, **options)


def opened(
    config: Config, progress: Progress | None = None, text: str = ""
) -> AbstractContextManager[Session]:
    return open_session(config, progress or Progress(), text=text, overridden={})


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
        "checkpoint.json",
        "config.toml.bak",
        "dataset.jsonl",
        "session.log",
    ]
    assert rows(session.folder / "dataset.jsonl") == [
        {"prompt": job.prompt, "chosen": f"yes {job.id}", "rejected": "no"} for job in JOBS
    ]
    assert progress.rows == 4
    assert (session.folder / "config.toml.bak").read_bytes() == b"# mine\r\n"
    assert [record["message"] for record in rows(session.folder / "session.log")] == ["almost done"]
    document = checkpoint(session)
    assert (document["session_id"], document["current_phase"]) == (session.id, "complete")
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
    with open_session(config_for(tmp_path), Progress(), text=text, overridden=overridden) as session:
        backup = (session.folder / "config.toml.bak").read_text()
    assert backup.startswith(text.rstrip("\n"))
    assert "# generation.seed = 7\n" in backup
    assert tomli.loads(backup) == {"generation": {"main_topic": "The sea"}}


def test_two_sessions_at_once_are_apart(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    with opened(config) as one, opened(config) as other:
        assert one.folder != other.folder
        assert one.id != other.id
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

"""A disk that is full, or read-only: the run stops paying, says so, and goes on when there is room."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.crash.disk import NoSmallDiskError, SmallDisk
from tests.crash.full import rehearse
from tests.flows.command import MODULE, PROGRAM, asked_twice, config, model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import User

SUBTOPICS, PROMPTS, CONCURRENCY = 3, 12, 2
CALLS = 1 + SUBTOPICS + 2 * SUBTOPICS * PROMPTS
INTO_PAIRS = 1 + SUBTOPICS + 6
IN_FLIGHT = 2 * CONCURRENCY
"""Calls in flight at most: two answers for each job."""
SLOW = 100.0
"""Milliseconds an answer takes where something happens in mid-run."""


def settings(url: str, more: str = "") -> str:
    return config(url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=CONCURRENCY, more=more)


@pytest.fixture
def disk(user: User) -> Iterator[SmallDisk]:
    """A small disk as the user's output folder."""
    try:
        with SmallDisk(user.folder / "output") as mounted:
            yield mounted
    except NoSmallDiskError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("with_prefect_on_it", [False, True])
def test_a_disk_full_in_mid_run_loses_the_calls_in_flight_alone(
    tmp_path: Path, prefect_url: str, *, with_prefect_on_it: bool
) -> None:
    """In mid-prompts, then in mid-pairs; the embedded server's data may be on the same disk."""
    where = {} if with_prefect_on_it else {"PREFECT_API_URL": prefect_url}
    try:
        report = rehearse("dpo", fills=2, seed=2, folder=tmp_path, **where)
    except NoSmallDiskError as error:
        pytest.skip(str(error))
    assert not report.broken(), report
    assert len(report.ends) == 2
    for ended in report.ends:
        # Whichever file of the session is written first finds the disk full.
        assert re.search(
            r"vellumforge2: (the ledger )?\S+ cannot be written: .*(disk is full|No space left on device)",
            ended.err,
        ), ended.err
        assert "vellumforge2: to go on, paying only for what is missing: " in ended.err


def test_a_dataset_that_cannot_be_written_stops_the_run_although_the_ledger_can(
    user: User, disk: SmallDisk, tmp_path: Path
) -> None:
    with model(latency_ms=SLOW) as server:
        user.write("config.toml", settings(server.url, f'[output]\nledger = "sqlite:///{tmp_path}/l.db"\n'))
        process = disk.seen_by(user).start()
        assert server.until_requests(INTO_PAIRS, process)
        disk.fill()
        ended = process.end()
        assert ended.code == 1
        reason, go_on = ended.err.splitlines()[-2:]
        assert "dataset.jsonl cannot be written: No space left on device" in reason
        assert go_on.startswith("vellumforge2: to go on, paying only for what is missing: ")
        # Rows wait in memory for a second before they are written.
        assert len(server.requests()) < CALLS - IN_FLIGHT
        disk.make_room()
        (session,) = disk.folder.glob("session_*")
        resumed = disk.seen_by(user).run("checkpoint", "resume", session.name, program=PROGRAM)
        assert resumed.code == 0, resumed.err
        assert len(server.requests()) == CALLS
        assert len((session / "dataset.jsonl").read_bytes().splitlines()) == SUBTOPICS * PROMPTS


def test_nothing_is_paid_for_where_nothing_can_be_kept(user: User, disk: SmallDisk) -> None:
    """Neither by a run nor by a resume, on a full disk and on one that is read-only."""
    user = disk.seen_by(user)
    with model(latency_ms=SLOW) as server:
        user.write("config.toml", settings(server.url))
        disk.forbid_writing()
        read_only = user.run()
        assert (read_only.code, len(read_only.err.splitlines())) == (1, 1), read_only.err
        assert "output" in read_only.err
        disk.allow_writing()
        disk.fill()
        full = user.run()
        assert (full.code, len(full.err.splitlines())) == (1, 1), full.err
        assert not server.requests()

        disk.make_room()
        process = user.start()
        assert server.until_requests(INTO_PAIRS, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        paid = len(server.requests())
        (session,) = [path for path in disk.folder.glob("session_*") if (path / "session.json").exists()]
        resume = ("checkpoint", "resume", session.name)
        for prevent, allow in ((disk.fill, disk.make_room), (disk.forbid_writing, disk.allow_writing)):
            prevent()
            refused = user.run(*resume, program=PROGRAM)
            assert (refused.code, refused.out) == (1, ""), refused.err
            assert "Traceback" not in refused.err
            allow()
        assert len(server.requests()) == paid
        assert user.run(*resume, program=PROGRAM).code == 0
        assert len(server.requests()) == CALLS


def test_where_prefect_has_no_room_the_disk_is_named(lone_user: User) -> None:
    try:
        with SmallDisk(lone_user.folder / "output") as mounted, model() as server:
            mounted.fill(1 << 19)
            lone_user.write("config.toml", settings(server.url))
            ended = mounted.seen_by(lone_user).run()
            assert not server.requests()
    except NoSmallDiskError as error:
        pytest.skip(str(error))
    home = lone_user.folder / "output" / ".prefect"
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"vellumforge2: the disk of {home} is full: ")
    assert ended.err.count("\n") == 1


def test_a_quota_stops_the_run_like_a_full_disk(user: User) -> None:
    """The largest size of a file stands in for it, so that this is tested where nothing can be mounted."""
    limited = ["sh", "-c", 'ulimit -f 200; exec "$@"', "sh", *MODULE]
    with model() as server:
        user.write("config.toml", settings(server.url))
        ended = user.run(program=limited)
        assert (ended.code, ended.out) == (1, "")
        assert "Traceback" not in ended.err
        assert "ledger.db cannot be written" in ended.err
        stopped = len(server.requests())
        assert stopped < CALLS
        (session,) = user.sessions()
        resumed = user.run("checkpoint", "resume", session.name, program=PROGRAM)
        assert resumed.code == 0, resumed.err
        assert len(asked_twice(server.requests())) <= IN_FLIGHT
        assert len((session / "dataset.jsonl").read_bytes().splitlines()) == SUBTOPICS * PROMPTS


def test_a_checkpoint_and_a_log_that_cannot_be_written_only_warn(user: User) -> None:
    with model(latency_ms=SLOW) as server:
        user.write("config.toml", settings(server.url))
        process = user.start()
        assert server.until_requests(INTO_PAIRS, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        (session,) = user.sessions()
        for name in ("checkpoint.json", "session.log"):
            (session / name).unlink()
            (session / name).mkdir()
        server.start()
        resumed = user.run("checkpoint", "resume", session.name, program=PROGRAM)
        assert resumed.code == 0, resumed.err
        said = " ".join(resumed.err.split())
        for name in ("checkpoint.json", "session.log"):
            assert f"{name} cannot be written: Is a directory; going on without it" in said
        assert len((session / "dataset.jsonl").read_bytes().splitlines()) == SUBTOPICS * PROMPTS

"""A mirrored run: what the machine loses, the store brings back; what the store does, the run survives."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.core.portable.s3 import BUCKET, MIRROR, SECRET, s3_server, variables_for
from tests.flows.command import PROGRAM, asked_twice, config, free_port, model, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.core.portable.s3 import S3
    from tests.flows.command import Ended, Model, User

JOBS = 12
CALLS = 1 + 3 + 2 * JOBS
INTO_PAIRS = 1 + 3 + 6
SLOW = 200.0
"""Milliseconds an answer takes where something is to happen meanwhile."""
OFTEN = 0.002
"""Minutes between two copies."""


def settings(server: Model, mirror: str = MIRROR, minutes: float = 5.0) -> str:
    more = f'[output]\nmirror = "{mirror}"\nmirror_minutes = {minutes}\n'
    return config(server.url, subtopics=3, prompts=4, concurrency=2, more=more)


def calls_in(s3: S3, session: Path) -> list[str]:
    """The keys of all calls in a session's mirror, one entry for each line."""
    parts = [name for name in s3.names() if f"/{session.name}/calls/" in name]
    return [json.loads(line)["key"] for name in parts for line in gzip.decompress(s3.get(name)).splitlines()]


def is_discreet(user: User, ended: Ended) -> bool:
    """Whether neither what was shown nor what was written holds the store's secret."""
    written = [path.read_bytes() for path in user.folder.rglob("*") if path.is_file()]
    return SECRET not in ended.out + ended.err and not any(SECRET.encode() in text for text in written)


@pytest.fixture
def server() -> Iterator[Model]:
    with model(latency_ms=SLOW) as started:
        yield started


def test_a_session_whose_machine_is_lost_goes_on_elsewhere(user: User, server: Model) -> None:
    user.write("config.toml", settings(server, ""))
    assert user.run().code == 0
    (undisturbed,) = user.sessions()
    expected = (undisturbed / "dataset.jsonl").read_bytes()
    shutil.rmtree(user.folder / "output")
    with s3_server() as s3:
        user.write("config.toml", settings(server))
        server.start(latency_ms=SLOW)
        process = user.start(**s3.variables)
        assert server.until_requests(INTO_PAIRS, process)
        process.send(signal.SIGINT)
        stopped = process.end()
        assert stopped.code == 130
        paid = len(server.requests())
        (session,) = user.sessions()
        assert sorted(calls_in(s3, session)) == sorted(request["key"] for request in server.requests())

        # The folder and the ledger are gone, and what Prefect knew.
        shutil.rmtree(user.folder / "output")
        shutil.rmtree(user.folder.parent / "prefect")
        words = ("checkpoint", "resume", session.name, "--json")
        ended = user.run(*words, program=PROGRAM, **s3.variables)
        assert ended.code == 0, ended.err
        assert (ended.summary["paid"], ended.summary["rows"]) == (CALLS - paid, JOBS)
        assert not asked_twice(server.requests())
        assert (session / "dataset.jsonl").read_bytes() == expected
        assert user.sessions() == [session]
        keys = calls_in(s3, session)
        assert (len(keys), len(set(keys))) == (CALLS, CALLS), "each call is uploaded once"
        prefix = f"{MIRROR.removeprefix(f's3://{BUCKET}/')}/{session.name}"
        assert s3.get(f"{prefix}/files/dataset.jsonl") == expected
        assert is_discreet(user, stopped)
        assert is_discreet(user, ended)


def test_a_store_that_dies_is_warned_about_and_nothing_more(user: User, server: Model) -> None:
    with s3_server() as s3:
        user.write("config.toml", settings(server, minutes=OFTEN))
        process = user.start(**s3.variables)
        assert server.until_requests(INTO_PAIRS, process)
    ended = process.end()
    assert ended.code == 0, ended.err
    (session,) = user.sessions()
    assert len(rows_of(session)) == JOBS
    log = (session / "session.log").read_text()
    assert "the mirror is behind the session: s3://" in log
    assert "the mirror is behind" in ended.err
    assert log.count("the mirror fails") <= 1
    assert is_discreet(user, ended)


def test_a_store_that_comes_late_has_everything_in_the_end(user: User, server: Model) -> None:
    port = free_port()
    user.write("config.toml", settings(server, minutes=OFTEN))
    process = user.start("--verbose", **variables_for(f"http://127.0.0.1:{port}"))
    process.until_said("the mirror fails")
    with s3_server(port) as s3:
        ended = process.end()
        assert ended.code == 0, ended.err
        (session,) = user.sessions()
        assert "the mirror works again" in (session / "session.log").read_text()
        keys = calls_in(s3, session)
        assert (len(keys), len(set(keys))) == (CALLS, CALLS)
    assert is_discreet(user, ended)


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        ("gs://bucket/x", "pip install 'vellumforge-flows[gcs]'"),
        ("s3://bucket/x", "pip install 'vellumforge-flows[s3]'"),
        ("nosuch://bucket/x", "nosuch:// is not known to fsspec"),
        ("file://output", "is the output folder itself"),
    ],
)
def test_a_mirror_that_cannot_be_is_refused_before_anything_is_made(
    user: User, mirror: str, words: str
) -> None:
    user.write("config.toml", settings_at_nobody(mirror))
    # As where the extras are not installed.
    without = PROGRAM[2].replace("import sys;", "import sys; sys.modules.update(s3fs=None, gcsfs=None);")
    ended = user.run("run", program=(*PROGRAM[:2], without))
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (user.folder / "output").exists()


def test_a_session_that_is_nowhere_is_one_clear_error(user: User) -> None:
    user.write("config.toml", settings_at_nobody(f"file://{user.folder}/mirror"))
    ended = user.run("--resume", "session_2026-01-31T12-00-00")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "vellumforge2: there is no session session_2026-01-31T12-00-00 in output, "
        f"and none in the mirror file://{user.folder}/mirror\n"
    )
    assert not (user.folder / "output").exists()


def settings_at_nobody(mirror: str) -> str:
    return config("http://127.0.0.1:9/v1", more=f'[output]\nmirror = "{mirror}"\n')

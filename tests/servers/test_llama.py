"""llama.cpp: ping, modes, many streams at the same time, killed and resumed."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from tests.flows.command import PROGRAM, config, rows_of, until
from tests.servers.conftest import SLOTS

if TYPE_CHECKING:
    from tests.flows.command import Ended, User


def settings(url: str, *, tokens: int = 400, streaming: bool = False, **options: object) -> str:
    """A configuration for the model of random weights, which is every model."""
    models = f"""max_output_tokens = {tokens}
context_size = 4096
max_retries = 4
max_backoff_seconds = 0.1
use_streaming = {str(streaming).lower()}"""
    # Now and then the model writes an item that is empty: others are asked for then.
    more = "over_generation_buffer = 0.5\nprompt_retry_attempts = 5"
    text = config(url, models=models, generation=more, **options)  # type: ignore[arg-type]
    for name in ("strong-writer", "weak-writer", "critic"):
        text = text.replace(f'model_name = "{name}"', 'model_name = "nonsense"')
    return text


def attempts_failed(ended: Ended) -> int:
    """The attempts that failed, by what a run with --verbose says."""
    return " ".join(ended.err.split()).count("call tried again in")


def paid(user: User) -> int:
    """The calls in the ledger, as a program finds them that opens it now.

    It is copied, for who only reads may miss what a killed writer wrote last: the log holds it, and the index
    of the log, which is left out here, does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ledger.db", "ledger.db-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(user.folder / "output" / name, folder)
        with closing(sqlite3.connect(f"{folder}/ledger.db")) as ledger:
            try:
                (count,) = ledger.execute("SELECT COUNT(*) FROM calls").fetchone()
            except sqlite3.DatabaseError:
                # It is not made yet, or was copied while it was written.
                return 0
    return int(count)


def test_ping(user: User, llama: str) -> None:
    user.write("config.toml", settings(llama))
    told = user.run("validate", "--ping", "--json", program=PROGRAM)
    assert told.code == 0, told
    (model,) = json.loads(told.out)["models"]
    ping = model["ping"]
    assert (ping["error"], ping["streaming"], ping["structure"]) == ("", "works", "json_schema")


@pytest.mark.parametrize("mode", ["dpo", "mo-dpo"])
def test_every_answer_can_be_used_and_no_attempt_fails(user: User, llama: str, mode: str) -> None:
    """Lists and scores are asked for by a schema, which the server turns into a grammar."""
    user.write("config.toml", settings(llama, mode=mode, subtopics=3, prompts=4))
    ended = user.run("run", "--json", "--verbose", program=PROGRAM)
    assert ended.code == 0, ended
    (session,) = user.sessions()
    rows = rows_of(session)
    assert (ended.summary["rows"], ended.summary["lost"]) == (12, {})
    assert all(row["prompt"] and row["chosen"] and row["rejected"] for row in rows)
    if mode == "mo-dpo":
        names = {"plot_quality", "creativity", "writing_quality"}
        for scores in (row[side] for row in rows for side in ("chosen_scores", "rejected_scores")):
            assert scores.keys() == names
            assert all(1 <= score["score"] <= 5 for score in scores.values())
    assert attempts_failed(ended) == 0, ended.err


def test_many_streams_at_the_same_time(user: User, llama: str) -> None:
    """The server closes each connection a moment after the last piece of a stream."""
    text = settings(llama, tokens=120, streaming=True, subtopics=12, prompts=8, concurrency=SLOTS // 2)
    user.write("config.toml", text)
    ended = user.run(
        "run", "--json", "--verbose", "--set", "models.main.max_output_tokens=500", program=PROGRAM
    )
    assert ended.code == 0, ended
    (session,) = user.sessions()
    assert len(rows_of(session)) == 96
    assert attempts_failed(ended) == 0, ended.err


def test_killed_and_resumed(user: User, llama: str) -> None:
    user.write("config.toml", settings(llama, subtopics=4, prompts=5, concurrency=2))
    process = user.start("run", program=PROGRAM)
    until(lambda: paid(user) >= 15 or not process.running, "fifteen calls paid for")
    process.kill(group=True)
    process.end()
    (session,) = user.sessions()
    before = paid(user)
    kept = rows_of(session)
    resumed = user.run("checkpoint", "resume", session.name, "--json", program=PROGRAM)
    assert resumed.code == 0, resumed
    rows = rows_of(session)
    assert (len(rows), len({row["prompt"] for row in rows})) == (20, 20)
    assert all(row in rows for row in kept)
    assert resumed.summary["reused"] >= before
    assert paid(user) == before + resumed.summary["paid"]

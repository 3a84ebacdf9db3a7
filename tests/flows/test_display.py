"""The line of progress; and streams that are full, closed, or take ASCII alone."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from flows.process.progress import describe
from tasks.core.models import Phase
from tasks.core.progress import Progress
from tests.flows.command import PROGRAM, config, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Model, User

FULL, CLOSED = "full", "closed"


def test_the_line_says_what_became_of_the_prompts_and_no_failures_where_there_are_none() -> None:
    progress = Progress()
    progress.begin(Phase.PAIRS, 300)
    progress.wanted, progress.done = 300, 22
    assert describe(progress, 0.0).endswith(" · kept 0 of 300 · tried 22")
    progress.lost["bad_scores"] += 22
    line = describe(progress, 0.0)
    assert line.startswith("pairs 22/300 · ")
    assert line.endswith(" · kept 0 of 300 · tried 22 · 22 bad_scores")
    assert "failures" not in line
    progress.causes["timeout"] += 1
    assert describe(progress, 0.0).endswith(" · 22 bad_scores · 1 timeout")


def test_before_there_are_pairs_failures_are_counted() -> None:
    progress = Progress(phase=Phase.PROMPTS, done=3, total=9)
    assert "failures" not in describe(progress, 0.0)
    progress.causes["no_list"] += 2
    assert describe(progress, 0.0).endswith(" · 2 failures")


def ended(user: User, *words: str, out: str = "", err: str = "", **variables: str) -> tuple[int, str, str]:
    """Exit code and output of a process whose streams are a full disk's, closed, or a pipe."""
    redirections = {FULL: "{}>/dev/full", CLOSED: "{}>&-", "": ""}
    ends = f"{redirections[out].format(1)} {redirections[err].format(2)}"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {ends}', "sh", *PROGRAM, *words],
        cwd=user.folder,
        env=user.environment | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(("out", "why"), [(FULL, "No space left on device"), (CLOSED, "it is closed")])
def test_output_that_cannot_be_written_is_said_in_one_line(lone_user: User, out: str, why: str) -> None:
    code, _, err = ended(lone_user, "checkpoint", "list", out=out)
    lost = f"standard output cannot be written: {why}; what was to be said there is lost"
    assert (code, err) == (1, f"vellumforge2: {lost}\n")
    # Both are gone: the exit code is all that is left to say it.
    assert ended(lone_user, "checkpoint", "list", out=out, err=FULL)[0] == 1
    # What went wrong by itself keeps its exit code.
    assert ended(lone_user, "failures", "session_x", out=out, err=FULL)[0] == 2


def test_a_reader_that_leaves_is_one_line(lone_user: User) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as out:
        done = subprocess.run(
            [*PROGRAM, "--help"],
            cwd=lone_user.folder,
            env=lone_user.environment,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "vellumforge2: standard output cannot be written: Broken pipe; what was to be said there is lost"
    ]


def test_a_run_is_not_lost_by_its_streams(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url, subtopics=1))
    code, _, err = ended(user, "run", "--verbose", out=FULL, err=FULL)
    assert (code, err) == (1, "")
    (session,) = user.sessions()
    assert len(rows_of(session)) == 2
    # Nothing is paid for again; and no file of the run got the number of a closed stream.
    asked = len(demo_model.requests())
    assert ended(user, "run", out=CLOSED, err=CLOSED)[0] == 1
    assert len(demo_model.requests()) == asked
    assert len(rows_of(user.sessions()[-1])) == 2
    assert ended(user, "ledger", "check")[0] == 0


def test_where_only_ascii_is_taken_the_rest_is_written_as_numbers(lone_user: User) -> None:
    lone_user.write(
        "config.toml", config("http://127.0.0.1:9/v1").replace("strong-writer", "st\u00e4rk \u2603")
    )
    for variables in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        code, out, err = ended(lone_user, "validate", **variables)
        assert (code, err) == (0, "")
        assert "  st\\xe4rk \\u2603 at http" in out
        code, out, _ = ended(lone_user, "validate", "--json", **variables)
        assert out.isascii()
        assert json.loads(out)["models"][0]["model"] == "st\u00e4rk \u2603"
        code, out, err = ended(lone_user, "estimate", **variables)
        assert (code, err, out.isascii()) == (0, "", True)
        code, _, err = ended(lone_user, "failures", "s\u00e9ssion", **variables)
        assert (code, err.count("\n")) == (2, 1)

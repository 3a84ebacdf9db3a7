"""Sessions of an older version on the command line: resumed for nothing, finished for the rest alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.flows.command import PROGRAM, Model, User, asked_twice
from tests.golden.cases import PORT, WRITTEN, expected, requests_of, session_of, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Ended

COMPLETE = ("judge_filtering", "refused_for_good", "parameters", "taken_over")
TRANSFORM = ("transform", "--mode", "regen-chosen", "--input", "in.jsonl", "--output", "out.jsonl")

OLDER_NAME = "WARNING generation.max_candidates is called generation.max_prompts_per_pair by now"


@pytest.fixture
def server() -> Iterator[Model]:
    """The demo model server at the port where it was when the sessions were made."""
    model = Model()
    model.port = PORT
    model.start()
    try:
        yield model
    finally:
        model.stop()


def owner(name: str, where: Path, prefect_url: str) -> User:
    """The user whose working folder holds a case."""
    case = unpack(name, where)
    home = where / name / "home"
    home.mkdir()
    return User(home, case, {"PREFECT_API_URL": prefect_url, "PREFECT_HOME": str(home / "prefect")})


def resume(user: User, *options: str) -> Ended:
    name = session_of(user.folder).name
    return user.run("checkpoint", "resume", name, "--json", *options, program=PROGRAM)


def test_complete_sessions_are_written_anew_for_nothing(tmp_path: Path, prefect_url: str) -> None:
    """Nobody listens at the models' address."""
    users = [owner(name, tmp_path, prefect_url) for name in COMPLETE]
    wanted = [expected(user.folder) for user in users]
    for user in users:
        for name in WRITTEN:
            (session_of(user.folder) / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda user: resume(user, "--accept-changes"), users))
    assert [ended.code for ended in ends] == [0] * len(users), ends
    assert [ended.summary["paid"] for ended in ends] == [0] * len(users)
    assert [expected(user.folder) for user in users] == wanted


def test_a_transform_is_done_again_for_nothing(tmp_path: Path, prefect_url: str) -> None:
    user = owner("transform", tmp_path, prefect_url)
    written = user.folder / "out.jsonl"
    wanted = written.read_bytes()
    written.unlink()
    ended = user.run(*TRANSFORM, "--json", program=PROGRAM)
    assert (ended.code, ended.err, ended.summary["paid"]) == (0, "", 0)
    assert written.read_bytes() == wanted


@pytest.mark.parametrize(
    ("name", "missing", "options"),
    [("interrupted", 4, ()), ("out_of_budget", 10, ("--set", "budget.max_calls=100"))],
)
def test_a_session_that_was_cut_off_pays_only_for_the_rest(
    tmp_path: Path, prefect_url: str, server: Model, *, name: str, missing: int, options: tuple[str, ...]
) -> None:
    user = owner(name, tmp_path, prefect_url)
    wanted = expected(user.folder)
    ended = resume(user, *options)
    assert (ended.code, ended.summary["paid"]) == (0, missing), ended.err
    # They were made when a setting had another name.
    assert " ".join(ended.err.split()) in {"", OLDER_NAME}
    assert len(server.requests()) == missing
    assert {name: (session_of(user.folder) / name).read_bytes() for name in wanted} == wanted


def test_what_was_refused_for_good_is_asked_once_more(
    tmp_path: Path, prefect_url: str, server: Model
) -> None:
    """Four questions were answered 400, and the session gave up with 10 of 12 rows."""
    user = owner("refused_and_short", tmp_path, prefect_url)
    paid = {row["key"] for row in requests_of(user.folder)}
    ended = resume(user)
    assert (ended.code, ended.summary["rows"]) == (0, 12), ended
    requests = server.requests()
    assert 2 <= len(requests) <= 4
    assert not asked_twice(requests)
    assert not paid & {request["key"] for request in requests}

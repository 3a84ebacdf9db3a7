"""To retry is to ask again for what failed in a way that is named, and for nothing else."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tasks.core.session.folder import is_locked
from tests.crash.left import kept_calls
from tests.flows.command import PROGRAM, User, asked_twice, config, model, rows_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Ended, Model

SUBTOPICS, PROMPTS = 3, 2
JOBS = SUBTOPICS * PROMPTS
ONE_TRY = "max_retries = 0"
TWICE = ("--set", "models.main.max_retries=1")


def settings(server: Model, mode: str = "dpo", generation: str = "", *, replaced: bool = False) -> str:
    return config(
        server.url,
        mode=mode,
        subtopics=SUBTOPICS,
        prompts=PROMPTS,
        concurrency=2,
        generation=generation,
        models=ONE_TRY,
        replaced=replaced,
    )


def retry(user: User, session: Path, *words: str) -> Ended:
    return user.run("retry", session.name, *words, program=PROGRAM)


def listed(user: User) -> list[tuple[str, str]]:
    """What is on the ledger's list of failures: item and cause."""
    with closing(sqlite3.connect(user.folder / "output" / "ledger.db")) as ledger:
        return ledger.execute("SELECT item, cause FROM failures ORDER BY id").fetchall()


def of_subtopic(session: Path, place: int) -> str:
    """What is in the request for the prompts of a subtopic, and in no other."""
    names: list[str] = json.loads((session / "checkpoint.json").read_text())["subtopics"]
    return f'for subtopic: "{names[place]}"'


def whole_run(user: User) -> Path:
    """The session of a run that nothing disturbs."""
    assert user.run("--output", "whole").code == 0
    (session,) = user.sessions("whole")
    return session


@pytest.fixture(scope="module")
def server() -> Iterator[Model]:
    """A model server at one address, on which its answers depend; tests start it as they need it."""
    with model() as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prefect_url: str, server: Model) -> Path:
    """The session of a run that nothing disturbed."""
    where = tmp_path_factory.mktemp("undisturbed")
    home = str(where / "prefect")
    user = User.made(where, PREFECT_API_URL=prefect_url, PREFECT_HOME=home).in_one_process()
    server.start()
    user.write("config.toml", settings(server))
    return whole_run(user)


def test_only_what_failed_of_a_named_cause_is_asked_again(
    user: User, server: Model, undisturbed: Path
) -> None:
    user.write("config.toml", settings(server))
    whole = rows_of(undisturbed)
    server.start(fail_matching=whole[1]["prompt"], error_matching=whole[4]["prompt"])
    first = user.run("--json")
    assert (first.code, first.summary["causes"]) == (3, {"question_refused": 1, "http_500": 1})
    (session,) = user.sessions()
    failures = listed(user)
    assert sorted(failures) == [("job 1", "question_refused"), ("job 4", "http_500")]

    server.start()
    _names_are_refused(user, session)
    assert server.requests() == []
    some = retry(user, session, "--only", "cause=http_500", "--json")
    assert (some.code, some.summary["paid"], some.summary["causes"]) == (3, 2, {"question_refused": 1})
    left = f"vellumforge2: finished with 1 failure (1 question_refused); {JOBS - 1} rows are written"
    assert left in some.err.splitlines()
    assert [request["status"] for request in server.requests()] == [200, 200]
    assert rows_of(session) == whole[:1] + whole[2:]
    assert listed(user) == failures
    assert "job 1 was left alone, which failed before: HTTP 400" in (session / "session.log").read_text()

    again = retry(user, session, "--only", "cause=http_500")
    assert (again.code, again.out) == (2, "")
    (line,) = again.err.splitlines()
    assert line.endswith(" has no failure with cause=http_500; there are: cause=question_refused (1)")

    # Without a name, all that is missing.
    rest = retry(user, session, "--json")
    assert (rest.code, rest.summary["paid"]) == (0, 2)
    assert len(server.requests()) == 4
    assert not asked_twice(server.requests())
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()
    assert user.sessions() == [session]
    complete = retry(user, session, "--only", "cause=question_refused")
    assert (complete.code, complete.out) == (2, "")
    assert "is complete" in complete.err


def test_a_retry_that_is_killed_again_and_again_loses_and_doubles_nothing(
    user: User, server: Model, undisturbed: Path
) -> None:
    user.write("config.toml", settings(server))
    # Every pair fails: those of one model at a time.
    server.start(fail_matching="Write a short story for this prompt")
    assert user.run().code == 3
    (session,) = user.sessions()
    server.start(latency_ms=300.0)
    lost: set[str] = set()
    for calls in (0, 1, 2, 5):
        before = len(server.requests())
        process = user.start("retry", session.name, program=PROGRAM)
        if calls:
            assert server.until_requests(before + calls, process)
        else:
            until(lambda: is_locked(session), "the session's opening")
        process.kill()
        assert process.end().code == -signal.SIGKILL
        until(lambda: server.stats()["in_flight"] == 0, "the server's last answer")
        lost |= {request["key"] for request in server.requests()} - kept_calls(user)
    assert retry(user, session).code == 0
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()
    assert set(asked_twice(server.requests())) <= lost
    assert [path.name for path in session.glob(".*")] == [".lock"]


def _names_are_refused(user: User, session: Path) -> None:
    """Names that no failure has are refused in a line with those that there are; nothing is written."""
    log = (session / "session.log").read_bytes()
    for names, said in [
        (
            ["cause=timeout"],
            "no failure with cause=timeout; there are: cause=question_refused (1), cause=http_500 (1)",
        ),
        (["cause=http_500", "phase=prompts"], "no failure with phase=prompts; there are: phase=pairs (2)"),
        (["timeout"], "--only takes cause=…, phase=… or purpose=…, and not 'timeout'"),
    ]:
        ended = retry(user, session, *(word for name in names for word in ("--only", name)))
        assert (ended.code, ended.out) == (2, "")
        (line,) = ended.err.splitlines()
        assert said in line
    assert (session / "session.log").read_bytes() == log
    unknown = user.run("retry", "session_2026-01-01T00-00-00", "--only", "cause=timeout", program=PROGRAM)
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no session session_2026-01-01T00-00-00" in unknown.err


def test_a_pair_that_is_left_alone_is_asked_nothing_although_only_one_of_its_calls_is_listed(
    user: User, server: Model
) -> None:
    """Both calls of the judge fail, and the list has the first; the job of the other cause is judged."""
    server.start()
    user.write("config.toml", settings(server, "mo-dpo"))
    judged = whole_run(user)
    whole = rows_of(judged)
    server.start(error_matching=f"PROMPT: {whole[1]['prompt']}", fail_matching=whole[4]["prompt"])
    assert user.run().code == 3
    (session,) = user.sessions()
    assert sorted(listed(user)) == [("job 1", "http_500"), ("job 4", "question_refused")]
    shown = user.run("failures", session.name, program=PROGRAM).out.splitlines()[-1]
    assert shown.startswith(f"To ask only for some of it: vellumforge2 retry {session.name} --only cause=")

    server.start()
    answers = retry(user, session, "--only", "cause=question_refused", "--json")
    assert (answers.code, answers.summary["causes"]) == (3, {"http_500": 1})
    assert [request["kind"] for request in server.requests()] == ["prose", "prose", "judge", "judge"]

    scores = retry(user, session, "--only", "purpose=judge", "--only", "phase=pairs", "--json")
    assert (scores.code, scores.summary["paid"]) == (0, 2)
    assert [request["kind"] for request in server.requests()][4:] == ["judge", "judge"]
    assert not asked_twice(server.requests())
    assert (session / "dataset.jsonl").read_bytes() == (judged / "dataset.jsonl").read_bytes()


def test_prompts_that_are_had_at_last_are_answered_and_those_left_alone_stay_away(
    user: User, server: Model, undisturbed: Path
) -> None:
    user.write("config.toml", settings(server, generation="min_success_rate = 0.5"))
    whole = rows_of(undisturbed)
    server.start(error_matching=of_subtopic(undisturbed, 1), fail_matching=whole[0]["prompt"])
    first = user.run("--json")
    assert (first.code, first.summary["rows"]) == (3, JOBS - PROMPTS - 1)
    (session,) = user.sessions()

    server.start()
    pairs = retry(user, session, "--only", "phase=pairs", "--json")
    assert (pairs.code, pairs.summary["paid"], pairs.summary["causes"]) == (3, 2, {"http_500": 1})
    assert rows_of(session) == whole[:2] + whole[4:]
    prompts = retry(user, session, "--only", "phase=prompts", "--json")
    assert (prompts.code, prompts.summary["paid"]) == (0, 1 + 2 * PROMPTS)
    assert len(server.requests()) == 2 + 1 + 2 * PROMPTS
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()


def test_where_too_few_subtopics_had_prompts_their_retry_goes_on_to_the_pairs(
    user: User, server: Model, undisturbed: Path
) -> None:
    user.write("config.toml", settings(server))
    server.start(error_matching=of_subtopic(undisturbed, 1))
    assert user.run().code == 3
    (session,) = user.sessions()
    server.start()
    ended = retry(user, session, "--only", "cause=http_500", "--json")
    assert (ended.code, ended.summary["paid"]) == (0, 1 + 2 * JOBS)
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()


def test_a_session_with_things_that_were_never_asked_is_resumed_first(
    user: User, server: Model, undisturbed: Path
) -> None:
    user.write("config.toml", settings(server))
    whole = rows_of(undisturbed)
    # Two jobs run at a time: when the third fails, each model has answered, so that no model is given up.
    server.start(error_matching=whole[2]["prompt"], latency_ms=200.0)
    process = user.start()
    assert server.until_requests(1 + SUBTOPICS + 9, process)
    process.send(signal.SIGINT)
    assert process.end().code == 130
    (session,) = user.sessions()
    assert listed(user) == [("job 2", "http_500")]

    server.start()
    refused = retry(user, session, "--only", "cause=http_500")
    assert (refused.code, refused.out) == (2, "")
    (line,) = refused.err.splitlines()
    assert "has things that never were asked for (job " in line
    assert line.endswith(f"first go on with it: vellumforge2 checkpoint resume {session.name}")
    assert server.requests() == []
    assert user.run("checkpoint", "resume", session.name, program=PROGRAM).code == 0
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()


def test_answers_that_cannot_be_used_are_asked_further_where_they_are_named(
    user: User, server: Model, undisturbed: Path
) -> None:
    user.write("config.toml", settings(server))
    whole = rows_of(undisturbed)
    # Every story is refused, which does for a rejected answer and not for a chosen one.
    server.start(fail_matching=whole[1]["prompt"], refuse=1.0)
    first = user.run("--json")
    assert (first.code, first.summary["causes"]) == (3, {"refused": JOBS - 1, "question_refused": 1})
    (session,) = user.sessions()
    failures = listed(user)

    server.start()
    # More tries are allowed, and those that are not named make no use of it.
    other = retry(user, session, "--only", "cause=question_refused", *TWICE, "--json")
    assert (other.code, other.summary["paid"], other.summary["causes"]) == (3, 2, {"refused": JOBS - 1})
    assert listed(user) == failures
    # One further try of each, although none is allowed.
    more = retry(user, session, "--only", "cause=refused", "--json")
    assert (more.code, more.summary["paid"], more.summary["rows"]) == (0, JOBS - 1, JOBS)
    assert not asked_twice(server.requests())


def test_a_question_that_was_refused_and_replaced_is_asked_again_when_it_is_named(
    user: User, server: Model
) -> None:
    server.start()
    user.write("config.toml", settings(server, replaced=True))
    replacing = whole_run(user)
    whole = rows_of(replacing)
    server.start(fail_matching=whole[1]["prompt"], error_matching=whole[4]["prompt"])
    first = user.run("--json")
    assert (first.code, first.summary["causes"]) == (3, {"http_500": 1})
    assert first.summary["lost"]["question_refused"] == 1
    (session,) = user.sessions()
    failures = listed(user)

    server.start()
    lifted = retry(user, session, "--only", "cause=question_refused", "--json")
    assert (lifted.code, lifted.summary["paid"], lifted.summary["causes"]) == (3, 2, {"http_500": 1})
    assert "question_refused" not in lifted.summary["lost"]
    assert rows_of(session) == whole[:4] + whole[5:]
    assert listed(user) == failures
    # What is answered now stays: a plain resume does not take it for refused.
    last = user.run("checkpoint", "resume", session.name, "--json", program=PROGRAM)
    assert (last.code, last.summary["paid"]) == (0, 2)
    assert (session / "dataset.jsonl").read_bytes() == (replacing / "dataset.jsonl").read_bytes()

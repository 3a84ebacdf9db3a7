"""Runs that cannot do all they should: what they say, what they keep, and how they are mended."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from tests.flows.command import PROGRAM, asked_twice, config, free_port, model, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, Model, User

ONE_TRY = "max_retries = 0"
NO_REFUSAL_TAKEN = "max_retries = 1"


def test_failed_jobs_are_listed_and_a_repaired_server_is_paid_for_them_alone(user: User) -> None:
    with model() as server:
        user.write("config.toml", config(server.url, subtopics=4, prompts=5))
        assert user.run("--output", "whole").code == 0
        (undisturbed,) = user.sessions("whole")
        whole = rows_of(undisturbed)
        none = _failures(user, undisturbed.name, "--output", "whole")
        assert none.out == f"No failures are listed for session {undisturbed.name}.\n"
        # Both answers of this job are refused by the server, and no other call.
        server.start(fail_matching=whole[7]["prompt"])
        broken = user.run("--json")
        assert broken.code == 3
        assert (broken.summary["rows"], broken.summary["failures"]) == (19, 1)
        first = broken.err.splitlines()[0]
        assert first == "vellumforge2: finished with 1 failure (1 question_refused); 19 rows are written"
        (session,) = user.sessions()
        assert rows_of(session) == whole[:7] + whole[8:]
        checkpoint = _checkpoint(session)
        assert checkpoint["current_phase"] == "pairs"
        assert "7" not in checkpoint["completed_job_ids"]
        assert "job 7 failed: HTTP 400" in (session / "session.log").read_text()
        _is_listed(user, session)

        server.start()
        mended = user.run(*_command_to_go_on(broken, session), "--json", program=PROGRAM)
        assert (mended.code, mended.err) == (0, "")
        assert (mended.summary["paid"], mended.summary["failures"]) == (2, 0)
        assert user.sessions() == [session]
        assert rows_of(session) == whole
        listed = _failures(user, session.name)
        assert listed.out.endswith(
            "The session is complete: what is listed came about later, or was replaced.\n"
        )


def test_answers_that_stay_unusable_fail_their_jobs_and_are_not_paid_for_again(user: User) -> None:
    with model(refuse=0.5) as server:
        user.write("config.toml", config(server.url, subtopics=4, prompts=5, models=NO_REFUSAL_TAKEN))
        first = user.run("--json")
        assert first.code == 3
        failures = first.summary["failures"]
        assert 0 < failures < 20
        assert first.summary["rows"] == 20 - failures
        again = user.run("--json")
        # The refusals were paid for: only another seed, or more tries, can bring other answers.
        assert (again.code, again.summary["paid"], again.summary["failures"]) == (3, 0, failures)
        more = user.run("--json", "--set", "models.main.max_retries=20")
        assert (more.code, more.summary["rows"]) == (0, 20)
        assert not asked_twice(server.requests())


def test_passing_errors_are_tried_again_and_cost_nothing(user: User) -> None:
    with model(error=0.3, truncate=0.2) as server:
        patient = "max_retries = 30\nmax_backoff_seconds = 0.01"
        user.write("config.toml", config(server.url, subtopics=4, prompts=5, models=patient))
        ended = user.run("--json")
        assert (ended.code, ended.summary["paid"]) == (0, 1 + 4 + 40)
        assert len(server.requests()) > 1 + 4 + 40


def test_a_server_that_is_not_there_ends_the_run_at_once(user: User) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    user.write("config.toml", config(address, models=ONE_TRY))
    ended = user.run()
    assert (ended.code, ended.out) == (3, "")
    reason, go_on = ended.err.splitlines()
    beginning = f"vellumforge2: strong-writer at {address} brought no answer in one attempt: "
    assert reason.startswith(f"{beginning}{address}: Cannot connect to host ")
    assert go_on.startswith("vellumforge2: to go on, ")
    (session,) = user.sessions()
    assert _checkpoint(session)["current_phase"] == "subtopics"


def test_a_model_that_does_not_exist_is_named(user: User) -> None:
    with model(fail_models="weak-writer") as server:
        user.write("config.toml", config(server.url))
        rejected = user.run("--json")
        assert (rejected.code, rejected.out) == (3, "")
        reason, go_on = rejected.err.splitlines()
        assert reason.startswith(
            f"vellumforge2: weak-writer at {server.url}: HTTP 404: The model `weak-writer`"
        )
        assert reason.endswith("; check model_name and base_url")
        assert go_on.startswith("vellumforge2: to go on, ")
        # The first refusals stop the run; the six jobs do not all find out.
        assert len([request for request in server.requests() if request["status"] == 404]) <= 6
        server.start(fail_models="strong-writer")
        main = user.run("--fresh")
        assert (main.code, main.out) == (3, "")
        assert "HTTP 404: The model `strong-writer` does not exist" in main.err.splitlines()[0]


def test_the_run_stops_where_too_few_subtopics_have_prompts(user: User) -> None:
    with model() as server:
        user.write("config.toml", config(server.url, subtopics=4, prompts=2))
        assert user.run("--output", "whole").code == 0
        (whole,) = user.sessions("whole")
        subtopic = _checkpoint(whole)["subtopics"][2]
        server.start(fail_matching=f'for subtopic: "{subtopic}"')
        strict = user.run()
        assert (strict.code, strict.out) == (3, "")
        assert "only 3 of 4 subtopics have prompts: 75%" in strict.err.splitlines()[0]
        assert "HTTP 400" in strict.err.splitlines()[0]

        lenient = user.run("--json", "--set", "generation.min_success_rate=0.5")
        assert (lenient.code, lenient.summary["rows"], lenient.summary["jobs"]) == (3, 6, 6)
        assert "2 prompts of 8 missing" in lenient.err.splitlines()[0]
        session = user.sessions()[-1]
        assert _checkpoint(session)["failed_subtopics"] == [subtopic]
        # The ids of the other jobs are those that they always have.
        assert set(_checkpoint(session)["completed_job_ids"]) == {"0", "1", "2", "3", "6", "7"}

        server.start()
        mended = user.run(*_command_to_go_on(lenient, session), "--json", program=PROGRAM)
        assert (mended.code, mended.summary["paid"]) == (0, 1 + 2 * 2)
        assert (session / "dataset.jsonl").read_bytes() == (whole / "dataset.jsonl").read_bytes()


def _is_listed(user: User, session: Path) -> None:
    """The failure of job 7 by phase, cause and attempts, with its request; as a document and for people."""
    document = json.loads(_failures(user, session.name, "--json").out)
    assert (document["session"], document["complete"]) == (session.name, False)
    (group,) = document["groups"]
    assert (group["phase"], group["cause"], group["attempts"], group["count"]) == (
        "pairs",
        "question_refused",
        1,
        1,
    )
    (failure,) = document["failures"]
    assert (failure["item"], failure["status"], failure["purpose"]) == ("job 7", 400, group["purpose"])
    assert len(bytes.fromhex(failure["request"])) == 32

    told = _failures(user, session.name)
    assert told.out.startswith(f"Failures of {session.name}, in all its runs: 1\n")
    listed = f"job 7: {group['purpose']}, question_refused, 1 attempt, request {failure['request']}\n"
    assert listed in told.out
    *_, resume, retry = told.out.splitlines()
    assert resume.endswith(f"vellumforge2 checkpoint resume {session.name}")
    assert retry.endswith(f"vellumforge2 retry {session.name} --only cause=question_refused")
    assert all(line.isprintable() for line in told.out.splitlines())


def test_failures_of_a_session_that_is_not_there_are_refused(user: User, demo_model: Model) -> None:
    unknown = user.run("failures", "session_2026-01-01T00-00-00", program=PROGRAM)
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no session session_2026-01-01T00-00-00" in unknown.err
    user.write("config.toml", config(demo_model.url))
    assert user.run().code == 0
    foreign = user.folder / "output" / "session_2026-01-01T00-00-00"
    foreign.mkdir()
    elsewhere = user.run("failures", foreign.name, program=PROGRAM)
    assert (elsewhere.code, elsewhere.out) == (2, "")
    assert "is not in this ledger" in elsewhere.err


def _failures(user: User, *words: str) -> Ended:
    ended = user.run("failures", *words, program=PROGRAM)
    assert (ended.code, ended.err) == (0, "")
    return ended


def _checkpoint(session: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((session / "checkpoint.json").read_text())
    return found


def _command_to_go_on(ended: Ended, session: Path) -> list[str]:
    """The arguments of the command that a run names at its end: it resumes this session."""
    prefix = "vellumforge2: to go on, paying only for what is missing: vellumforge2 "
    last = ended.err.splitlines()[-1]
    assert last.startswith(prefix)
    words = shlex.split(last.removeprefix(prefix))
    assert words[:3] == ["checkpoint", "resume", session.name]
    return words

"""To resume is to go on in the same folder: nothing is lost, doubled or paid for twice."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.command import FLOW_RUN, PROGRAM, User, asked_twice, config, free_port, model, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Model, Process

SUBTOPICS, PROMPTS = 3, 4
JOBS = SUBTOPICS * PROMPTS
CALLS = 1 + SUBTOPICS + 2 * JOBS
"""Calls of a whole run: subtopics, prompts, and two answers a job."""
INTO_PAIRS = 1 + SUBTOPICS + 6
SLOW = 200.0
"""Milliseconds an answer takes where a run is to be interrupted."""


def settings(server: Model, generation: str = "") -> str:
    return config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=2, generation=generation)


def resume(user: User, session: Path, *options: str) -> Process:
    return user.start("checkpoint", "resume", session.name, "--json", *options, program=PROGRAM)


def interrupt(server: Model, process: Process, requests: int) -> None:
    """Send SIGINT once so many requests arrived, and wait for the end."""
    assert server.until_requests(requests, process)
    process.send(signal.SIGINT)
    assert process.end().code == 130


def checkpoint_of(session: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((session / "checkpoint.json").read_text())
    return found


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
    user.write("config.toml", settings(server))
    assert user.run().code == 0
    (session,) = user.sessions()
    return session


def test_every_way_to_resume_goes_on_in_the_same_folder(user: User, server: Model, undisturbed: Path) -> None:
    server.start(latency_ms=SLOW)
    user.write("config.toml", settings(server))
    interrupt(server, user.start(), INTO_PAIRS)
    (session,) = user.sessions()
    interrupt(server, resume(user, session), len(server.requests()) + 2)
    user.write("config.toml", settings(server, f'resume_from_session = "{session.name}"'))
    interrupt(server, user.start(), len(server.requests()) + 2)
    user.write("config.toml", settings(server))
    before = len(server.requests())
    last = user.run("--resume", session.name, "--json")
    assert last.code == 0, last.err
    assert (last.summary["paid"], last.summary["rows"]) == (CALLS - before, JOBS)
    assert not asked_twice(server.requests())
    assert len(server.requests()) == CALLS
    assert user.sessions() == [session]
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()
    assert checkpoint_of(session)["current_phase"] == "complete"
    assert len(checkpoint_of(session)["completed_job_ids"]) == JOBS


def test_a_session_knows_its_settings_and_its_seed_without_a_configuration(user: User, server: Model) -> None:
    """A lost session.json is had from the ledger: taken for a stranger, the session would pay again."""
    server.start(latency_ms=SLOW)
    user.write("config.toml", settings(server))
    interrupt(server, user.start("--fresh"), INTO_PAIRS)
    paid = [request["key"] for request in server.requests()]
    (session,) = user.sessions()
    (user.folder / "config.toml").unlink()
    shutil.copytree(user.folder / "output", user.folder / "interrupted")
    server.start()
    for number, lost in enumerate([(), ("session.json",), ("session.json", "checkpoint.json")]):
        shutil.rmtree(user.folder / "output")
        shutil.copytree(user.folder / "interrupted", user.folder / "output")
        for name in lost:
            (session / name).unlink()
        before = len(server.requests())
        # What Prefect kept of the one before would save calls.
        home = {"PREFECT_HOME": str(user.home / f"prefect-{number}")}
        words = ("checkpoint", "resume", session.name, "--json")
        ended = user.run(*words, program=PROGRAM, **home)
        assert ended.code == 0, (lost, ended.err)
        assert (ended.summary["rows"], ended.summary["paid"]) == (JOBS, CALLS - len(paid)), lost
        asked = paid + [request["key"] for request in server.requests()[before:]]
        assert len(asked) == len(set(asked)) == CALLS, lost
        assert user.sessions() == [session]
        assert checkpoint_of(session)["current_phase"] == "complete", lost


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_torn_and_missing_files_are_made_again(user: User, server: Model, undisturbed: Path) -> None:
    server.start(latency_ms=SLOW)
    user.write("config.toml", settings(server))
    interrupt(server, user.start(), INTO_PAIRS)
    paid = len(server.requests())
    (session,) = user.sessions()
    running = []
    for place, (name, share) in enumerate(
        [
            ("dataset.jsonl", 0.5),
            ("checkpoint.json", 0.0),
            ("checkpoint.json", 0.5),
            ("session.json", 0.5),
        ]
    ):
        folder = f"damaged-{place}"
        shutil.copytree(user.folder / "output", user.folder / folder)
        _cut(user.folder / folder / session.name / name, share)
        running.append((folder, resume(user, session, "--output", folder)))
    # All have ended before the first is judged: none is left to ask the server of the next test.
    for folder, ended in [(folder, process.end()) for folder, process in running]:
        assert (folder, ended.code) == (folder, 0), ended.err
        assert ended.summary["paid"] == CALLS - paid
        (mended,) = user.sessions(folder)
        assert (mended / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()
        assert checkpoint_of(mended)["current_phase"] == "complete"
        assert len(checkpoint_of(mended)["completed_job_ids"]) == JOBS


def test_a_change_is_refused_with_its_costs_until_it_is_accepted(user: User, server: Model) -> None:
    server.start()
    text = settings(server)
    user.write("config.toml", text)
    assert user.run().code == 0
    (session,) = user.sessions()
    dataset = (session / "dataset.jsonl").read_bytes()
    # Where Prefect is needed, this address ends the run: what is refused must be refused before.
    nowhere = {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    words = ("checkpoint", "resume", session.name)

    finished = user.run(*words, program=PROGRAM, **nowhere)
    assert (finished.code, finished.out) == (2, "")
    assert f"session {session.name} is complete" in finished.err

    user.write("config.toml", text.replace("[models.rejected]", "[models.rejected]\ntemperature = 0.25"))
    changed = user.run(*words, program=PROGRAM, **nowhere)
    assert (changed.code, changed.out) == (2, "")
    assert "models.rejected.temperature: 0.7 -> 0.25 (changes pairs)" in changed.err
    assert f"  pairs: {JOBS} calls reused, {JOBS} to be paid for" in changed.err
    assert "--accept-changes" in changed.err
    assert (session / "dataset.jsonl").read_bytes() == dataset
    assert len(server.requests()) == CALLS

    accepted = user.run(*words, "--accept-changes", "--json", program=PROGRAM)
    assert (accepted.code, accepted.summary["paid"], accepted.summary["rows"]) == (0, JOBS, JOBS)
    assert user.sessions() == [session]
    assert (session / "dataset.jsonl").read_bytes() != dataset


def test_a_finished_session_grows(user: User, server: Model) -> None:
    server.start()
    user.write("config.toml", settings(server))
    assert user.run().code == 0
    (session,) = user.sessions()
    before = (session / "dataset.jsonl").read_bytes()
    grown = user.run("--resume", session.name, "--set", f"generation.num_subtopics={SUBTOPICS + 2}", "--json")
    # A request for more subtopics; the new ones have prompts and answers to pay for.
    assert (grown.code, grown.summary["paid"]) == (0, 1 + 2 * (1 + 2 * PROMPTS))
    assert user.sessions() == [session]
    after = (session / "dataset.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == JOBS + 2 * PROMPTS
    assert not asked_twice(server.requests())


def test_a_session_of_vellumforge2_is_finished_here(user: User, server: Model, undisturbed: Path) -> None:
    """Its rows are taken as paid for, also one that its checkpoint does not list; a torn one is made anew."""
    server.start()
    lines = (undisturbed / "dataset.jsonl").read_bytes().splitlines(keepends=True)
    session = user.folder / "output" / "session_2025-10-28T14-30-00"
    session.mkdir(parents=True)
    (session / "config.toml.bak").write_text(settings(server))
    # Rows in the order of their ends, one of them twice, the last one torn.
    (session / "dataset.jsonl").write_bytes(b"".join([lines[1], lines[0], lines[1], lines[3], lines[4][:50]]))
    document = checkpoint_of(undisturbed)
    document |= {"current_phase": "pairs", "completed_job_ids": {"0": True, "1": True}}
    (session / "checkpoint.json").write_text(json.dumps(document))

    ended = resume(user, session).end()
    assert (ended.code, ended.summary["paid"], ended.summary["rows"]) == (0, 2 * (JOBS - 3), JOBS)
    assert rows_of(session) == rows_of(undisturbed)
    after = checkpoint_of(session)
    assert after["current_phase"] == "complete"
    assert after["completed_job_ids"] == {str(number): True for number in range(JOBS)}
    assert after["prompts"] == document["prompts"]
    # What was taken over was paid for by others.
    inspected = user.run("checkpoint", "inspect", session.name, "--json", program=PROGRAM)
    assert json.loads(inspected.out)["spent"]["calls"] == ended.summary["paid"]

    again = resume(user, session).end()
    assert again.code == 2
    assert "is complete" in again.err


def test_a_flow_run_that_is_run_again_goes_on_in_its_folder(
    user: User, server: Model, undisturbed: Path
) -> None:
    server.start(fail_matching=rows_of(undisturbed)[7]["prompt"])
    user.write("config.toml", settings(server))
    number, state = user.run(program=FLOW_RUN).out.split()
    assert state == "FAILED"
    (session,) = user.sessions()
    assert len(rows_of(session)) == JOBS - 1

    server.start()
    assert user.run(number, program=FLOW_RUN).out.split() == [number, "COMPLETED"]
    assert len(server.requests()) == 2
    assert user.sessions() == [session]
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()

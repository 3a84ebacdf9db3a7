"""SIGINT and SIGTERM: no new calls, those in flight are kept, and the program says how to go on."""

from __future__ import annotations

import json
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from tests.flows.command import PROGRAM, asked_twice, config, model, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import User

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
JOBS = 12
BEFORE_PAIRS = 4
"""Calls for subtopics and prompts: one, and one a subtopic."""


@pytest.mark.parametrize("number", CODES)
def test_a_stopped_run_keeps_what_is_in_flight(user: User, number: signal.Signals) -> None:
    with model(latency_ms=250.0) as server:
        user.write("config.toml", config(server.url, subtopics=3, prompts=4, concurrency=2))
        process = user.start()
        # The second jobs are in flight, the first are done.
        assert server.until_requests(BEFORE_PAIRS + 6, process)
        process.send(number)
        stopped = process.end()
        assert stopped.code == CODES[number]
        (session,) = user.sessions()
        assert _phase(session) == "pairs"
        some = rows_of(session)
        command = _command_to_go_on(stopped.err, number, session.name)
        requests = server.requests()
        assert all(request["finished"] for request in requests), "a call in flight was given up"
        assert len(requests) < BEFORE_PAIRS + 2 * JOBS

        again = user.run(*command[1:], program=PROGRAM)
        assert (again.code, again.err) == (0, "")
        assert not asked_twice(server.requests())
        assert len(server.requests()) == BEFORE_PAIRS + 2 * JOBS

    assert user.sessions() == [session]
    every = rows_of(session)
    assert len(every) == JOBS
    assert 2 <= len(some) < JOBS
    assert some == [row for row in every if row in some], "rows of a stopped run stand in the order of jobs"
    assert _phase(session) == "complete"


def test_stopped_before_there_are_pairs(user: User) -> None:
    with model(latency_ms=250.0) as server:
        user.write("config.toml", config(server.url, subtopics=3, prompts=4, concurrency=2))
        process = user.start()
        assert server.until_requests(2, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        (session,) = user.sessions()
        assert rows_of(session) == []
        assert _phase(session) == "prompts"
        # What was in flight is paid for, and used.
        assert 2 <= len(server.requests()) < BEFORE_PAIRS
        assert user.run().code == 0
        assert not asked_twice(server.requests())
        assert len(server.requests()) == BEFORE_PAIRS + 2 * JOBS


def test_calls_that_do_not_end_are_given_up(user: User) -> None:
    """After the grace, and at once when told again; both runs wait at the same time."""
    with model(latency_ms=100_000.0) as server:
        user.write("config.toml", config(server.url))
        patient = user.start("--output", "patient")
        assert server.until_requests(1, patient)
        hasty = user.start("--output", "hasty")
        assert server.until_requests(2, hasty)
        patient.send(signal.SIGTERM)
        hasty.send(signal.SIGINT)
        hasty.until_said("stopping:")
        hasty.send(signal.SIGINT)
        at_once = hasty.end()
        assert at_once.code == 130
        assert patient.running, "the grace has not passed"
        after_grace = patient.end()
        assert after_grace.code == 143
        (session,) = user.sessions("patient")
        options = ("--output", "patient")
        _command_to_go_on(after_grace.err, signal.SIGTERM, session.name, *options)
        assert "Traceback" not in at_once.err + after_grace.err
        assert (rows_of(session), _phase(session)) == ([], "subtopics")


def _phase(session: Path) -> str:
    phase: str = json.loads((session / "checkpoint.json").read_text())["current_phase"]
    return phase


def _command_to_go_on(said: str, number: signal.Signals, session: str, *options: str) -> list[str]:
    """The words of the command that the program names; what it says besides is checked."""
    # Before and between them may be lines of progress.
    *before, stopped, go_on = [line for line in said.splitlines() if line]
    stopping = "stopping: no new calls; up to 10 s for those in flight ("
    assert any(line.startswith(stopping) for line in before)
    assert (
        stopped == f"vellumforge2: stopped by {number.name}; every answer that was paid for is in the ledger"
    )
    prefix = "vellumforge2: to go on, paying only for what is missing: "
    assert go_on.startswith(prefix)
    words = shlex.split(go_on.removeprefix(prefix))
    assert words == ["vellumforge2", "checkpoint", "resume", session, *options]
    return words

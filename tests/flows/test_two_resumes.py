"""Two processes at once: of one session only one goes on, and two runs share what they pay for."""

from __future__ import annotations

import random
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.crash.together import LATENCY, Place, attempts
from tests.flows.command import PROGRAM, asked_twice, config, model
from tests.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flows.command import User
    from tests.postgres import Postgres

SUBTOPICS, PROMPTS, CONCURRENCY = 2, 5, 2
CALLS = 1 + SUBTOPICS + 2 * SUBTOPICS * PROMPTS
INTO_PAIRS = 1 + SUBTOPICS + 4
SLOW = 400.0
"""Milliseconds an answer takes: so long that both are at work at the same time."""
TIMES = 2
TOGETHER = [("same", "dpo"), ("overlapping", "dpo"), ("budgeted", "dpo"), ("killed", "mo-dpo")]
"""What is tried here; `python -m tests.crash.together` tries all of it, often."""


def settings(url: str) -> str:
    return config(url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=CONCURRENCY)


def test_of_two_resumes_at_once_one_goes_on_each_time(user: User) -> None:
    with model(latency_ms=SLOW) as server:
        user.write("config.toml", settings(server.url))
        assert user.run("--output", "calm").code == 0
        (calm,) = user.sessions("calm")
        server.start(latency_ms=SLOW)
        process = user.start()
        assert server.until_requests(INTO_PAIRS, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        paid = len(server.requests())
        (session,) = user.sessions()
        for time in range(TIMES):
            folder = f"output-{time}"
            shutil.copytree(user.folder / "output", user.folder / folder)
            server.start(latency_ms=SLOW)
            resume = ("checkpoint", "resume", session.name, "--output", folder)
            both = [user.start(*resume, program=PROGRAM) for _ in range(2)]
            (winner, won), (_, lost) = sorted(
                ((process.pid, process.end()) for process in both), key=lambda item: item[1].code
            )
            assert (won.code, lost.code) in {(0, 1), (0, 2)}, (won.err, lost.err)
            # On a machine that is busy, the other may come when all is done.
            held = f"session {session.name} is being written by process {winner} on "
            refused = held if lost.code == 1 else f"session {session.name} is complete; "
            assert lost.err.startswith(f"vellumforge2: {refused}"), lost.err
            assert len(server.requests()) == CALLS - paid
            assert not asked_twice(server.requests())
            (resumed,) = user.sessions(folder)
            assert (resumed / "dataset.jsonl").read_bytes() == (calm / "dataset.jsonl").read_bytes()


def test_a_run_that_joins_later_pays_for_nothing_that_another_pays_for(user: User) -> None:
    with model(latency_ms=SLOW) as server:
        user.write("config.toml", settings(server.url))
        first = user.start("--json")
        assert server.until_requests(INTO_PAIRS, first)
        second = user.start("--json")
        ends = [first.end(), second.end()]
        assert [ended.code for ended in ends] == [0, 0], [ended.err for ended in ends]
        one, other = user.sessions()
        assert (one / "dataset.jsonl").read_bytes() == (other / "dataset.jsonl").read_bytes()
        assert len(server.requests()) == CALLS
        assert not asked_twice(server.requests())
        assert sum(ended.summary["paid"] for ended in ends) == CALLS

        third = user.run("--json")
        assert (third.code, third.summary["paid"]) == (0, 0)


@pytest.fixture(scope="module")
def ledgers() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.mark.parametrize(("attempt", "mode"), TOGETHER)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_two_runs_at_once_each_pays_for_what_the_other_does_not(
    attempt: str, mode: str, kind: str, user: User, request: pytest.FixtureRequest
) -> None:
    postgresql = request.getfixturevalue("ledgers") if kind == "postgresql" else None
    with model(latency_ms=LATENCY) as server:
        place = Place(user.folder / kind, dict(user.variables), postgresql)
        found = attempts(random.Random(3))[attempt](place, server, mode)
    assert not found, "\n".join(found)

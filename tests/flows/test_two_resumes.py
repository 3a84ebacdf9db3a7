"""Two processes at once: of one session only one goes on, and two runs share what they pay for."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, asked_twice, config, model

if TYPE_CHECKING:
    from tests.flows.command import User

SUBTOPICS, PROMPTS, CONCURRENCY = 2, 5, 2
CALLS = 1 + SUBTOPICS + 2 * SUBTOPICS * PROMPTS
INTO_PAIRS = 1 + SUBTOPICS + 4
SLOW = 400.0
"""Milliseconds an answer takes: so long that both are at work at the same time."""
TIMES = 2


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


def test_a_run_that_joins_later_uses_what_another_has_paid_for(user: User) -> None:
    """What both ask for before either has the answer is paid for by both, and nothing else."""
    with model(latency_ms=SLOW) as server:
        user.write("config.toml", settings(server.url))
        first = user.start("--json")
        assert server.until_requests(INTO_PAIRS, first)
        # What was answered before the second begins, it need not ask for.
        paid = {request["key"] for request in server.requests() if request["finished"]}
        assert len(paid) >= 1 + SUBTOPICS
        second = user.start("--json")
        ends = [first.end(), second.end()]
        assert [ended.code for ended in ends] == [0, 0], [ended.err for ended in ends]
        one, other = user.sessions()
        assert (one / "dataset.jsonl").read_bytes() == (other / "dataset.jsonl").read_bytes()
        requests = server.requests()
        assert len({request["key"] for request in requests}) == CALLS
        assert sum(ended.summary["paid"] for ended in ends) == len(requests)
        # Once the second has caught up with the first, both may ask for the same.
        assert not paid & set(asked_twice(requests))

        third = user.run("--json")
        assert (third.code, third.summary["paid"]) == (0, 0)

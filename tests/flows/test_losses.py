"""A run that brings nothing stops, says why and what was answered, and is finished once that is mended."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, config, model, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Ended, User

SUBTOPICS, PROMPTS = 6, 5
WANTED = SUBTOPICS * PROMPTS


def test_a_run_that_brings_nothing_stops_says_why_and_is_finished_by_what_it_advises(user: User) -> None:
    with model(refuse=1.0) as server:
        text = config(
            server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=2, models="max_retries = 0"
        )
        user.write("config.toml", text)
        stopped = user.run("--json")
        assert (stopped.code, stopped.out) == (3, "")
        reason, show, go_on = stopped.err.splitlines()
        (session,) = user.sessions()
        assert "the run stops, for it brings nothing: " in reason
        assert ": 20 of the first 20 prompts yielded no usable pair: " in reason
        assert "20 refused; for example job " in reason
        assert 'the model answered: "I' in reason
        assert show == f"vellumforge2: to see what was answered: vellumforge2 failures {session.name} --show"
        assert f"checkpoint resume {session.name}" in go_on
        assert sum(request["kind"] == "prose" for request in server.requests()) <= 2 * 22

        shown = _command(user, show)
        assert shown.out.startswith(f"Failures of {session.name}, in all its runs: 2")
        assert "refused, answers to chosen calls; what helps: " in shown.out
        assert "  Prompt: " in shown.out
        assert "    | I" in shown.out
        in_list = user.run("checkpoint", "list", program=PROGRAM).out.splitlines()[-1]
        assert f"0.0%     kept 0 of {WANTED} · tried 2" in in_list
        assert " refused" in in_list
        inspected = user.run("checkpoint", "inspect", session.name, program=PROGRAM).out
        assert f"kept 0 of {WANTED} · tried 2" in inspected

        # What was refused is paid for and stays refused; the others come.
        server.start()
        resumed = user.run("checkpoint", "resume", session.name, "--json", program=PROGRAM)
        assert (resumed.code, list(resumed.summary["causes"])) == (3, ["refused"])
        spent = resumed.summary["failures"]
        assert resumed.summary["rows"] == WANTED - spent
        reason, show, go_on = resumed.err.splitlines()
        assert "every try that max_retries allows is paid for, and cannot be used; for example job " in reason
        assert show.endswith(f"vellumforge2 failures {session.name} --show")
        assert "to ask for further answers in their place: vellumforge2 retry " in go_on

        retried = _command(user, go_on, "--json")
        assert (retried.code, retried.summary["paid"], retried.summary["rows"]) == (0, spent, WANTED)
        assert len(rows_of(session)) == WANTED
        report = (session / "report.html").read_text()
        assert "an answer that could not be used: refused" in report


def _command(user: User, line: str, *more: str) -> Ended:
    """Run the command that a line of a run advises."""
    words = shlex.split(line.partition(": vellumforge2 ")[2])
    return user.run(*words, *more, program=PROGRAM)

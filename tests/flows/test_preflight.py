"""A model that cannot be used, found out before anything is paid for, through the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, config, model

if TYPE_CHECKING:
    from tests.flows.command import User


def test_a_judge_that_cannot_be_used_ends_a_run_that_a_resume_goes_on_with(user: User) -> None:
    with model(fail_models="critic") as server:
        user.write("config.toml", config(server.url, mode="mo-dpo", preflight=True))
        ended = user.run("run", program=PROGRAM)
        assert (ended.code, ended.out) == (2, "")
        said, advice = ended.err.splitlines()
        (session,) = user.sessions()
        assert advice.endswith(f"vellumforge2 checkpoint resume {session.name}")
        assert said.startswith(
            f"vellumforge2: critic at {server.url} cannot be used for scores (judge): HTTP 404"
        )
        asked = server.requests()
        assert 1 <= len(asked) <= 4
        assert "subtopics" not in {request["kind"] for request in asked}

        server.start()
        ended = user.run("checkpoint", "resume", session.name, "--json", program=PROGRAM)
        assert (ended.code, ended.err) == (0, "")
        # What the others answered is kept. Then: subtopics, 3 lists of prompts, 6 pairs, and their scores.
        kept = sum(request["status"] == 200 for request in asked)
        assert len(server.requests()) == 4 - kept + 1 + 3 + 6 * 2 + 6 * 2
        assert ended.summary["rows"] == 6


def test_a_session_that_is_resumed_stays_as_it_was(user: User) -> None:
    with model() as server:
        user.write("config.toml", config(server.url, more="[budget]\nmax_calls = 1"))
        assert user.run("run", program=PROGRAM).code == 3
        (session,) = user.sessions()
        server.start(fail_models="weak-writer")
        more = ["--set", "execution.preflight=true", "--set", "budget.max_calls=99"]
        ended = user.run("checkpoint", "resume", session.name, *more, program=PROGRAM)
        assert ended.code == 2
        said, advice = ended.err.splitlines()
        assert "weak-writer" in said
        assert f"vellumforge2 checkpoint resume {session.name}" in advice
        assert json.loads((session / "session.json").read_text())["complete"] is False
        # That the main model writes lists is known from the subtopics.
        assert {request["kind"] for request in server.requests()} == {"prose"}

        server.start()
        assert user.run("checkpoint", "resume", session.name, *more, program=PROGRAM).code == 0


def test_a_transform_asks_its_model_first(user: User) -> None:
    with model(fail_models="weak-writer") as server:
        user.write("config.toml", config(server.url, preflight=True))
        chat = [
            {"from": "human", "value": "Why?"},
            {"from": "gpt", "value": "The tide turned, and so did we."},
        ]
        user.write("in.jsonl", json.dumps({"conversations": chat}) + "\n")
        words = ("transform", "--mode", "sft-to-dpo", "--input", "in.jsonl", "--output", "out.jsonl")
        ended = user.run(*words, program=PROGRAM)
        assert ended.code == 2
        assert "weak-writer at " in ended.err
        assert len(server.requests()) == 1

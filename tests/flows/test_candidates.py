"""Several answers to a prompt: another choice of the same ones is free, and further ones cost themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.command import PROGRAM, asked_twice, config, model, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, User

SUBTOPICS, PROMPTS = 2, 4
PAIRS = SUBTOPICS * PROMPTS
LISTS = 1 + SUBTOPICS


def settings(
    url: str, mode: str = "mo-dpo", *, replaced: bool = False, of: dict[str, Any] | None = None, **choice: Any
) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in (choice | (of or {})).items()]
    more = "[candidates]\n" + "\n".join(lines) + "\n"
    text = config(url, mode=mode, subtopics=SUBTOPICS, prompts=PROMPTS, more=more, replaced=replaced)
    return text.replace("enabled = false", "enabled = true")


def done(user: User, *words: str, code: int = 0) -> Ended:
    ended = user.run(*words, "--json")
    assert ended.code == code, ended.err
    return ended


def candidates_of(session: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (session / "candidates.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["sft", "dpo", "kto", "mo-dpo"])
def test_another_choice_is_free_and_the_same_as_from_the_start(user: User, mode: str) -> None:
    models = 1 if mode == "sft" else 2
    with model() as server:
        user.write("config.toml", settings(server.url, mode, count=3, choose="best_worst"))
        ended = user.run("estimate", "--json", program=PROGRAM)
        told = json.loads(ended.out)["total"]["to_pay"]
        assert told == LISTS + 2 * 3 * models * PAIRS
        assert done(user).summary["paid"] == told
        (first,) = user.sessions()
        rows = rows_of(first)
        assert len(rows) == PAIRS * (1 + (mode == "kto"))
        for row in candidates_of(first):
            assert len(row["candidates"]) == 3 * models
            best = next(item for item in row["candidates"] if item["choice"] == "chosen")
            assert best["score_total"] == max(item["score_total"] for item in row["candidates"])

        other = {"count": 3, "choose": "best_mean_minus_2_sd", "max_length_ratio": 1.5, "min_margin": 0.25}
        user.write("config.toml", settings(server.url, mode, of=other))
        ended = user.run("checkpoint", "diff", first.name, program=PROGRAM)
        assert "candidates.choose" in ended.out
        assert "judge: 0 calls reused" not in ended.out
        assert all(" 0 to be paid for" in line for line in ended.out.splitlines() if "calls reused" in line)
        refused = user.run("checkpoint", "resume", first.name, program=PROGRAM)
        assert refused.code == 2
        assert "candidates.choose" in refused.err
        ended = user.run("checkpoint", "resume", first.name, "--accept-changes", program=PROGRAM)
        assert ended.code == 0, ended.err
        assert done(user).summary["paid"] == 0
        second = user.sessions()[-1]
        for name in ("dataset.jsonl", "candidates.jsonl"):
            assert (first / name).read_bytes() == (second / name).read_bytes()

        asked = len(server.requests())
        user.write("config.toml", settings(server.url, mode, count=5, choose="best_worst"))
        assert done(user).summary["paid"] == 2 * 2 * models * PAIRS
        assert len(server.requests()) == asked + 2 * 2 * models * PAIRS
        assert not asked_twice(server.requests())


def test_what_tune_says_is_what_the_runs_then_keep(user: User) -> None:
    with model() as server:
        text = settings(server.url, "dpo", count=3, choose="best_worst", min_margin=1.0)
        user.write("config.toml", text)
        done(user, code=0)
        (session,) = user.sessions()
        asked = len(server.requests())
        ended = user.run("tune", session.name, "--json", program=PROGRAM)
        assert ended.code == 0, ended.err
        found = json.loads(ended.out)["settings"]
        assert found[0]["kept"] == len(rows_of(session))
        assert {item["of"] for item in found} == {PAIRS}
        kept = {(item["setting"], item["value"]): item for item in found}
        tried = (
            ("candidates.min_margin", 0.5),
            ("candidates.min_margin", 2.0),
            ("candidates.choose", "by_model"),
            ("candidates.choose", "best_random"),
            ("candidates.max_length_ratio", 1.25),
            ("judge_filtering.min_chosen_score", 4.5),
            ("judge_filtering.max_rejected_score", 2.0),
        )
        for key, value in tried:
            words = ["--set", f"{key}={value}"]
            if key.startswith("judge_filtering"):
                words += ["--set", "judge_filtering.enabled=true"]
            ended = user.run(*words, "--json")
            assert ended.code == 0, ended.err
            assert ended.summary["kept"] == kept[key, value]["kept"], key
        assert len({item["kept"] for item in found}) > 2, "the case is in vain where all keep as many"
        assert len(server.requests()) == asked
        shown = user.run("tune", session.name, program=PROGRAM)
        (line,) = [line for line in shown.out.splitlines() if line.startswith("min_margin = 0.5 ")]
        assert f" {kept['candidates.min_margin', 0.5]['kept']} of {PAIRS} " in line
        user.write("config.toml", config(server.url))
        done(user)
        refused = user.run("tune", user.sessions()[-1].name, program=PROGRAM)
        assert refused.code == 2
        assert "there is nothing to tune without a judge" in refused.err


def test_one_answer_of_each_is_what_it_was_without_the_section(user: User) -> None:
    with model() as server:
        text = settings(server.url, count=1)
        user.write("config.toml", text.replace("[candidates]\ncount = 1\n", ""))
        done(user)
        user.write("config.toml", text)
        assert done(user).summary["paid"] == 0
        user.write("config.toml", settings(server.url, count=2))
        assert done(user).summary["paid"] == 4 * PAIRS, "the first of each are those that were there"
        first, second, third = user.sessions()
        assert (first / "dataset.jsonl").read_bytes() == (second / "dataset.jsonl").read_bytes()
        assert not (second / "candidates.jsonl").exists()
        for row, kept in zip(candidates_of(third), rows_of(first), strict=True):
            contents = [item["content"] for item in row["candidates"] if item["number"] == 0]
            assert contents == [kept["chosen"], kept["rejected"]]


def test_pairs_that_are_too_close_are_replaced_until_there_are_enough(user: User) -> None:
    choice = {"count": 2, "models": ["main"], "choose": "best_worst", "min_margin": 0.3}
    with model() as server:
        text = settings(server.url, replaced=True, of=choice)
        user.write("config.toml", text.replace("[generation]", "[generation]\nmax_prompts_per_pair = 20"))
        ended = done(user)
        assert ended.summary["rows"] == PAIRS
        assert ended.summary["lost"].get("no_margin", 0) > 0, "the case is in vain where none is too close"
        (session,) = user.sessions()
        assert all(row["preference_margin"] >= 0.3 for row in rows_of(session))
        rows = (session / "dataset.jsonl").read_bytes()
        assert done(user).summary["paid"] == 0
        assert (user.sessions()[-1] / "dataset.jsonl").read_bytes() == rows

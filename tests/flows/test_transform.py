"""`vellumforge2 transform` as a process: every mode, bad input, kills, reasoning."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.core.transform.samples import ANSWER, OTHER, alpaca, dpo, kto, mo_dpo, sharegpt, write
from tests.flows.command import PROGRAM, asked_twice, config, model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.flows.command import Ended, Model, User

PROMPTS = [f"Number {number}: tell of a keeper and his lamp." for number in range(12)]
TRANSFORM = (*PROGRAM, "transform")
PRICING = "".join(
    f"[pricing.{model}]\ninput = 2.5\noutput = 10\n" for model in ("strong-writer", "weak-writer", "critic")
)
Row = dict[str, Any]


@pytest.fixture
def teller(user: User, demo_model: Model) -> User:
    """A user with a configuration for the demo model, of a mode that transform must not mind."""
    user.write("config.toml", config(demo_model.url, mode="sft"))
    return user


def transform(user: User, mode: str, *options: str) -> Ended:
    return user.run("--mode", mode, "--output", "out.jsonl", "--json", *options, program=TRANSFORM)


def rows_in(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def dry(user: User, mode: str) -> Row:
    """What a dry run says."""
    ended = transform(user, mode, "--input", "in.jsonl", "--dry-run")
    assert ended.code == 0, ended.err
    return ended.summary


def transformed(user: User, mode: str, rows: Sequence[Row], *options: str) -> list[Row]:
    write(user.folder / "in.jsonl", *rows)
    ended = transform(user, mode, "--input", "in.jsonl", *options)
    assert ended.code == 0, ended.err
    return rows_in(user.folder / "out.jsonl")


def test_sft_becomes_dpo(teller: User, demo_model: Model) -> None:
    rows = [(alpaca, sharegpt)[number % 2](prompt) for number, prompt in enumerate(PROMPTS)]
    found = transformed(teller, "sft-to-dpo", rows)
    assert [(row["prompt"], row["chosen"]) for row in found] == [(prompt, ANSWER) for prompt in PROMPTS]
    assert all(list(row) == ["prompt", "chosen", "rejected"] and row["rejected"] for row in found)
    assert {request["model"] for request in demo_model.requests()} == {"weak-writer"}


def test_rejected_answers_are_made_anew(teller: User) -> None:
    rows = [
        *map(dpo, PROMPTS[:2]),
        mo_dpo(PROMPTS[2]),
        *(kto(PROMPTS[3], label=side) for side in (True, False)),
    ]
    found = transformed(teller, "regen-rejected", rows)
    assert all(row["chosen"] == ANSWER and row["rejected"] != OTHER for row in found[:3])
    assert all(list(row) == ["prompt", "chosen", "rejected"] for row in found[:3]), "scores are void"
    assert found[3] == rows[3]
    assert found[4]["completion"] != OTHER
    assert (found[4]["prompt"], found[4]["label"]) == (PROMPTS[3], False)


def test_chosen_answers_are_made_anew_in_the_same_form(teller: User) -> None:
    rows = [alpaca(PROMPTS[0]), sharegpt(PROMPTS[1], main_topic="Sea", sub_topic="Lamps"), dpo(PROMPTS[2])]
    first, second, third = transformed(teller, "regen-chosen", rows)
    assert list(first) == ["instruction", "output"]
    assert first["output"] != ANSWER
    assert list(second) == ["main_topic", "sub_topic", "conversations"]
    assert [turn["from"] for turn in second["conversations"]] == ["human", "gpt"]
    assert second["conversations"][1]["value"] != ANSWER
    assert third["rejected"] == OTHER
    assert third["chosen"] != ANSWER


def test_pairs_are_judged_as_a_run_judges_them(teller: User, demo_model: Model) -> None:
    found = transformed(teller, "rejudge", [dpo(PROMPTS[0]), mo_dpo(PROMPTS[1])])
    for row in found:
        assert (row["chosen"], row["rejected"]) == (ANSWER, OTHER)
        scores = [row[side].values() for side in ("chosen_scores", "rejected_scores")]
        totals = [sum(item["score"] for item in side) / len(side) for side in scores]
        assert totals == [row["chosen_score_total"], row["rejected_score_total"]]
        assert row["preference_margin"] == totals[0] - totals[1]
        assert all(item["reasoning"] for side in scores for item in side)
    assert (found[0]["sub_topic"], found[1]["sub_topic"]) == ("", "Lamps")
    assert {request["model"] for request in demo_model.requests()} == {"critic"}


def test_a_session_of_mo_dpo_is_judged_again_for_nothing(teller: User, demo_model: Model) -> None:
    teller.write("config.toml", config(demo_model.url, mode="mo-dpo"))
    assert teller.run().code == 0
    (session,) = teller.sessions()
    ended = transform(teller, "rejudge", "--input", str(session / "dataset.jsonl"))
    assert (ended.code, ended.summary["paid"]) == (0, 0), ended.err
    assert (teller.folder / "out.jsonl").read_bytes() == (session / "dataset.jsonl").read_bytes()


def test_reasoning_is_added_and_read_again(teller: User) -> None:
    rows = [alpaca(PROMPTS[0]), mo_dpo(PROMPTS[1])]
    first, second = transformed(teller, "add-reasoning", rows)
    assert first["output"].startswith("<think>\n")
    assert first["output"].endswith(f"\n</think>\n\n{ANSWER}")
    assert second["chosen"].startswith("<think>\n")
    assert (second["rejected"], second["chosen_scores"]) == (OTHER, rows[1]["chosen_scores"])
    # What has reasoning stays as it is.
    (teller.folder / "out.jsonl").rename(teller.folder / "thought.jsonl")
    ended = transform(teller, "add-reasoning", "--input", "thought.jsonl")
    assert (ended.code, ended.summary["paid"], ended.summary["reused"]) == (0, 0, 0), ended.err
    assert rows_in(teller.folder / "out.jsonl") == [first, second]


@pytest.mark.parametrize("alone", [True, False])
def test_reasoning_goes_along(teller: User, *, alone: bool) -> None:
    thought = f"<think>\nWhat is a lamp for?\n</think>\n\n{ANSWER}"
    write(teller.folder / "plain.jsonl", *map(alpaca, PROMPTS))
    write(teller.folder / "thought.jsonl", *(alpaca(prompt) | {"output": thought} for prompt in PROMPTS))
    given = ["--input-reasoning", "thought.jsonl", "--output-reasoning", "reasoned.jsonl"]
    given += [] if alone else ["--input", "plain.jsonl"]
    ended = transform(teller, "sft-to-dpo", *given)
    assert ended.code == 0, ended.err
    plain, reasoned = (rows_in(teller.folder / name) for name in ("out.jsonl", "reasoned.jsonl"))
    assert [row["chosen"] for row in plain] == [ANSWER] * len(PROMPTS)
    assert reasoned == [row | {"chosen": thought} for row in plain]


def test_parquet_gives_what_json_lines_give(teller: User) -> None:
    rows = [*map(dpo, PROMPTS)]
    expected = transformed(teller, "regen-rejected", rows)
    pq.write_table(pa.Table.from_pylist(rows), teller.folder / "in.parquet", row_group_size=5)
    ended = transform(teller, "regen-rejected", "--input", "in.parquet")
    assert (ended.code, ended.summary["paid"]) == (0, 0), ended.err
    assert rows_in(teller.folder / "out.jsonl") == expected


@pytest.mark.parametrize(("mode", "calls"), [("sft-to-dpo", 12), ("rejudge", 12 + 1)])
def test_what_a_dry_run_counts_is_what_the_run_pays_for(
    teller: User, demo_model: Model, mode: str, calls: int
) -> None:
    teller.write("config.toml", config(demo_model.url, mode="sft", more=PRICING))
    # Far apart, the first prompt comes again: of rejudge, its rejected answer is another one.
    rows = [*map(dpo, PROMPTS), dpo(PROMPTS[0]) | {"rejected": ANSWER}]
    if mode == "rejudge":
        rows = [*map(dpo, PROMPTS[:6]), dpo(PROMPTS[0]) | {"rejected": f"{OTHER} And off."}]
    elif mode == "sft-to-dpo":
        rows = [alpaca(row["prompt"]) for row in rows]
    write(teller.folder / "in.jsonl", *rows)
    told = dry(teller, mode)
    assert (told["rows"], told["skipped"], told["mode"]) == (len(rows), 0, mode)
    (phase,) = told["phases"]
    assert (phase["reused"], phase["to_pay"], phase["measured"]) == (0, calls, 0)
    assert demo_model.stats()["requests"] == 0
    assert sorted(path.name for path in teller.folder.iterdir()) == ["config.toml", "in.jsonl"]

    write(teller.folder / "some.jsonl", *rows[:4])
    before = transform(teller, mode, "--input", "some.jsonl").summary
    assert before["usd"] > 0
    told = dry(teller, mode)["total"]
    assert (told["reused"], told["to_pay"]) == (before["paid"], calls - before["paid"])
    summary = transform(teller, mode, "--input", "in.jsonl").summary
    assert summary["paid"] == told["to_pay"]
    for name in ("prompt_tokens", "completion_tokens", "usd"):
        assert told[name]["low"] <= told[name]["likely"] <= told[name]["high"], name
        # From four rows, whose lengths are chance: of the right size is all that can be asked.
        assert told[name]["likely"] / 3 <= summary[name] <= told[name]["likely"] * 3, name

    requests = demo_model.stats()["requests"]
    after = dry(teller, mode)["total"]
    assert (after["reused"], after["to_pay"], after["usd"]["high"]) == (calls, 0, 0)
    assert demo_model.stats()["requests"] == requests


def test_a_dry_run_is_a_table_and_refuses_what_the_run_refuses(teller: User, demo_model: Model) -> None:
    write(teller.folder / "in.jsonl", alpaca(PROMPTS[0]), "{")
    command = ["--mode", "sft-to-dpo", "--input", "in.jsonl", "--output", "out.jsonl", "--dry-run"]
    refused = teller.run(*command, program=TRANSFORM)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "in.jsonl:2" in refused.err
    told = teller.run(*command, "--skip-bad", program=TRANSFORM)
    assert told.code == 0, told.err
    assert "1 rows (sft-to-dpo); 1 bad lines are skipped\n" in told.out
    assert re.search(r"rejected +weak-writer +0 +1 ", told.out)
    assert "no price is set for weak-writer" in told.out
    assert demo_model.stats()["requests"] == 0
    assert sorted(path.name for path in teller.folder.iterdir()) == ["config.toml", "in.jsonl"]


def test_a_bad_line_costs_nothing_and_may_be_skipped(teller: User, demo_model: Model) -> None:
    write(teller.folder / "in.jsonl", alpaca(PROMPTS[0]), "{", dpo(PROMPTS[1]), alpaca(PROMPTS[2]))
    refused = transform(teller, "sft-to-dpo", "--input", "in.jsonl")
    assert refused.code == 2
    assert [line.split(": ")[1] for line in refused.err.splitlines()] == ["in.jsonl:2", "in.jsonl:3"]
    assert demo_model.stats()["requests"] == 0
    assert teller.sessions() == []
    ended = transform(teller, "sft-to-dpo", "--input", "in.jsonl", "--skip-bad")
    assert (ended.code, ended.summary["skipped"], ended.summary["rows"]) == (0, 2, 2), ended.err
    assert [row["prompt"] for row in rows_in(teller.folder / "out.jsonl")] == [PROMPTS[0], PROMPTS[2]]
    (session,) = teller.sessions()
    assert [row["line"] for row in rows_in(session / "skipped.jsonl")] == [2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--input", "none.jsonl"], "none.jsonl cannot be read"),
        ([], "give the rows with --input"),
        (["--input", "in.jsonl", "--output", "in.jsonl"], "in.jsonl is given twice"),
        (["--input", "in.jsonl", "--output", "nowhere/out.jsonl"], "there is no folder nowhere"),
        (["--input", "in.jsonl", "--mode", "dpo-to-sft"], "there is no mode 'dpo-to-sft'"),
    ],
)
def test_what_cannot_be_used_is_said_on_one_line(teller: User, options: list[str], words: str) -> None:
    write(teller.folder / "in.jsonl", alpaca(PROMPTS[0]))
    given = {"--mode": "sft-to-dpo", "--output": "out.jsonl"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    ended = teller.run(*(word for pair in given.items() for word in pair), program=TRANSFORM)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert words in ended.err
    assert teller.sessions() == []


@pytest.mark.parametrize("mode", ["sft-to-dpo", "regen-chosen", "add-reasoning"])
def test_killed_and_run_again_it_is_the_same_and_pays_once(user: User, mode: str) -> None:
    rows = [alpaca(f"{prompt} Again, {number}.") for number in range(10) for prompt in PROMPTS]
    write(user.folder / "in.jsonl", *rows)
    options = ["--mode", mode, "--input", "in.jsonl", "--output", "out.jsonl", "--json"]
    with model(latency_ms=20.0, cut=0.03, error=0.02) as server:
        user.write("config.toml", config(server.url, concurrency=6))
        for stop in (13, 50, 100):
            process = user.start(*options, program=TRANSFORM)
            assert server.until_requests(stop, process)
            process.kill(group=True)
            assert process.end().code == -signal.SIGKILL
            assert not (user.folder / "out.jsonl").exists()
        last = user.run(*options, program=TRANSFORM)
        assert last.code == 0, last.err
        once = (user.folder / "out.jsonl").read_bytes()
        assert once.count(b"\n") == len(rows)
        before = server.stats()
        again = user.run(*options, program=TRANSFORM)
        assert (again.code, again.summary["paid"]) == (0, 0), again.err
        assert (user.folder / "out.jsonl").read_bytes() == once
        assert server.stats()["requests"] == before["requests"]
        # Only what was in flight at a kill is asked for twice, or what was answered with an error.
        failed = before["requests"] - before["answered"] + round(0.1 * before["requests"])
        assert len(asked_twice(server.requests())) <= 3 * 2 * 6 + failed
        assert before["answered"] < 2 * len(rows)
        # A run that nothing disturbed writes the same.
        undisturbed = user.folder / "undisturbed.jsonl"
        options[5] = undisturbed.name
        alone = user.run(*options, "--set", "output.folder=other", program=TRANSFORM)
        assert (alone.code, alone.summary["reused"]) == (0, 0), alone.err
        assert undisturbed.read_bytes() == once


def test_a_row_that_fails_is_named_and_the_others_are_written(user: User) -> None:
    with model(fail_matching="Number 3") as server:
        user.write("config.toml", config(server.url))
        write(user.folder / "in.jsonl", *map(alpaca, PROMPTS))
        ended = transform(user, "sft-to-dpo", "--input", "in.jsonl")
    assert ended.code == 3
    assert "1 of 12 rows failed" in ended.err
    assert "vellumforge2 transform --mode sft-to-dpo --output out.jsonl --input in.jsonl" in ended.err
    found = [row["prompt"] for row in rows_in(user.folder / "out.jsonl")]
    assert found == [prompt for prompt in PROMPTS if "Number 3:" not in prompt]
    (session,) = user.sessions()
    listed = user.run("failures", session.name, program=PROGRAM)
    assert "line 4: rejected" in listed.out
    resumed = user.run("checkpoint", "resume", session.name, program=PROGRAM)
    assert resumed.code == 2
    assert "is that of a transform" in resumed.err


def test_rows_are_judged_again_by_a_panel_without_the_first_judge(teller: User, demo_model: Model) -> None:
    text = config(demo_model.url, mode="mo-dpo")
    judge = text[text.index("[models.judge]") : text.index("[execution]")]
    panel = "[judging]\nmodels = ['one', 'other']\nmode = 'pairwise'\n" + "".join(
        judge.replace("[models.judge]", f"[models.{name}]").replace('"critic"', f'"{name}"')
        for name in ("one", "other")
    )
    teller.write("config.toml", text.replace(judge, panel))
    write(teller.folder / "in.jsonl", dpo(PROMPTS[0]))
    ended = transform(teller, "rejudge", "--input", "in.jsonl")
    assert (ended.code, ended.summary["paid"]) == (0, 4), ended.err
    assert {request["model"] for request in demo_model.requests()} == {"one", "other"}
    (row,) = rows_in(teller.folder / "out.jsonl")
    assert row["preference_margin"] == row["chosen_score_total"] - row["rejected_score_total"]

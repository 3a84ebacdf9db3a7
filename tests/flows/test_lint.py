"""Lint as a command and at the end of a run: what it prints, its exit codes, its figures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx

from tasks.core.printable import escaped
from tests.core.lint.planted import clean, write
from tests.flows.command import PROGRAM, TIMEOUT, config

if TYPE_CHECKING:
    from tests.flows.command import Ended, Model, User

HOSTILE = "\x1b[2J\u202egnp.exe \x07" * 100


def lint(user: User, *words: str) -> Ended:
    """Run the command."""
    ended = user.run("lint", *words, program=PROGRAM)
    assert "Traceback" not in ended.err
    return ended


def test_a_file_is_looked_at_and_a_pipeline_can_stop_there(user: User) -> None:
    rows = clean("dpo")
    rows[3]["rejected"] = rows[3]["chosen"]
    rows[7] |= {"prompt": HOSTILE, "chosen": HOSTILE, "rejected": HOSTILE}
    write(user.folder / "pairs.jsonl", rows)

    told = lint(user, "pairs.jsonl")
    assert (told.code, told.err) == (0, "")
    assert all(line.isprintable() for line in told.out.splitlines())
    assert "identical: 2 of 40 pairs, 5.0%: chosen and rejected are the same" in told.out
    assert "  row 4: " in told.out
    assert told.out.count("  what to do: ") == 1

    document = json.loads(lint(user, "pairs.jsonl", "--json", "--max-tokens", "100").out)
    assert (document["file"], document["mode"], document["rows"]) == ("pairs.jsonl", "dpo", 40)
    by_check = {item["check"]: item for item in document["findings"]}
    assert list(by_check) == ["identical", "tokens"]
    assert [example["row"] for example in by_check["identical"]["examples"]] == [4, 8]
    assert all(item["text"].isprintable() for item in by_check["tokens"]["examples"])

    stopped = lint(user, "pairs.jsonl", "--fail-on", "refusals,identical=0.01", "--fail-on", "markup")
    assert (stopped.code, stopped.out) == (1, told.out)
    assert stopped.err == "vellumforge2: more than --fail-on allows: identical 0.05 (allowed: 0.01)\n"
    assert lint(user, "pairs.jsonl", "--fail-on", "identical=0.05,refusals").code == 0


def test_a_clean_file_passes_every_check(user: User) -> None:
    for mode in ("alpaca", "sharegpt", "dpo", "kto", "mo-dpo"):
        write(user.folder / "rows.jsonl", clean(mode))
        told = lint(user, "rows.jsonl", "--fail-on", "identical,truncated,markup,script,refusals,think_tags")
        assert (told.code, told.err) == (0, "")
        assert told.out.endswith("\nnothing found\n")


def test_what_cannot_be_looked_at_is_said_in_a_line(user: User) -> None:
    write(user.folder / "rows.jsonl", clean("dpo", 4))
    with (user.folder / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "\x1b[2J\n' * 12)
    user.write("empty.jsonl", "\n")
    told = lint(user, "rows.jsonl", "--fail-on", "refusals")
    assert (told.code, "4 pairs (dpo)" in told.out) == (2, True)
    reasons = told.err.splitlines()
    assert reasons[0].startswith("vellumforge2: rows.jsonl:5: it is no JSON")
    assert reasons[-1] == "vellumforge2: and 2 more lines that are no rows"
    assert all(line.isprintable() for line in reasons)
    assert json.loads(lint(user, "rows.jsonl", "--json").out)["bad_lines"] == 12
    for words, reason in (
        (("empty.jsonl",), "empty.jsonl holds no rows"),
        (("nowhere.jsonl",), "there is no file 'nowhere.jsonl'"),
        (("session_2026-01-01T00-00-00",), "there is no session session_2026-01-01T00-00-00"),
        ((".",), "there is no file 'dataset.jsonl'"),
        (("rows.jsonl", "--fail-on", "beauty"), "there is no such check; there are empty, identical, "),
        (("rows.jsonl", "--max-tokens", "0"), "--max-tokens 0: a row has at least one token"),
        (("rows.jsonl", "--fail-on", "tokens"), "give --max-tokens"),
    ):
        refused = lint(user, *words)
        assert (words, refused.code, refused.out) == (words, 2, "")
        assert reason in refused.err
        assert len(refused.err.splitlines()) == 1


def test_a_run_says_at_its_end_and_on_its_page_what_lint_finds(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url, subtopics=4, prompts=5))
    ended = user.run()
    assert (ended.code, ended.err) == (0, "")
    (session,) = user.sessions()
    # The demo's strong writer writes longer answers than its weak one.
    line = "lint found in 20 pairs: length_bias 20 (100.0%)"
    assert f"\n{line}; see vellumforge2 lint {session.name}\n" in ended.out
    assert line in (session / "session.log").read_text()

    figures = user.run("--json").summary["lint"]
    assert (figures["mode"], figures["rows"], figures["lengths"]["chosen_longer"]) == ("dpo", 20, 1)
    assert [(item["check"], item["share"]) for item in figures["findings"]] == [("length_bias", 1)]
    assert {"identical", "duplicate_prompts"} <= set(figures["shares"])

    told = lint(user, session.name, "--json")
    document = json.loads(told.out)
    assert document["file"] == f"output/{session.name}/dataset.jsonl"
    assert document["shares"] == figures["shares"]
    assert lint(user, f"output/{session.name}", "--json").out == told.out
    assert lint(user, f"output/{session.name}/dataset.jsonl", "--json").out == told.out

    # The page of the run has a table of it.
    wanted = {"artifacts": {"key": {"any_": ["summary"]}}}
    found = httpx.post(f"{user.variables['PREFECT_API_URL']}/artifacts/filter", json=wanted, timeout=TIMEOUT)
    pages = [page["data"] for page in found.json()]
    # The second run's session, begun in the same second, is called like the first one and a number.
    later = escaped(user.sessions()[-1].name)
    (page,) = [page for page in pages if escaped(session.name) in page and later not in page]
    _, _, table = page.partition("## Lint\n\n| check | found | what to do |\n|---|---|---|\n")
    assert table.startswith("| length\\_bias | 20 of 20 pairs\\, 100\\.0\\%\\: chosen is the longer one")


def test_a_small_clean_run_says_nothing_of_lint(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url, mode="sft"))
    ended = user.run()
    assert (ended.code, "lint" in ended.out) == (0, False)
    (session,) = user.sessions()
    assert lint(user, session.name).out.endswith("\nnothing found\n")


def test_a_large_file_needs_no_more_memory_than_a_small_one(user: User) -> None:
    peak = (
        "import resource, sys; from flows.commands.app import main; main(['lint', sys.argv[1]]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    # A fork would have its parent's peak.
    alone = replace(user, forks=False)
    for name, times in (("small.jsonl", 1), ("large.jsonl", 40)):
        with (user.folder / name).open("w") as file:
            for row in clean("dpo", 100) * times:
                file.write(
                    json.dumps(row | {"chosen": row["chosen"] * 200, "rejected": row["rejected"] * 200})
                )
                file.write("\n")
        peaks.append(int(alone.run(name, program=(sys.executable, "-c", peak)).out.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 20  # MB; the large file has 160

"""Exactly as many pairs as are wanted: new prompts replace those that yield none, and the summary adds up."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.sameness import likeness
from tests.flows.command import PROGRAM, asked_twice, config, model, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, Model, User

WRONG: dict[str, Any] = {"refuse": 0.15, "repeat": 0.15, "bad": 0.08}
SUBTOPICS, PROMPTS = 10, 6
PAIRS = SUBTOPICS * PROMPTS
CONCURRENCY = 4
ONCE = "max_retries = 0\nmax_backoff_seconds = 0.1"
"""What cannot be used is not asked for again, so that much is to be replaced."""
UNNAMED = "max_exclusion_list_size = 0"
"""A question for further prompts names none that there are: a server may refuse it for one of them."""
ALIKE = 0.7
FILTERED = """
[judge_filtering]
enabled = true
min_chosen_score = 3.9
max_rejected_score = 2.4
"""
LINTED = """
[lint]
drop = ["truncated", "margin", "tokens"]
max_tokens = 900
"""


def settings(
    server: Model, mode: str = "dpo", *, generation: str = "", more: str = "", answered: float = 0.3
) -> str:
    """A configuration; of its subtopics `answered`, a share, must have prompts: a bad list loses one."""
    return config(
        server.url,
        mode=mode,
        subtopics=SUBTOPICS,
        prompts=PROMPTS,
        concurrency=CONCURRENCY,
        generation=f"min_success_rate = {answered}\n{generation}",
        models=ONCE,
        more=more,
        replaced=True,
    )


def prompts_of(session: Path) -> list[str]:
    """The prompts of a session's pairs, one a pair."""
    rows = rows_of(session)
    key = "conversations" if "conversations" in rows[0] else "prompt"
    found = [row[key] if key == "prompt" else row[key][0]["value"] for row in rows]
    return found[::2] if "label" in rows[0] else found


def check(ended: Ended, session: Path, wanted: int = PAIRS) -> dict[str, Any]:
    """See that a run brought what was wanted, and that its numbers add up."""
    assert ended.code == 0, ended.err
    summary = ended.summary
    lost = sum(summary["lost"].values())
    assert (summary["wanted"], summary["kept"], summary["missing"]) == (wanted, wanted, 0)
    assert (summary["jobs"], summary["failures"]) == (wanted + lost, 0)
    prompts = prompts_of(session)
    assert len(prompts) == len(set(prompts)) == wanted
    checkpoint = json.loads((session / "checkpoint.json").read_text())
    assert checkpoint["current_phase"] == "complete"
    assert len(checkpoint["prompts"]) == len(checkpoint["completed_job_ids"]) == summary["jobs"]
    stats = checkpoint["stats"]
    assert (stats["SuccessCount"], stats["FilteredCount"], stats["FailureCount"]) == (wanted, lost, 0)
    # Rows stand in the order of jobs, replacements among them.
    order = {job["Prompt"]: job["ID"] for job in checkpoint["prompts"]}
    places = [order[prompt] for prompt in prompts]
    assert places == sorted(places)
    return summary


def check_replaced(server: Model, summary: dict[str, Any], session: Path) -> None:
    """See that much was wrong, that nothing of it is in the dataset, and that nothing was paid for twice."""
    assert summary["lost"]["refused"] > 0
    assert summary["dropped"]["duplicate"] > 0
    assert not asked_twice(server.requests())
    assert summary["paid"] == len(server.requests())
    alike = max(likeness(one, other) for one, other in itertools.combinations(prompts_of(session), 2))
    assert alike < ALIKE


@pytest.mark.parametrize("mode", ["sft", "kto", "mo-dpo"])
def test_a_model_that_refuses_repeats_and_answers_badly_still_brings_all_of_them(
    user: User, mode: str
) -> None:
    """Of dpo, the next test: its first run is such a one."""
    with model(**WRONG) as server:
        user.write("config.toml", settings(server, mode))
        first = user.run("--json")
        (session,) = user.sessions()
        summary = check(first, session)
        assert mode != "mo-dpo" or summary["lost"]["bad_scores"] > 0
        check_replaced(server, summary, session)

        told = user.run()
        assert told.code == 0, told.err
        assert len(server.requests()) == summary["paid"]
    again = user.sessions()[-1]
    assert (again / "dataset.jsonl").read_bytes() == (session / "dataset.jsonl").read_bytes()
    lost = sum(summary["lost"].values())
    assert f"{summary['jobs']} prompts for {PAIRS} pairs: {lost} yielded none (" in told.out
    assert all(f"{count} {cause}" in told.out for cause, count in summary["lost"].items())
    report = (again / "report.html").read_text(encoding="utf-8")
    assert "yielded no usable pair: refused" in report


def test_killed_while_replacing_it_comes_to_the_same_and_pays_once(user: User, tmp_path: Path) -> None:
    with model(**WRONG) as server:
        calm = user.made(tmp_path / "calm", **user.variables).in_one_process()
        for someone in (calm, user):
            someone.write("config.toml", settings(server))
        first = calm.run("--json")
        (undisturbed,) = calm.sessions()
        check_replaced(server, check(first, undisturbed), undisturbed)
        calls = {request["key"] for request in server.requests()}
        server.start(latency_ms=40.0, **WRONG)
        options: tuple[str, ...] = ()
        for share in (0.3, 0.7, 0.9):
            process = user.start("--json", *options)
            assert server.until_requests(int(share * len(calls)), process)
            process.kill(group=True)
            process.end()
            options = ("--resume", user.sessions()[0].name)
        check(user.run("--json", *options), user.sessions()[0])
        requests = server.requests()
    assert {request["key"] for request in requests} == calls
    in_flight = sum(not request["finished"] for request in requests)
    # An answer that was on its way to the ledger when the process died is asked for again as well.
    most = 3 * 2 * CONCURRENCY
    assert len(asked_twice(requests)) <= in_flight + most
    answered = [request["key"] for request in requests if request["finished"]]
    assert len(answered) - len(set(answered)) <= most
    (session,) = user.sessions()
    assert (session / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()


def test_what_thresholds_and_lint_keep_out_is_replaced(user: User) -> None:
    with model(cut=0.1) as server:
        generation = "max_prompts_per_pair = 20"
        user.write("config.toml", settings(server, generation=generation, more=FILTERED + LINTED))
        ended = user.run("--json")
        (session,) = user.sessions()
        summary = check(ended, session)
        assert {"filtered", "lint_truncated"} <= summary["lost"].keys()
        # What lint keeps out is not judged: each other job has two scores.
        kinds = [request["kind"] for request in server.requests()]
        lint = sum(count for cause, count in summary["lost"].items() if cause.startswith("lint_"))
        incomplete = summary["lost"].get("incomplete", 0)
        unjudged = lint - summary["lost"].get("lint_margin", 0) + incomplete
        assert kinds.count("judge") == 2 * (summary["jobs"] - unjudged)
        linted = user.run("lint", session.name, "--fail-on", "truncated", program=PROGRAM)
        assert linted.code == 0, linted.out
        again = user.run("--json")
        assert (again.summary["paid"], again.summary["lost"]) == (0, summary["lost"])


def test_it_ends_where_as_many_prompts_were_answered_as_may_be(user: User) -> None:
    with model(refuse=0.5) as server:
        user.write("config.toml", settings(server, generation="max_prompts_per_pair = 1.2"))
        ended = user.run("--json")
        assert ended.code == 3
        summary = ended.summary
        most = PAIRS * 12 // 10
        assert (summary["jobs"], summary["spent"]) == (most, True)
        assert summary["kept"] + sum(summary["lost"].values()) == most
        assert summary["missing"] == PAIRS - summary["kept"] > 0
        said = (
            f"{summary['kept']} of {PAIRS} pairs after {most} prompts, as many as generation.max_prompts_per"
        )
        assert said in ended.err
        (session,) = user.sessions()
        assert len(rows_of(session)) == summary["kept"]

        more = ("--set", "generation.max_prompts_per_pair=10")
        resumed = user.run("checkpoint", "resume", session.name, "--json", *more, program=PROGRAM)
        check(resumed, session)
        assert not asked_twice(server.requests())
        whole = user.run("--json", *more)
        assert (whole.code, whole.summary["paid"]) == (0, 0)
        one, other = (folder / "dataset.jsonl" for folder in user.sessions())
        assert one.read_bytes() == other.read_bytes()


def test_a_model_that_has_no_more_prompts_ends_the_run_in_one_line(user: User) -> None:
    with model(repeat=1.0) as server:
        user.write("config.toml", settings(server, answered=0.0))
        ended = user.run("--json")
        assert ended.code == 3, ended.err
        summary = ended.summary
        assert 0 < summary["kept"] == PAIRS - summary["missing"]
        assert not summary["spent"]
        assert f"{summary['missing']} prompts of {PAIRS} missing" in ended.err
        assert not asked_twice(server.requests())


@pytest.mark.parametrize("target", [1, 7, 2 * PAIRS + 1], ids=["one", "few", "more"])
def test_any_number_of_pairs_can_be_asked_for(user: User, target: int) -> None:
    with model(**WRONG) as server:
        user.write("config.toml", settings(server, generation=f"target_pairs = {target}"))
        summary = check(user.run("--json"), user.sessions()[0], target)
        assert not asked_twice(server.requests())
        if target < SUBTOPICS:
            # Nobody is asked for prompts that nobody wants.
            asked = [request["kind"] for request in server.requests()]
            assert asked.count("prompts") <= summary["jobs"]


def test_what_a_server_refuses_for_what_is_in_it_is_replaced_for_good(user: User) -> None:
    text = "qu"
    with model(latency_ms=20.0, fail_matching=text) as server:
        user.write("config.toml", settings(server, generation=UNNAMED))
        process = user.start("--json")
        assert server.until_requests(PAIRS, process)
        process.kill(group=True)
        process.end()
        (session,) = user.sessions()
        check(user.run("--json", "--resume", session.name), session)
        refused = {request["key"] for request in server.requests() if request["status"] == 400}
        assert refused
        assert not any(text in prompt for prompt in prompts_of(session))
        dataset = (session / "dataset.jsonl").read_bytes()

        server.start()
        resumed = user.run("--json", "--resume", session.name, "--accept-changes")
        assert (resumed.code, resumed.summary["paid"]) == (0, 0), resumed.err
        assert (session / "dataset.jsonl").read_bytes() == dataset
        assert server.requests() == []


def test_a_server_that_refuses_everything_is_not_asked_for_more(user: User) -> None:
    refused = "Write a short story for this prompt:"
    with model(fail_matching=refused) as server:
        user.write("config.toml", settings(server))
        ended = user.run("--set", "execution.stop_at_loss=1")
        assert (ended.code, ended.out) == (3, "")
        line = ended.err.splitlines()[0]
        assert line.startswith("vellumforge2: weak-writer at ")
        assert "refuses every request for rejected: HTTP 400: The request was rejected" in line
        (session,) = user.sessions()
        paid = [request["key"] for request in server.requests() if request["status"] == 200]
        assert len(paid) < PAIRS

        server.start()
        resumed = user.run("checkpoint", "resume", session.name, "--json", program=PROGRAM)
        check(resumed, session)
        # What is paid for is paid for.
        assert not set(paid) & {request["key"] for request in server.requests()}


def test_a_session_with_replacements_is_merged_and_loses_nothing_to_a_prune(user: User) -> None:
    with model(refuse=0.2) as server:
        user.write("config.toml", settings(server))
        first = user.run("--json")
        (session,) = user.sessions()
        summary = check(first, session)
        pruned = user.run("ledger", "prune", program=PROGRAM)
        assert pruned.code == 0, pruned.err
        again = user.run("--json")
        assert (again.code, again.summary["paid"]) == (0, 0)
        into, both = "session_2026-01-31T12-00-00", [folder.name for folder in user.sessions()]
        merged = user.run("checkpoint", "merge", *both, "--into", into, program=PROGRAM)
        assert merged.code == 0, merged.err
        whole = session.with_name(into)
        assert sorted(prompts_of(whole)) == sorted(prompts_of(session))
        record = json.loads((whole / "session.json").read_text())
        assert (record["complete"], summary["lost"]["refused"] > 0) == (True, True)
        assert len(server.requests()) == summary["paid"]


def test_what_was_refused_travels_with_the_session(user: User, tmp_path: Path) -> None:
    text = "qu"
    mirror = f'[output]\nmirror = "file://{tmp_path}/mirror"\n'
    by_archive, by_mirror = (
        user.made(tmp_path / how, **{**user.variables, "PREFECT_HOME": str(tmp_path / how / "prefect")})
        for how in ("archive", "mirror")
    )
    with model(fail_matching=text) as server:
        for someone, more in ((user, mirror), (by_archive, ""), (by_mirror, mirror)):
            someone.write("config.toml", settings(server, generation=UNNAMED, more=more))
        summary = check(user.run("--json"), user.sessions()[0])
        (session,) = user.sessions()
        assert any(request["status"] == 400 for request in server.requests())
        assert summary["lost"]["question_refused"] > 0
        dataset = (session / "dataset.jsonl").read_bytes()

        # From here on everything would be answered, if it were asked.
        server.start()
        carried = str(tmp_path / "session.zip")
        exported = user.run("checkpoint", "export", session.name, "--to", carried, program=PROGRAM)
        assert exported.code == 0, exported.err
        assert by_archive.run("checkpoint", "import", carried, program=PROGRAM).code == 0
        trl = by_archive.run("export", session.name, "--format", "trl", program=PROGRAM)
        assert (trl.code, trl.err) == (0, "")
        shutil.rmtree(user.folder)
        for there in (by_archive, by_mirror):
            resumed = there.run(
                "checkpoint", "resume", session.name, "--accept-changes", "--json", program=PROGRAM
            )
            assert (resumed.code, resumed.summary["paid"]) == (0, 0), resumed.err
            assert resumed.summary["lost"] == summary["lost"]
            (arrived,) = there.sessions()
            assert (arrived / "dataset.jsonl").read_bytes() == dataset
        assert server.requests() == []

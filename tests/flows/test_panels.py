"""Several judges and models in a whole run: what it takes is known before, and a re-run pays for nothing."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.flows.command import PROGRAM, asked_twice, model, rows_of
from tests.flows.test_candidates import LISTS, PAIRS, candidates_of, done, settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import User

JUDGES = ("critic", "second", "third")
FURTHER = "".join(
    f"[models.{name}]\nbase_url = 'URL'\nmodel_name = '{name}'\nrate_limit_per_minute = 0\nmax_retries = 2\n"
    for name in (*JUDGES[1:], "other_writer")
)


def judged_by(url: str, *, count: int = 2, more: str = "", **judging: Any) -> str:
    """Settings with two further judges and a further writer."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in judging.items()]
    section = "[judging]\n" + "\n".join(lines)
    models = ["main", "rejected", "other_writer"]
    text = settings(url, of={"count": count, "models": models, "choose": "best_worst"})
    return f"{text}\n{section}\n{FURTHER.replace('URL', url)}\n{more}"


def lines_of(session: Path, name: str) -> list[dict[str, Any]]:
    (file,) = (session / name / "data" / name).iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("judging", "of_each"),
    [
        ({"models": ["judge", "second", "third"], "agree": 2}, 3 * 6),
        ({"models": ["judge", "second"], "mode": "pairwise"}, 2 * 6 + 2 * 2),
        ({"models": ["second"], "mode": "checklist"}, 1 + 6),
    ],
)
def test_what_judges_take_is_known_and_bought_once(user: User, judging: dict[str, Any], of_each: int) -> None:
    with model() as server:
        trl = '[output]\nformats = ["native", "trl"]\n'
        user.write("config.toml", judged_by(server.url, more=trl, **judging))
        ended = user.run("estimate", "--json", program=PROGRAM)
        assert ended.code == 0, ended.err
        told = json.loads(ended.out)["total"]["to_pay"]
        assert told == LISTS + PAIRS * (6 + of_each)
        ended = done(user)
        dropped = sum(ended.summary["lost"].values())
        pairwise = judging.get("mode") == "pairwise"
        assert told - 4 * dropped * pairwise <= ended.summary["paid"] <= told
        (first,) = user.sessions()
        rows = rows_of(first)
        assert len(rows) == PAIRS - dropped
        several = len(judging["models"]) > 1
        for row, chosen in zip(rows, candidates_of(first), strict=True):
            assert {item["model"] for item in chosen["candidates"]} == {"main", "rejected", "other_writer"}
            assert [item["judge"] for item in row.get("judges", [])] == judging["models"] * several
            if several:
                assert row["agreement"] == chosen["agreement"] >= (2 / 3 if "agree" in judging else 0.5)
            assert ("flipped" in row) == pairwise
        assert bool(ended.summary["opinions"]) == several
        assert ended.summary["exported"], "trainers get their rows too"
        page = (first / "report.html").read_text()
        assert ("What the judges agree on" in page) == several

        asked = len(server.requests())
        assert not asked_twice(server.requests())
        assert done(user).summary["paid"] == 0
        second = user.sessions()[-1]
        for name in ("dataset.jsonl", "candidates.jsonl"):
            assert (first / name).read_bytes() == (second / name).read_bytes()
        assert json.loads(user.run("estimate", "--json", program=PROGRAM).out)["total"]["to_pay"] == 0
        tuned = user.run("tune", first.name, "--json", program=PROGRAM)
        assert tuned.code == 0, tuned.err
        by_key = {(item["setting"], item["value"]): item for item in json.loads(tuned.out)["settings"]}
        assert by_key["", None]["kept"] == len(rows)
        ranked = user.run("export", first.name, "--format", "ranked", "--jsonl", program=PROGRAM)
        assert ranked.code == 0, ranked.err
        for row, kept in zip(lines_of(first, "ranked"), candidates_of(first), strict=True):
            scores = [item["score"] for item in row["answers"]]
            assert scores == sorted((item["score_total"] for item in kept["candidates"]), reverse=True)
            taken = {item["choice"]: item["content"] for item in kept["candidates"]}
            assert {
                item["choice"]: item["answer"][0]["content"] for item in row["answers"] if item["choice"]
            } == {side: content for side, content in taken.items() if side}
        native = user.run("export", first.name, "--format", "native", "--parquet", program=PROGRAM)
        assert native.code == 0, native.err
        (file,) = (first / "native" / "data" / "native").iterdir()
        found = [row.get("judges", []) for row in pq.read_table(file).to_pylist()]
        assert found == [row.get("judges", []) for row in rows]
        for agree in range(len(judging["models"]) + 1) if several else ():
            kept = done(user, "--set", f"judging.agree={agree}").summary["kept"]
            assert kept == by_key["judging.agree", agree]["kept"]
        assert len(server.requests()) == asked


def test_a_further_judge_pays_for_itself_alone(user: User) -> None:
    with model() as server:
        user.write("config.toml", judged_by(server.url, count=1, models=["judge"]))
        done(user)
        (session,) = user.sessions()
        asked = len(server.requests())
        user.write("config.toml", judged_by(server.url, count=1, models=["second", "judge"]))
        refused = user.run("--resume", session.name)
        assert refused.code == 2
        assert "judging.models: " in refused.err
        assert f"judge: {3 * PAIRS} calls reused, {3 * PAIRS} to be paid for" in refused.err
        user.write("config.toml", judged_by(server.url, count=1, models=["judge"]))
        words = ("checkpoint", "diff", session.name, "--set", 'judging.models=["second", "judge"]')
        shown = user.run(*words, program=PROGRAM)
        assert f"judge: {3 * PAIRS} calls reused, {3 * PAIRS} to be paid for" in shown.out, shown.err
        refused = user.run("checkpoint", "diff", session.name, *words[2:], program=PROGRAM)
        assert refused.code == 2
        assert "leave out --set and --prompts" in refused.err
        assert len(server.requests()) == asked
        user.write("config.toml", judged_by(server.url, count=1, models=["second", "judge"]))
        ended = done(user, "--resume", session.name, "--accept-changes")
        assert ended.summary["paid"] == 3 * PAIRS
        assert {request["model"] for request in server.requests()[asked:]} == {"second"}


def test_killed_and_resumed_each_judgement_is_paid_for_once(user: User) -> None:
    with model(latency_ms=20.0, refuse=0.1) as server:
        text = judged_by(server.url, models=["judge", "second"], mode="pairwise")
        user.write("config.toml", text)
        for stop in (30, 90, 150):
            process = user.start(*(["--resume", user.sessions()[0].name] if user.sessions() else []))
            assert server.until_requests(stop, process)
            process.kill(group=True)
            assert process.end().code == -signal.SIGKILL
        (session,) = user.sessions()
        ended = user.run("--resume", session.name)
        assert ended.code in {0, 3}, ended.err
        rows = (session / "dataset.jsonl").read_bytes()
        assert len(asked_twice(server.requests())) <= 3 * 8 * 4
        asked = len(server.requests())
        user.run("--json")
        assert (user.sessions()[-1] / "dataset.jsonl").read_bytes() == rows
        assert len(server.requests()) == asked

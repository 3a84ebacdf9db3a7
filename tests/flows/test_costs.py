"""Money on the command line: what a run will cost, a preview of it, and a budget that stops it."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.command import PROGRAM, asked_twice, config, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Ended, Model, User

PRICING = """
[pricing.strong-writer]
input = 2.5
output = 10
cached_input = 0.25
[pricing.weak-writer]
input = 0.15
output = 0.6
[pricing.critic]
input = 1
output = 3
"""
WITHIN = 0.2
"""How far an estimate after a preview may be off."""


def tell(user: User, *words: str) -> Ended:
    ended = user.run(*words, program=PROGRAM)
    assert "Traceback" not in ended.err
    return ended


def test_what_a_preview_leads_to_expect_is_what_the_run_costs(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url, mode="mo-dpo", subtopics=12, prompts=5, more=PRICING))
    blind = tell(user, "run", "--dry-run", "--json")
    assert json.loads(blind.out)["total"]["to_pay"] == 1 + 12 + 2 * 60 + 2 * 60
    assert json.loads(blind.out)["total"]["usd"]["likely"] is None
    assert tell(user, "estimate", "--json").out == blind.out
    assert demo_model.stats()["requests"] == 0
    assert [path.name for path in user.folder.iterdir()] == ["config.toml"]

    made = tell(user, "preview", "-n", "6", "--json")
    assert (made.code, len(json.loads(made.out)["pairs"])) == (0, 6)
    assert user.sessions() == []
    assert not (user.folder / "output" / ".prefect").exists()
    before = demo_model.stats()["requests"]
    assert json.loads(made.out)["paid"]["calls"] == before == 1 + 6 + 4 * 6

    told = json.loads(tell(user, "estimate", "--json").out)
    assert told == json.loads(made.out)["estimate"]
    total = told["total"]
    assert (total["reused"], total["to_pay"]) == (before, 253 - before)
    summary = user.run("--json").summary
    assert asked_twice(demo_model.requests()) == []
    assert summary["reused"] == before
    real = {name: summary[name] for name in ("prompt_tokens", "completion_tokens", "usd")}
    real["calls"] = summary["paid"]
    for name, cost in real.items():
        assert total[name]["likely"] == pytest.approx(cost, rel=WITHIN), name
        # What is likely in nineteen of twenty runs is missed by one: twice as far is not missed by chance.
        low, high = total[name]["low"], total[name]["high"]
        middle, reach = (low + high) / 2, high - low
        assert middle - reach <= cost <= middle + reach, name

    after = tell(user, "estimate")
    assert "nothing is to be paid for" in after.out
    (session,) = user.sessions()
    inspected = tell(user, "checkpoint", "inspect", session.name)
    assert f"  Cost:              {summary['cost']}\n" in inspected.out
    document = json.loads(tell(user, "checkpoint", "inspect", session.name, "--json").out)["spent"]
    # What the preview paid for is not the session's.
    assert (document["calls"], document["usd"]) == (summary["paid"], summary["usd"])
    recorded = json.loads((session / "session.json").read_text())["spent"]
    assert {key: document[key] for key in recorded} == recorded == summary["session"]


def test_a_preview_shows_pairs_side_by_side_and_what_the_whole_costs(user: User, demo_model: Model) -> None:
    priced, _, unpriced = PRICING.partition("[pricing.weak-writer]")
    user.write("config.toml", config(demo_model.url, more=priced))
    told = tell(user, "run", "--dry-run").out
    assert 'no price is set for weak-writer: see [pricing."weak-writer"]\n' in told
    assert re.search(r"rejected +weak-writer .* unknown +\n", told)
    user.write("config.toml", config(demo_model.url, more=f"{priced}[pricing.weak-writer]{unpriced}"))
    shown = tell(user, "preview", "-n", "2")
    assert shown.code == 0
    assert "chosen" in shown.out
    assert "rejected" in shown.out
    assert re.search(r"Paid for 7 calls \([\d,]+ tokens in, [\d,]+ out\) for \$0\.0\d+", shown.out)
    assert re.search(r"chosen +strong-writer +2 +4 ", shown.out)
    again = tell(user, "preview", "-n", "2", "--json")
    assert json.loads(again.out)["paid"]["calls"] == 0
    none = tell(user, "preview", "-n", "0")
    assert (none.code, none.err.count("\n")) == (2, 1)


def test_a_preview_in_which_pairs_fail_says_so(user: User, demo_model: Model) -> None:
    demo_model.start(fail_models="weak-writer")
    user.write("config.toml", config(demo_model.url, more=PRICING))
    ended = tell(user, "preview", "-n", "2")
    assert ended.code == 3


def test_a_preview_that_is_interrupted_goes_on_from_there(user: User, demo_model: Model) -> None:
    demo_model.start(latency_ms=300)
    user.write("config.toml", config(demo_model.url, concurrency=1, more=PRICING))
    begun = user.start("preview", "-n", "3", program=PROGRAM)
    assert demo_model.until_requests(5, begun)
    begun.send(signal.SIGINT)
    stopped = begun.end()
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert "the same command goes on from there" in stopped.err
    assert tell(user, "preview", "-n", "3", "--json").code == 0
    requests = demo_model.requests()
    assert (len(requests), asked_twice(requests)) == (1 + 3 + 6, [])


def test_half_the_budget_stops_a_run_and_raised_it_goes_on_for_the_rest(
    user: User, demo_model: Model
) -> None:
    text = config(demo_model.url, subtopics=6, prompts=5, concurrency=2, more=PRICING)
    user.write("config.toml", text)
    whole = user.run("--json", "--output", "elsewhere").summary
    asked = demo_model.stats()["requests"]
    assert whole["paid"] == asked

    half = whole["usd"] / 2
    user.write("config.toml", f"{text}\n[budget]\nmax_usd = {half:.6f}\n")
    stopped = user.run("--json")
    assert "Traceback" not in stopped.err
    assert (stopped.code, stopped.out) == (3, "")
    assert "budget.max_usd is reached" in stopped.err
    (session,) = user.sessions()
    assert f"checkpoint resume {session.name}" in stopped.err
    spent = spending(session.name, user)
    dearest = max(item["usd"] / item["calls"] for item in spent["items"]) * 2
    # Two jobs with two calls each may be in flight.
    assert half <= spent["usd"] <= half + 4 * dearest
    assert spent["calls"] == demo_model.stats()["requests"] - asked

    user.write("config.toml", f"{text}\n[budget]\nmax_usd = {2 * whole['usd']:.6f}\n")
    resumed = user.run("resume", session.name, "--json", program=(*PROGRAM, "checkpoint"))
    assert resumed.code == 0, resumed.err
    assert resumed.summary["paid"] == asked - spent["calls"]
    assert resumed.summary["usd"] + spent["usd"] == pytest.approx(whole["usd"])
    assert resumed.summary["session"]["usd"] == pytest.approx(whole["usd"])
    assert demo_model.stats()["requests"] == 2 * asked
    assert rows_of(session) == rows_of(user.sessions("elsewhere")[0])


def spending(session: str, user: User) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(tell(user, "checkpoint", "inspect", session, "--json").out)
    spent: dict[str, Any] = document["spent"]
    return spent

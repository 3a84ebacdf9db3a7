"""What a run came to, in numbers and in words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.waves import Made
from tasks.core.models import Phase
from tasks.core.session.session import open_session
from tasks.core.summary import FIRST_ROW_LENGTH, Stopwatch, Summary, summarize
from tests.core.running import ChatServer, running, some_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.running import Answer, Chat

WHOLE = Summary(
    folder="output/session_x",
    mode="dpo",
    rows=1200,
    jobs=1200,
    wanted=1200,
    kept=1200,
    lost={},
    dropped={},
    missing=0,
    refused=0,
    unreadable=0,
    spent=False,
    failures=0,
    causes={},
    truncated=0,
    paid=2500,
    reused=17,
    prompt_tokens=1_000_000,
    completion_tokens=2_000_000,
    unreported=0,
    estimated_tokens=0,
    seconds=61.25,
    phase_seconds={"subtopics": 1.25, "pairs": 60.0},
    cpu_seconds=3.5,
    checkpoint_cpu_seconds=0.01,
    peak_memory_mb=80.0,
    first_row='{"prompt":"a"}',
    cost="$1.23",
    usd=1.23,
    calls_of_unknown_price=0,
    session={"calls": 2500},
    session_cost="$1.23",
    lint={},
    lint_line="",
    report="",
    exported={},
)


def test_a_whole_run_in_words() -> None:
    assert WHOLE.complete
    assert WHOLE.lines() == [
        "1,200 rows (dpo) in 61.2 s: output/session_x/dataset.jsonl",
        "paid for 2,500 calls (1,000,000 tokens in, 2,000,000 out) for $1.23, reused 17 from the ledger",
    ]
    assert WHOLE.excerpt() == '{"prompt":"a"}'


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"paid": 0}, "paid for nothing: all 17 answers came from the ledger"),
        ({"cost": ""}, "2,000,000 out), reused 17 from the ledger"),
        (
            {"session": {"calls": 4000}, "session_cost": "≥ $2.00 (3 calls of unknown price)"},
            "the session paid for 4,000 calls in all its runs: ≥ $2.00 (3 calls of unknown price)",
        ),
        (
            {"session": {"calls": 4000}, "session_cost": ""},
            "the session paid for 4,000 calls in all its runs",
        ),
        (
            {"jobs": 2700, "lost": {"filtered": 1498, "refused": 2}},
            "2,700 prompts for 1,200 pairs: 1,500 yielded none (1,498 filtered, 2 refused)",
        ),
        (
            {"dropped": {"duplicate": 3, "near_duplicate": 1}},
            "3 duplicate, 1 near_duplicate prompts were left out",
        ),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "unreported": 2500, "estimated_tokens": 12_300},
            "2,500 calls (about 12,300 tokens in and out, estimated: the server reports none) for",
        ),
        (
            {"completion_tokens": 0, "unreported": 2500, "estimated_tokens": 12_300},
            "(≥ 1,000,000 tokens in, unknown out, about 12,300 more by estimate, for 2,500 calls without",
        ),
        ({"truncated": 3}, "3 chosen answers stop at the token limit"),
        ({"failures": 2}, "2 failures, listed in output/session_x/session.log"),
        ({"missing": 100}, "1,100 prompts of 1,200: the model had no more that are new"),
        (
            {"exported": {"dpo": 1200, "scores": 1200}},
            "for trainers: output/session_x/trl (1,200 dpo, 1,200 scores rows)",
        ),
        (
            {"lint_line": "lint found in 1,200 pairs: refusals 3 (0.2%)"},
            "lint found in 1,200 pairs: refusals 3 (0.2%); see vellumforge2 lint session_x",
        ),
        (
            {"report": "output/session_x/report.html"},
            "to look at, in a browser: output/session_x/report.html",
        ),
    ],
)
def test_what_else_is_to_be_said_is_said_in_a_line(change: dict[str, Any], line: str) -> None:
    lines = replace(WHOLE, **change).lines()
    assert [line in shown for shown in lines].count(True) == 1
    assert all("\n" not in shown for shown in lines)


@pytest.mark.parametrize(
    ("change", "shortfall"),
    [
        (
            {"failures": 3, "causes": {"http_500": 2, "refused": 1}},
            "finished with 3 failures (2 http_500, 1 refused); 1,200 rows are written",
        ),
        (
            {"missing": 1},
            (
                "finished with 1 prompt of 1,200 missing (the model had no more that are new); "
                "1,200 rows are written"
            ),
        ),
        (
            {"failures": 1000, "causes": {"timeout": 1000}, "missing": 1200, "rows": 0},
            (
                "finished with 1,000 failures (1,000 timeout) and 1,200 prompts of 1,200 missing; "
                "0 rows are written"
            ),
        ),
        (
            {"jobs": 2400, "kept": 1000, "rows": 1000, "missing": 200, "spent": True},
            (
                "finished with 1,000 of 1,200 pairs after 2,400 prompts, as many as "
                "generation.max_prompts_per_pair allows; raise it and resume; 1,000 rows are written"
            ),
        ),
    ],
)
def test_a_run_in_which_something_did_not_come_about_is_not_complete(
    change: dict[str, Any], shortfall: str
) -> None:
    summary = replace(WHOLE, **change)
    assert not summary.complete
    assert summary.shortfall() == shortfall


@pytest.mark.parametrize(
    ("change", "used_up"),
    [
        ({"failures": 2, "causes": {"bad_scores": 2}}, True),
        ({"failures": 2, "causes": {"bad_scores": 1, "timeout": 1}}, False),
        ({"missing": 2, "spent": True, "lost": {"refused": 9, "filtered": 3}}, True),
        ({"missing": 2, "lost": {"filtered": 3}}, False),
        ({"lost": {"refused": 9}}, False),  # all of them were replaced
    ],
)
def test_where_only_unusable_answers_are_missing_it_is_said_what_helps(
    change: dict[str, Any], *, used_up: bool
) -> None:
    summary = replace(WHOLE, example="job 3, judge: no scores", **change)
    assert summary.tries_used_up is used_up
    assert ("paid for, and cannot be used; for example job 3" in summary.shortfall()) is used_up
    assert ("; what helps: " in summary.shortfall()) is used_up


def test_filtered_pairs_are_no_shortfall() -> None:
    assert replace(WHOLE, lost={"filtered": 600}, kept=600, rows=600).complete


def test_a_long_first_row_is_cut() -> None:
    row = "x" * (FIRST_ROW_LENGTH + 1)
    assert replace(WHOLE, first_row=row[:-1]).excerpt() == row[:-1]
    assert replace(WHOLE, first_row=row).excerpt() == row[:-1] + "…"


async def test_the_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.subject == "p2" and not chat.sample:
            return "no"
        return f"{chat.text}: the keeper lit the lamp at dusk, and the ships came home."

    options: dict[str, Any] = {
        "generation__dataset_mode": "kto",
        "generation__num_subtopics": 3,
        "pricing": {"strong": {"input": 1.0, "output": 100.0}},
    }
    async with ChatServer(script) as server, running(tmp_path, server.base_url, **options) as run:
        watch = Stopwatch()
        with open_session(run.config, run.progress, text="", overridden={}, ledger=run.ledger.id) as session:
            run.progress.begin(Phase.PAIRS, 5)
            outcome = await make_pairs(run, some_jobs(5), session.keep)
            await session.finish(complete=True)
            summary = summarize(run, session, Made(some_jobs(5), [outcome], {}), watch)
    assert (summary.folder, summary.mode) == (str(session.folder), "kto")
    assert (summary.rows, summary.jobs, summary.wanted, summary.failures) == (10, 5, 6, 0)
    assert (summary.paid, summary.reused) == (11, 0)
    assert (summary.prompt_tokens, summary.completion_tokens) == (77, 33)
    # Six chosen answers of 7 tokens in and 3 out have a price; the rejected ones have none.
    assert (summary.usd, summary.calls_of_unknown_price) == (0.001842, 5)
    assert summary.cost == summary.session_cost == "≥ $0.0018 (5 calls of unknown price)"
    assert (summary.session["calls"], summary.session["usd"]) == (11, 0.001842)
    assert summary.seconds >= summary.phase_seconds["pairs"] > 0
    assert summary.cpu_seconds > 0
    assert summary.peak_memory_mb > 1
    assert json.loads(summary.first_row) == {
        "prompt": "p0",
        "completion": "p0: the keeper lit the lamp at dusk, and the ships came home.",
        "label": True,
    }

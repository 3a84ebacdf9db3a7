"""`checkpoint merge`: several sessions become one, which is listed, resumed and exported like any other."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, asked_twice, config, model, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Ended, Row, User

SUBTOPICS, PROMPTS = 3, 4
MERGED = "session_merged"
OTHERS = ("--set", "generation.seed=5", "--set", "models.rejected.temperature=0.25")
"""Settings under which every question is another one."""


def checkpoint(user: User, *words: str) -> Ended:
    return user.run("checkpoint", *words, program=PROGRAM)


def test_two_sessions_are_merged_and_the_resume_pays_only_for_what_neither_has(user: User) -> None:
    with model(latency_ms=200.0) as server:
        user.write("config.toml", config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=2))
        process = user.start()
        assert server.until_requests(1 + SUBTOPICS + 6, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        server.start()
        assert user.run(*OTHERS).code == 0
        half, whole = user.sessions()

        merged = checkpoint(user, "merge", half.name, whole.name, "--into", MERGED)
        assert (merged.code, merged.err) == (0, "")
        session = user.folder / "output" / MERGED
        before, theirs = rows_of(session), rows_of(whole)
        jobs = json.loads((session / "checkpoint.json").read_text())["prompts"]
        assert [job["ID"] for job in jobs] == list(range(len(jobs)))
        lines = merged.out.splitlines()
        done = len(rows_of(half))
        assert lines[0] == f"{half.name}: 12 jobs, 0 duplicates, {done} done"
        assert lines[1] == f"{whole.name}: 12 jobs, {24 - len(jobs)} duplicates, 12 done"
        assert "  generation.seed: 0 -> 5 (changes subtopics, prompts, pairs, judge)" in lines
        assert "  models.rejected.temperature: 0.7 -> 0.25 (changes pairs)" in lines
        assert lines[-1] == f"to go on with it: vellumforge2 checkpoint resume {MERGED}"
        to_pay = int(lines[-2].removesuffix(" calls to pay for").rpartition(" ")[2])
        assert 0 < to_pay <= 2 * (12 - done)
        assert MERGED in checkpoint(user, "list").out
        assert checkpoint(user, "inspect", MERGED).out.endswith(f"checkpoint resume {MERGED}\n")

        paid = len(server.requests())
        resumed = checkpoint(user, "resume", MERGED, "--json")
        assert resumed.code == 0, resumed.err
        assert (resumed.summary["paid"], resumed.summary["rows"]) == (to_pay, len(jobs))
        assert len(server.requests()) - paid == to_pay
        assert not asked_twice(server.requests())
        rows = rows_of(session)
        assert [row["prompt"] for row in rows] == [job["Prompt"] for job in jobs]
        assert all(row in rows for row in before)
        # Wherever the other session's answers were taken, they are in both.
        assert _answers(rows) >= _answers(theirs) - _answers(rows_of(half))

        again = checkpoint(user, "resume", MERGED)
        assert (again.code, "is complete; to get more, run without" in again.err) == (2, True)
        more = checkpoint(user, "resume", MERGED, "--set", "generation.num_subtopics=9")
        assert (more.code, "its subtopics and prompts were taken over" in more.err) == (2, True)

        assert checkpoint(user, "export", MERGED, "--to", "moved.zip").code == 0
        assert checkpoint(user, "import", "moved.zip", "--output", "elsewhere").code == 0
        (moved,) = user.sessions("elsewhere")
        (moved / "dataset.jsonl").unlink()
        record = moved / "session.json"
        record.write_text(record.read_text().replace('"complete": true', '"complete": false'))
        finished = checkpoint(user, "resume", MERGED, "--output", "elsewhere", "--json")
        assert (finished.code, finished.summary["paid"]) == (0, 0)
        assert (moved / "dataset.jsonl").read_bytes() == (session / "dataset.jsonl").read_bytes()


def _answers(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row["chosen"], row["rejected"]) for row in rows}


def test_what_cannot_be_merged_is_said_in_a_line(user: User) -> None:
    for words, code, reason in (
        ((), 2, "--into"),
        (("session_a", "--into", "session_c"), 2, "there is no ledger at output/ledger.db"),
    ):
        ended = checkpoint(user, "merge", *words)
        assert (ended.code, len(ended.err.splitlines())) == (code, 1)
        assert reason in ended.err
    assert list(user.folder.iterdir()) == []

"""What is rarely asked of the ledger: its sessions, whole calls, what was spent, what is used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tasks.core.cost import Usage, tokens_for
from tasks.core.errors import LedgerError
from tasks.core.ledger.failures import (
    FailureGroup,
    failure_groups,
    failures_by_request,
    failures_of,
    put_refusal_rows,
    refusal_rows,
    refused_questions,
)
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tasks.core.ledger.sessions import (
    KEYS_AT_ONCE,
    SessionRow,
    call_keys,
    call_marks,
    call_rows,
    count_calls,
    find_session_row,
    observed_calls,
    put_call_rows,
    put_session,
    remove_calls,
    session_rows,
    session_rows_named,
    spent_by,
)
from tasks.core.models import QUESTION_REFUSED, Failure, Phase, Purpose
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tasks.core.ledger.sessions import CallMark

ROW = SessionRow("id 1", "session_1", "run 1", '{"topic": "\\u0000é"}', b"the jobs")


def entries(number: int, session: str = "id 1", **fields: int) -> list[LedgerEntry]:
    return [
        LedgerEntry(question(f"{session}: {place}"), answer(f"A{place}" * place, **fields), session)
        for place in range(number)
    ]


def keys_of(put: list[LedgerEntry]) -> list[bytes]:
    return [entry.request.key for entry in put]


async def test_a_session_is_found_by_its_id_and_by_its_flow_run(url: str) -> None:
    other = SessionRow("id 2", "session_2", "", "{}")
    async with await Ledger.open(url) as ledger:
        await put_session(ledger, ROW)
        await put_session(ledger, other)
    async with await Ledger.open(url) as ledger:
        assert await find_session_row(ledger, "id 1") == ROW
        assert await find_session_row(ledger, flow_run="run 1") == ROW
        assert await find_session_row(ledger, "id 2") == other
        assert await find_session_row(ledger, "session_1") is None
        assert await find_session_row(ledger, flow_run="run 2") is None
        ledger.check()


async def test_what_is_new_of_a_session_replaces_what_was_and_jobs_stay(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        await put_session(ledger, ROW)
        moved = SessionRow("id 1", "session_moved", "run 2", '{"complete": true}')
        await put_session(ledger, moved)
        assert await find_session_row(ledger, "id 1") == replace(moved, jobs=b"the jobs")
        assert await find_session_row(ledger, flow_run="run 1") is None
        await put_session(ledger, replace(moved, jobs=b"other jobs"))
        assert await find_session_row(ledger, flow_run="run 2") == replace(moved, jobs=b"other jobs")
    assert [tuple(row) for row in await sql(url, "SELECT count(*) FROM sessions")] == [(1,)]


async def test_a_flow_run_has_the_session_that_it_began_last(url: str) -> None:
    # As when the folder of the first is gone, and the run was tried again.
    async with await Ledger.open(url) as ledger:
        for number in (3, 1, 2):
            await put_session(ledger, replace(ROW, id=f"id {number}", name=f"session_{number}"))
            found = await find_session_row(ledger, flow_run="run 1")
            assert found is not None
            assert found.name == f"session_{number}"
        assert await find_session_row(ledger, "id 3") == replace(
            ROW, id="id 3", name="session_3", flow_run=""
        )


async def test_sessions_without_a_flow_run_are_left_alone(url: str) -> None:
    rows = [replace(ROW, id=f"id {number}", flow_run="") for number in range(3)]
    async with await Ledger.open(url) as ledger:
        await asyncio.gather(*(put_session(ledger, row) for row in rows))
        assert [await find_session_row(ledger, row.id) for row in rows] == rows


async def test_sessions_of_one_name_in_several_folders_are_all_found(url: str) -> None:
    rows = [replace(ROW, id=f"id {number}", flow_run="") for number in range(2)]
    async with await Ledger.open(url) as ledger:
        for row in (*rows, replace(ROW, id="id 2", name="session_1-2")):
            await put_session(ledger, row)
        found = await session_rows_named(ledger, "session_1")
        assert sorted(found, key=lambda row: row.id) == rows
        assert await session_rows_named(ledger, "session_") == []


async def test_calls_go_from_one_ledger_to_another_as_they_are(url: str, tmp_path: Path) -> None:
    paid = entries(40, prompt_tokens=2**40)
    wanted = keys_of(paid)
    async with await Ledger.open(url) as ledger:
        await ledger.put_all(paid)
        rows = await call_rows(ledger, [*wanted[::-1], question("never paid for").key])
        assert await call_rows(ledger, []) == []
    assert [row["key"] for row in rows] == sorted(wanted)
    async with await Ledger.open(f"sqlite:///{tmp_path}/another.db") as another:
        kept = LedgerEntry(paid[3].request, answer("paid for here"), "here")
        await another.put(kept)
        for _ in range(2):  # The second time, they are all there.
            await put_call_rows(another, rows)
        await put_call_rows(another, [])
        assert await another.get_many(wanted) == {
            entry.request.key: (kept if entry is paid[3] else entry).answer for entry in paid
        }
        others = [key for key in wanted if key != wanted[3]]
        assert await call_rows(another, others) == [row for row in rows if row["key"] != wanted[3]]
        assert (await spent_by(another, "id 1")).usage().prompt_tokens == 39 * 2**40


async def test_what_a_session_spent_is_the_sum_of_its_calls(url: str) -> None:
    judged = LedgerEntry(
        question("judge", purpose=Purpose.JUDGE, model="critic"),
        answer(prompt_tokens=9, completion_tokens=1, cached_tokens=5),
        "id 1",
    )
    async with await Ledger.open(url) as ledger:
        await ledger.put_all([*entries(3, prompt_tokens=7, completion_tokens=2**40), judged])
        await ledger.put_all(entries(2, "id 2", prompt_tokens=1))
        await ledger.put_all(entries(4, "id 3"))
        assert list(await spent_by(ledger, "id 1")) == [
            ("critic", "judge", Usage(1, 9, 1, cached_tokens=5)),
            ("demo-strong", "chosen", Usage(3, 21, 3 * 2**40)),
        ]
        # What was not reported is estimated: "A1" are two characters, one token.
        assert (await spent_by(ledger, "id 2")).usage() == Usage(2, 2, 0, unreported=2, estimated_tokens=1)
        silent = (await spent_by(ledger, "id 3")).usage()
        assert (silent.calls, silent.unreported, silent.prompt_tokens) == (4, 4, 0)
        assert silent.estimated_tokens == 4 * tokens_for(len("id 3: 0")) + 0 + 1 + 1 + 2
        assert list(await spent_by(ledger, "id 4")) == []
        assert await count_calls(ledger) == 10


async def test_what_calls_usually_use_is_known_for_each_model_and_purpose(url: str) -> None:
    async with await Ledger.open(url) as ledger:
        for number, session in ((10, "id 1"), (20, "id 2"), (60, "id 3")):
            fields = {"prompt_tokens": number, "completion_tokens": 2 * number}
            await ledger.put_all(entries(1, session, **fields))
        await ledger.put_all(entries(5, "id 4", prompt_tokens=1))
        (left_out,) = entries(1, "id 5", prompt_tokens=9000, completion_tokens=1)
        await ledger.put_all([left_out])
        found = await observed_calls(ledger, [left_out.request.key])
    (seen,) = found.values()
    assert list(found) == [("demo-strong", "chosen")]
    assert (seen.calls, seen.prompt.count, seen.prompt.mean, seen.completion.mean) == (3, 3, 30, 60)
    assert seen.prompt.variance == pytest.approx(700)


async def test_failures_are_counted_by_cause(url: str) -> None:
    def failures(*causes: str) -> list[Failure]:
        return [Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, cause, "no") for cause in causes]

    async with await Ledger.open(url) as ledger:
        await ledger.add_failures("id 1", failures("timeout", "http_500", "timeout", "refusal", "timeout"))
        await ledger.add_failures("id 2", failures("timeout"))
        assert list((await failures_of(ledger, "id 1")).items()) == [
            ("http_500", 1),
            ("refusal", 1),
            ("timeout", 3),
        ]
        assert await failures_of(ledger, "id 2") == {"timeout": 1}
        assert await failures_of(ledger, "id 3") == {}


async def test_of_a_request_the_failure_that_was_listed_last_counts(url: str) -> None:
    def failed(request: str, status: int) -> Failure:
        return Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, f"http_{status}", "no", status, 1, request)

    mended, worse, unknown = failed("aa", 400), failed("bb", 500), failed("", 400)
    async with await Ledger.open(url) as ledger:
        await ledger.add_failures("id 1", [mended, worse, unknown])
        await ledger.add_failures("id 1", [failed("aa", 500), failed("bb", 403)])
        await ledger.add_failures("id 2", [failed("aa", 451)])
        assert await failures_by_request(ledger, "id 1") == {
            b"\xaa": failed("aa", 500),
            b"\xbb": failed("bb", 403),
        }
        refused = replace(failed("bb", 403), cause=QUESTION_REFUSED)
        assert await refused_questions(ledger, "id 1") == {b"\xbb": refused}
        assert await failures_by_request(ledger, "id 3") == {}


async def test_refusals_are_listed_once_for_a_session_and_what_is_later_stays(url: str) -> None:
    def failed(request: str, status: int) -> Failure:
        return Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, f"http_{status}", "no", status, 1, request)

    async with await Ledger.open(url) as ledger:
        await ledger.add_failures("id 1", [failed("bb", 403), failed("aa", 400), failed("cc", 500)])
        rows = await refusal_rows(ledger, "id 1")
        assert [(row["request"], row["status"]) for row in rows] == [("aa", 400), ("bb", 403)]
        await ledger.add_failures("id 2", [failed("aa", 500)])
        for session in ("id 1", "id 2", "id 3", "id 3"):
            await put_refusal_rows(ledger, session, rows)
            await put_refusal_rows(ledger, session, [])
        assert await refusal_rows(ledger, "id 1") == await refusal_rows(ledger, "id 3") == rows
        assert await failures_of(ledger, "id 3") == {"http_400": 1, "http_403": 1}
        assert await failures_of(ledger, "id 1") == {"http_400": 1, "http_403": 1, "http_500": 1}
        refused = replace(failed("bb", 403), cause=QUESTION_REFUSED)
        assert await refused_questions(ledger, "id 2") == {b"\xbb": refused}
        later = [row | {"at": row["at"] + 1000} for row in rows]
        await put_refusal_rows(ledger, "id 2", later)
        assert await refusal_rows(ledger, "id 2") == later


async def test_failures_are_grouped_in_the_order_of_the_pipeline(url: str) -> None:
    def failure(phase: Phase, purpose: Purpose, cause: str, attempts: int) -> Failure:
        return Failure(phase, "item", purpose, cause, "no", attempts=attempts)

    timeout = failure(Phase.PAIRS, Purpose.CHOSEN, "timeout", 3)
    refused = failure(Phase.PAIRS, Purpose.CHOSEN, "refused", 1)
    others = [
        failure(Phase.PAIRS, Purpose.JUDGE, "bad_scores", 2),
        failure(Phase.PROMPTS, Purpose.PROMPTS, "no_list", 1),
        failure(Phase.PAIRS, Purpose.CHOSEN, "timeout", 1),
    ]
    async with await Ledger.open(url) as ledger:
        await ledger.add_failures("id 1", [timeout, refused, *others, timeout])
        await ledger.add_failures("id 2", [refused])
        assert await failure_groups(ledger, "id 1") == [
            FailureGroup(Phase.PROMPTS, Purpose.PROMPTS, "no_list", 1, 1),
            FailureGroup(Phase.PAIRS, Purpose.CHOSEN, "timeout", 3, 2),
            FailureGroup(Phase.PAIRS, Purpose.CHOSEN, "refused", 1, 1),
            FailureGroup(Phase.PAIRS, Purpose.CHOSEN, "timeout", 1, 1),
            FailureGroup(Phase.PAIRS, Purpose.JUDGE, "bad_scores", 2, 1),
        ]
        assert await failure_groups(ledger, "id 3") == []


@pytest.mark.parametrize("number", [7, 2 * KEYS_AT_ONCE + 1])
async def test_calls_are_counted_and_removed_but_for_those_that_are_spared(url: str, number: int) -> None:
    used, unused = entries(5), entries(number, "id 2")

    def spares(_rows: Sequence[SessionRow]) -> Callable[[CallMark], bool]:
        return lambda mark: mark.session == "id 1"

    async with await Ledger.open(url) as ledger:
        await ledger.put_all([*used, *unused])
        marks = await call_marks(ledger, await call_keys(ledger))
        assert await remove_calls(ledger, marks, spares, dry_run=True) == number
        assert await count_calls(ledger) == number + 5
        assert await remove_calls(ledger, marks, spares, dry_run=False) == number
        assert set(await ledger.get_many(keys_of(used))) == set(keys_of(used))
        assert await count_calls(ledger) == 5


async def test_whoever_begins_while_calls_are_removed_looks_afterwards(url: str) -> None:
    row = SessionRow("id 1", "session_1", "", "{}")
    beginning: list[asyncio.Task[None]] = []
    async with await Ledger.open(url) as ledger, await Ledger.open(url) as other:
        await ledger.put_all(entries(1))

        def spares(rows: Sequence[SessionRow]) -> Callable[[CallMark], bool]:
            assert list(rows) == []
            beginning.append(asyncio.create_task(put_session(other, row)))
            return lambda _: False

        marks = await call_marks(ledger, await call_keys(ledger))
        assert await remove_calls(ledger, marks, spares, dry_run=False) == 1
        await beginning[0]
        assert await session_rows(ledger) == [row]


async def test_a_transaction_that_fails_breaks_the_ledger_and_changes_nothing(url: str) -> None:
    async def write_and_fail(ledger: Ledger) -> None:
        async with ledger.transaction("written") as connection:
            await connection.exec_driver_sql("DELETE FROM calls")
            await connection.exec_driver_sql("DELETE FROM nothing")

    async with await Ledger.open(url) as ledger:
        await ledger.put_all(entries(2))
        with pytest.raises(LedgerError, match=r"cannot be written: .*nothing") as raised:
            await write_and_fail(ledger)
        assert "DELETE" not in str(raised.value)
        with pytest.raises(LedgerError):
            ledger.check()
    assert [tuple(row) for row in await sql(url, "SELECT count(*) FROM calls")] == [(2,)]

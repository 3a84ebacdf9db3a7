"""What of a transform is paid for, counted over the ledger alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.models import Purpose
from tasks.core.rows.transformed import InputRow, find_mode
from tasks.core.transform.reading import MOST_ROWS, Source
from tasks.core.transform.session import Transform
from tasks.core.transform.summary import KeysOnDisk, survey_rows
from tests.core.running import ChatServer, kind, running
from tests.core.transform.samples import dpo, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.running import Chat


@given(st.lists(st.tuples(st.sampled_from(["add", "discard"]), st.binary(max_size=2))))
def test_keys_on_disk_are_a_set(steps: list[tuple[str, bytes]]) -> None:
    expected: set[bytes] = set()
    with KeysOnDisk() as keys:
        for step, key in steps:
            assert (key in keys) == (key in expected)
            getattr(keys, step)(key)
            getattr(expected, step)(key)
        assert (set(keys), len(keys)) == (expected, len(expected))


async def writing(chat: Chat) -> str:
    return f"An answer to {chat.text}"


async def test_rows_that_ask_the_same_are_one_call_however_far_apart_they_stand(tmp_path: Path) -> None:
    mode, paid = find_mode("regen-rejected"), 3
    rows = [dpo(f"p{number}") for number in range(MOST_ROWS + 1)]
    source = Source(mode, write(tmp_path / "in.jsonl", *rows, "{", *rows), None)
    async with ChatServer(writing) as server, running(tmp_path, server.base_url) as run:
        first = [row for row in source.read() if isinstance(row, InputRow)][:paid]
        assert (await Transform(run, mode).work(first)).rows == paid
        found = await survey_rows(run.config, source, run.ledger)
        assert len(server.asked) == paid
    assert (found.reused, found.to_pay) == ({Purpose.REJECTED: paid}, {Purpose.REJECTED: len(rows) - paid})
    assert found.asked[kind(Purpose.REJECTED)].count == len(rows) - paid
    assert found.observed[kind(Purpose.REJECTED)].calls == paid

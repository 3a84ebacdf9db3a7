"""The work on blocks of rows, over a real ledger."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tasks.core.rows.transformed import find_mode, read_row
from tasks.core.transform.session import Transform
from tests.core.running import ChatServer, running
from tests.core.transform.samples import dpo

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.rows.transformed import InputRow
    from tests.core.running import Chat

BLOCKS, ROWS = 20, 5


def block(number: int, mode: str) -> list[InputRow]:
    places = range(number * ROWS, (number + 1) * ROWS)
    return [
        read_row(dpo(f"p{place}"), place=place, line=place + 1, mode=find_mode(mode), split=False)
        for place in places
    ]


async def writing(chat: Chat) -> str:
    return f"An answer to {chat.text}"


@pytest.mark.parametrize("paid", [True, False])
async def test_a_finished_block_leaves_nothing_for_the_collector(tmp_path: Path, *, paid: bool) -> None:
    # Garbage that refers to itself is collected seldom: memory would grow with the input.
    mode = "regen-rejected"
    async with ChatServer(writing) as server, running(tmp_path, server.base_url) as run:
        work = Transform(run, find_mode(mode))
        first = await work.work(block(0, mode))
        if not paid:
            for number in range(1, BLOCKS):
                await work.work(block(number, mode))
        gc.collect()
        gc.disable()
        try:
            for number in range(1, BLOCKS):
                done = await work.work(block(number, mode))
                assert done.rows == first.rows == ROWS
            left = gc.collect()
        finally:
            gc.enable()
        assert len(server.asked) == BLOCKS * ROWS
    assert left < BLOCKS

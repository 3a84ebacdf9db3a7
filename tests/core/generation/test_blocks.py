"""How many blocks a phase is cut into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.generation.run import (
    MOST_PAIR_BLOCKS,
    MOST_PROMPT_BLOCKS,
    ONE_EACH,
    Block,
    cut,
    pair_block_size,
    prompt_block_size,
)
from tasks.core.keys import block_key
from tasks.core.models import Phase
from tests.core.running import some_jobs


@given(st.integers(0, 200), st.integers(1, 50))
def test_cutting_keeps_every_item_once_and_in_order(number: int, size: int) -> None:
    items = list(range(number))
    parts = cut(items, size)
    assert [item for part in parts for item in part] == items
    assert all(len(part) == size for part in parts[:-1])
    assert all(1 <= len(part) <= size for part in parts)


@pytest.mark.parametrize(
    ("jobs", "size"), [(1, 1), (ONE_EACH, 1), (ONE_EACH + 1, 5), (640, 10), (641, 11), (100_000, 1563)]
)
def test_few_pairs_are_a_block_each_and_many_share_one(jobs: int, size: int) -> None:
    assert pair_block_size(jobs) == size


@given(st.integers(1, 10_000_000))
def test_the_number_of_blocks_is_bounded_however_large_the_run(number: int) -> None:
    assert -(-number // pair_block_size(number)) <= max(ONE_EACH, MOST_PAIR_BLOCKS)
    assert -(-number // prompt_block_size(number)) <= MOST_PROMPT_BLOCKS


def test_a_block_has_the_key_of_its_items_and_a_label_for_people() -> None:
    jobs = some_jobs(2)
    block = Block(Phase.PAIRS, "0123456789abcdef", jobs, label="jobs 0-1")
    assert block.key == block_key(Phase.PAIRS, "0123456789abcdef", jobs)
    assert (str(block), list(block.items)) == ("jobs 0-1", jobs)

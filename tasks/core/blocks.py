"""Blocks: the runs of consecutive items that one Prefect task works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from tasks.core.keys import block_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.models import Phase

ONE_EACH = 300
"""Up to so many pairs, each is a block of its own: one task run a pair."""

MOST_PAIR_BLOCKS = 64
MOST_PROMPT_BLOCKS = 16
"""More task runs of a phase would be paid for in Prefect's server: 7 ms each here, 20 ms there."""

_Item = TypeVar("_Item")


class Block(Generic[_Item]):
    """Some consecutive items of a phase, with the key under which Prefect keeps that they are done.

    It is a plain class on purpose: Prefect walks through dataclasses that are handed to a task.

    Attributes:
        key: `<phase>-<phase hash>-<items hash>`.
        items: The items, at least one.
        label: What people see, e.g. `jobs 50-99`.
    """

    def __init__(self, phase: Phase, phase_hash: str, items: Sequence[_Item], label: str) -> None:
        self.key = block_key(phase, phase_hash, items)
        self.items = items
        self.label = label

    def __str__(self) -> str:
        return self.label


def pair_block_size(jobs: int) -> int:
    """Jobs of one block."""
    return 1 if jobs <= ONE_EACH else -(-jobs // MOST_PAIR_BLOCKS)


def prompt_block_size(subtopics: int) -> int:
    """Subtopics of one block."""
    return -(-subtopics // MOST_PROMPT_BLOCKS)


def cut(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """Consecutive parts of `size` items, the last one maybe shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]

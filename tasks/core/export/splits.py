"""Which pairs are for testing, and in which order kto rows stand: decided by hashes, the same every time."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from sys import intern
from typing import TYPE_CHECKING

from tasks.core.selection import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.core.models import Job


class Subtopics:
    """What must stay on one side of a split: a subtopic's pairs, and subtopics that share a prompt.

    Sessions that were taken over may have the same prompt in two subtopics; elsewhere there is none twice.
    What comes of it does not depend on the order in which jobs are added.
    """

    def __init__(self) -> None:
        self._pairs: Counter[str] = Counter()
        self._joined: dict[str, str] = {}
        self._prompts: dict[bytes, str] = {}

    def add(self, job: Job) -> str:
        """Count a pair's job; returns the subtopic's mark, which `test` knows it by."""
        mark = intern(fingerprint(job.sub_topic))
        self._pairs[mark] += 1
        prompt = blake2b(fingerprint(job.prompt).encode(), digest_size=16).digest()
        other = self._prompts.setdefault(prompt, mark)
        if other != mark:
            first, second = sorted((self._root(mark), self._root(other)))
            if first != second:
                self._joined[second] = first
        return mark

    def test(self, share: float, seed: int) -> frozenset[str]:
        """The marks of the subtopics for testing.

        Args:
            share: The share of pairs that is wanted; as near to it as whole subtopics come, but at least one
                is taken and one left.
            seed: Another number chooses others.

        Returns:
            None for a share of 0, and where there is nothing to divide.
        """
        sizes: Counter[str] = Counter()
        for mark, count in self._pairs.items():
            sizes[self._root(mark)] += count
        wanted = share * sizes.total()
        chosen: set[str] = set()
        if share:
            taken = 0
            for root in sorted(sizes, key=lambda root: (_place(seed, root), root))[:-1]:
                if chosen and abs(taken + sizes[root] - wanted) >= abs(taken - wanted):
                    break
                chosen.add(root)
                taken += sizes[root]
        return frozenset(mark for mark in self._pairs if self._root(mark) in chosen)

    def _root(self, mark: str) -> str:
        root = mark
        while (above := self._joined.get(root)) is not None:
            root = above
        # Paths are kept short, for a chain of thousands is walked for each of its members.
        while mark != root:
            self._joined[mark], mark = root, self._joined[mark]
        return root


def mixed(jobs: Sequence[int], seed: int) -> Iterator[tuple[int, bool]]:
    """The order of kto rows: each job with True, for its chosen answer, and with False.

    KTOTrainer takes rows in the order in which they stand, and compares each prompt with the answers of other
    rows of its batch. So both labels come in equal numbers, in no pattern and never more than two alike in a
    row, and the answers to one prompt stand as far apart as they can.
    """
    order = sorted(jobs, key=lambda job: (_place(seed, f"kto {job}"), job))
    half = len(order) // 2
    for place, job in enumerate(order):
        rows = (job, True), (order[(place + half) % len(order)], False)
        yield from rows if _place(seed, f"first {job}") % 2 else reversed(rows)


def _place(seed: int, name: str) -> int:
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")

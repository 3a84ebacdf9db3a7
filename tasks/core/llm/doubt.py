"""Is it the question that a server refuses, or does it refuse all of them? A status does not tell.

A question is refused for good only when the server answers others of its kind: then it is replaced. Where it
answers none, it is the endpoint, whatever it says: the run stops in order, and nothing is taken for final.
Who asks a question for the second time, at the end of its phase, finds out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.core.errors import RefusedError

SEVERAL = 10
"""Refusals without an answer between them, after which the endpoint itself is in doubt."""


@dataclass(slots=True)
class _Refusal:
    """A question that was refused once: what it was refused with, and the proofs that there were by then."""

    error: RefusedError
    proofs: int


@dataclass(slots=True)
class Doubt:
    """What is known of how a server takes questions of one kind.

    Attributes:
        proofs: How often it was seen to answer one: a question of the run, or a small one for control.
        answered: Questions of the run that it answered.
        in_a_row: Refusals since the last answer of any kind.
        turn: Held by the one that asks the small question.
    """

    proofs: int = 0
    answered: int = 0
    in_a_row: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _refused: dict[bytes, _Refusal] = field(default_factory=dict)

    def answer(self) -> None:
        """A question of the run was answered."""
        self.answered += 1
        self.prove()

    def prove(self) -> None:
        """The endpoint answers questions of this kind."""
        self.proofs += 1
        self.in_a_row = 0

    def refuse(self, key: bytes, error: RefusedError) -> bool:
        """A question was refused; whether it was before."""
        self.in_a_row += 1
        again = key in self._refused
        self._refused.setdefault(key, _Refusal(error, self.proofs))
        return again

    @property
    def deep(self) -> bool:
        """Whether so many were refused in a row that the endpoint itself is in doubt."""
        return self.in_a_row >= SEVERAL

    @property
    def hopeless(self) -> bool:
        """Whether no question of this run is answered, although a small one is."""
        return not self.answered and len(self._refused) >= 2 * SEVERAL

    def decided(self, key: bytes) -> RefusedError | None:
        """The refusal of a question that need not be asked again to know that it is refused for good.

        The server says that it is for what is in it, and has answered another one since.
        """
        refusal = self._refused.get(key)
        if refusal is None or not refusal.error.about_content or refusal.proofs == self.proofs:
            return None
        return refusal.error

"""What was found out about the models in this process: it outlives a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tasks.core.llm.form import Form
    from tasks.core.llm.schemas import Structure

ALONE: Final = 5.0
"""Seconds for which the first request of a kind is alone: a refusal comes at once, an answer may take
long."""


@dataclass(slots=True)
class Known:
    """What is known of one model at one server, and outlives a run.

    Attributes:
        form: The form that it takes, as far as it was found out.
        answered: The kinds of request that it has answered.
        shapes: The schemas that it has answered in this structure.
        left_out: What it was found not to take, in words, by name.
        before_guessing: The structure that was given up without a word of the server about it, until an
            answer in a weaker one shows that this was right; None where none was.
        guessed: Whether that was tried, and was not right.
        unreadable: Answers in a row that did not keep to the form.
    """

    form: Form
    answered: set[Hashable] = field(default_factory=set)
    shapes: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    before_guessing: Structure | None = None
    guessed: bool = False
    unreadable: int = 0


class Learned:
    """What was found out about all models in this process, so that the next run in it begins with that.

    Args:
        alone: Seconds for which the first request of a kind is alone.
    """

    def __init__(self, alone: float = ALONE) -> None:
        self.alone = alone
        self._known: dict[Hashable, Known] = {}

    def of(self, key: Hashable, first: Form) -> Known:
        """What is known under a key: the model, its address, and what is configured of the form."""
        return self._known.setdefault(key, Known(first))

    def forget(self) -> None:
        """Begin anew."""
        self._known.clear()


LEARNED: Final = Learned()
"""That of this process."""

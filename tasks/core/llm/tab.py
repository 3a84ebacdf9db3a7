"""What a piece of work asks of servers: noted where a call is bought, and read by whoever does the work."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Tab:
    """Calls that the ledger had no answer to, so that a server was asked; whatever came of them."""

    asked: int = 0


_open: ContextVar[Tab | None] = ContextVar("tab", default=None)


@contextmanager
def open_tab() -> Iterator[Tab]:
    """Count the calls of the block, and of the tasks that are begun in it."""
    tab = Tab()
    token = _open.set(tab)
    try:
        yield tab
    finally:
        _open.reset(token)


def note_call() -> None:
    """Put a call on the tab of the work that asks for it, if it has one."""
    if (tab := _open.get()) is not None:
        tab.asked += 1

"""Modules that are imported when they are used: help is there at once, and a command imports its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Late:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


def when_used(*names: str) -> tuple[Late, ...]:
    """Modules that are there at once, and are imported when something of them is asked for.

    Args:
        names: Their full names.
    """
    return tuple(map(Late, names))

"""Prefect flows and the command line: stages in order, nothing else. `run` is a run as a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.library import FinishedRun, arun, run

__all__ = ["FinishedRun", "arun", "run"]


def __getattr__(name: str) -> Any:
    """What is public, imported when it is asked for: help on the command line is there at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flows import library  # noqa: PLC0415 - as above

    return getattr(library, name)

"""What people read in the end: a summary, or what went wrong. It imports next to nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import orjson

if TYPE_CHECKING:
    from tasks.core.errors import VellumforgeError


PROGRAM = "vellumforge2"
DISTRIBUTION = "vellumforge-flows"


class Shown(Protocol):
    """A summary that is shown when a run has ended; a frozen dataclass."""

    @property
    def first_row(self) -> str:
        """The first row, or ""."""

    def lines(self) -> list[str]:
        """The numbers."""

    def excerpt(self) -> str:
        """The first row, cut."""


def show_summary(summary: Shown) -> None:
    """Print the summary and the first row on standard output."""
    for line in summary.lines():
        print(line)  # noqa: T201 - the program's output
    if summary.first_row:
        print(f"first row: {summary.excerpt()}")  # noqa: T201 - the same


def show_json(summary: Shown) -> None:
    """Print the summary as one JSON object on standard output."""
    print(orjson.dumps(summary).decode())  # noqa: T201 - the program's output


def say(error: VellumforgeError) -> int:
    """Print what went wrong on standard error, each problem and note on a line; returns the exit code."""
    for line in [*str(error).splitlines(), *getattr(error, "__notes__", [])]:
        print(f"{PROGRAM}: {line}", file=sys.stderr)  # noqa: T201 - errors are shown here
    return error.exit_code

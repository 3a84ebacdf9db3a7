"""What people read in the terminal besides the progress: log records, the summary, errors."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Protocol

import orjson
from rich.console import Console
from rich.logging import RichHandler

from tasks.core.session.journal import ROOT

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


stderr = Console(stderr=True)
"""The one console on standard error: records and the live progress must not overwrite each other."""


def show_records(*, verbose: bool) -> None:
    """Show the project's log records from level WARNING, or INFO when verbose, on standard error."""
    handler = RichHandler(console=stderr, show_time=False, show_path=False, rich_tracebacks=False)
    handler.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger(ROOT).addHandler(handler)


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

"""What people read: the output of commands, and what went wrong. It imports next to nothing.

Every text that is printed passes through here, or through `flows.process.console.Screen`: what stands in one
line stays in it, and nothing in it is hidden or moves the cursor, whoever wrote it.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

import orjson

from tasks.core.errors import VellumforgeError
from tasks.core.printable import plain_json, reason_of, shown, shown_line

if TYPE_CHECKING:
    from types import TracebackType


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


def tell(*lines: str) -> None:
    """Print lines on standard output."""
    print("\n".join(map(shown_line, lines)))  # noqa: T201 - the program's output


def tell_json(document: Any) -> None:
    """Print one JSON object on standard output, in which nothing is hidden either."""
    try:
        text = orjson.dumps(document).decode()
    except TypeError:  # a path with bytes that are no text
        text = orjson.dumps(_encodable(document)).decode()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
        text = plain_json(text)
    except UnicodeEncodeError:
        text = plain_json(text, ascii_only=True)
    print(text)  # noqa: T201 - the program's output


def _encodable(value: Any) -> Any:
    """The same, in which bytes that are no text are question marks."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _encodable(asdict(value))
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value


def note(*lines: str) -> None:
    """Print lines on standard error."""
    print("\n".join(map(shown_line, lines)), file=sys.stderr, flush=True)  # noqa: T201 - the terminal's own lines


def show_summary(summary: Shown) -> None:
    """Print the summary and the first row on standard output."""
    tell(*summary.lines(), *([f"first row: {summary.excerpt()}"] if summary.first_row else []))


def show_json(summary: Shown) -> None:
    """Print the summary as one JSON object on standard output."""
    tell_json(summary)


def say(error: VellumforgeError) -> int:
    """Print what went wrong on standard error, each problem and note on a line; returns the exit code."""
    note(*(f"{PROGRAM}: {line}" for line in [*error.lines, *getattr(error, "__notes__", [])]))
    return error.exit_code


class LostOutputError(VellumforgeError):
    """What was to be said could not be: its stream is full, closed, or nobody reads it any more."""


class _Steady:
    """A standard stream that may fill up, or lose its reader, and costs no more than what was to be said.

    Args:
        stream: The stream.
        lost: Why everything that is written to it is lost; "" where it can be written to.
    """

    def __init__(self, stream: TextIO, lost: str = "") -> None:
        self._stream = stream
        self._closed = lost
        self.lost = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, as far as it can be."""
        self.lost = self.lost or self._closed
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write what is held back, as far as it can be."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Note it, and let what is held back go nowhere: it would fail once more at the end."""
        self.lost = self.lost or reason_of(error, bare=True)
        with suppress(OSError), open(os.devnull, "wb") as nothing:  # noqa: PTH123 - it is no path of ours
            os.dup2(nothing.fileno(), self._stream.fileno())


def keep_streams() -> None:
    """Make the process's standard streams such that no run is lost by them; for a process of our own.

    What cannot be encoded is written as its number. A descriptor that is closed is opened on nothing: else
    the next file that is opened, the ledger say, would get its number, and what libraries print.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return  # Somebody has put others in their place.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - as it is declared
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        closed = "it is closed" if stream is None and name == "stdout" else ""
        if stream is None:
            number = 1 if name == "stdout" else 2
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
        stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast("TextIO", _Steady(stream, closed)))
    sys.excepthook = _show_defect


def _show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, whose error may hold texts from outside."""
    if not issubclass(kind, SystemExit):
        print(shown("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)  # noqa: T201


def all_said(code: int) -> int:
    """The exit code of the process: what could not be said is an error, where there was none."""
    lost = []
    for stream, name in ((sys.stdout, "standard output"), (sys.stderr, "standard error")):
        stream.flush()
        if isinstance(stream, _Steady) and stream.lost:
            lost.append(f"{name} cannot be written: {stream.lost}; what was to be said there is lost")
    if not lost:
        return code
    said = say(LostOutputError(*lost))
    sys.stderr.flush()
    return code or said

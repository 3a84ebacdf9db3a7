"""Programs of the tests' own in processes of their own, forked by the parent that has imported all."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.flows.prepared import PARENT, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

PATIENCE = 600.0
"""Seconds after which a program that was told to end is taken to hang."""


class Program:
    """A running program; at the end of its context it is gone.

    Attributes:
        stdin: What it reads.
        stdout: What it writes.
    """

    def __init__(self, code: str, *arguments: str) -> None:
        read, write = zip(*(os.pipe() for _ in range(3)), strict=True)
        theirs = [read[0], write[1], write[2]]
        self.stdin = os.fdopen(write[0], "w")
        self.stdout, self._stderr = os.fdopen(read[1]), os.fdopen(read[2])
        try:
            self._process = PARENT.fork(
                ["-c", code, *arguments], folder=ROOT, environment=os.environ, files=theirs
            )
        finally:
            for each in theirs:
                os.close(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for file in (self.stdin, self.stdout, self._stderr):
            file.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> int:
        """Kill it, if it still runs; returns its exit code."""
        self._process.send_signal(signal.SIGKILL)
        return self._process.wait(PATIENCE)

    def end(self) -> tuple[str, str]:
        """Wait for its end, which must be a good one; returns what it wrote to both its outputs."""
        self.stdin.close()
        said = self.stdout.read(), self._stderr.read()
        assert self._process.wait(PATIENCE) == 0, said
        return said


def together(programs: Sequence[Program]) -> list[tuple[str, str]]:
    """Let programs that say `ready`, and then wait for a line, go on at once, and wait for their end."""
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        program.stdin.write("go\n")
        program.stdin.flush()
    return [program.end() for program in programs]

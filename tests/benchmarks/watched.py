"""What holds up the event loop: `python -m tests.benchmarks.watched run --config config.toml`.

Runs the command line, and says at its end on standard error which steps of the event loop took more than
50 ms, the longest first: wall time, CPU time of their thread, and where they were after 50 ms. On a busy
machine the wall time of a step has the time of others in it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from itertools import count
from typing import Any, NamedTuple

from flows.commands.app import main

LIMIT_SECONDS = 0.05
LOOK_SECONDS = 0.01
FRAMES = 4
"""How many of the innermost calls are shown of where a step was."""


class Slow(NamedTuple):
    """A step that held up the event loop."""

    wall: float
    cpu: float
    where: str


class Watch:
    """Times each step of the event loops of this process.

    Attributes:
        found: The slow ones.
    """

    def __init__(self) -> None:
        self.found: list[Slow] = []
        self._steps = count(1)
        self._now: tuple[int, int, float] | None = None
        self._where: dict[int, str] = {}

    def begin(self) -> None:
        """Watch from now on."""
        handles: Any = asyncio.events.Handle
        run = handles._run

        def timed(handle: asyncio.Handle) -> None:
            step, outer = next(self._steps), self._now
            began, worked = time.perf_counter(), time.thread_time()
            self._now = step, threading.get_ident(), began
            run(handle)
            wall = time.perf_counter() - began
            self._now = outer
            if wall > LIMIT_SECONDS:
                self.found.append(Slow(wall, time.thread_time() - worked, self._where.pop(step, "?")))

        handles._run = timed
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if self._now is None:
                continue
            step, thread, began = self._now
            frame = sys._current_frames().get(thread)
            if frame is not None and step not in self._where and time.perf_counter() - began > LIMIT_SECONDS:
                calls = traceback.extract_stack(frame)[-FRAMES:]
                self._where[step] = " > ".join(f"{each.filename}:{each.lineno}" for each in calls)


if __name__ == "__main__":
    watch = Watch()
    watch.begin()
    code = main(sys.argv[1:])
    print(f"{len(watch.found)} steps took more than {1000 * LIMIT_SECONDS:.0f} ms", file=sys.stderr)
    for slow in sorted(watch.found, reverse=True):
        print(f"{1000 * slow.wall:6.0f} ms, CPU {1000 * slow.cpu:3.0f} ms: {slow.where}", file=sys.stderr)
    sys.exit(code)

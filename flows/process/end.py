"""The end of a process that a worker started for a run: bounded, also when Prefect's API is gone.

When the work is over, Prefect's engine tells the API for over a minute, and then waits some seconds for every
event that nobody takes. The session's files are closed by then: nothing is lost with the wait.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from flows.process.console import IN_WORKER
from flows.process.server import UI_IS_BEHIND
from flows.process.terminal import note
from tasks.core.errors import VellumforgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

END_SECONDS = 12.0
"""How long Prefect may take for its last words after the work of a run is over."""

SLICE = 0.5
"""Seconds of a part of it: of a process that was stopped and goes on, no more than one part has passed."""

_ends: list[threading.Event] = []


@contextmanager
def bounded_end(flow_run: str) -> Iterator[None]:
    """Leave the process at the latest `END_SECONDS` after the block, with the exit code of the work in it.

    Nothing happens unless a worker started this process for just this run: what else a process does after
    the run is not ours to end. A run that is tried again in its process stops the clock.

    Args:
        flow_run: Id of the flow run whose work the block is.
    """
    if os.environ.get(IN_WORKER) != flow_run:
        yield
        return
    while _ends:
        _ends.pop().set()
    code = 0
    try:
        yield
    except BaseException as error:
        code = error.exit_code if isinstance(error, VellumforgeError) else 1
        raise
    finally:
        goes_on = threading.Event()
        threading.Thread(target=_leave, args=(code, goes_on), daemon=True).start()
        _ends.append(goes_on)


def _leave(code: int, goes_on: threading.Event) -> None:
    for _ in range(round(END_SECONDS / SLICE)):
        if goes_on.wait(SLICE):
            return
    with suppress(OSError):  # nobody may read it any more
        note(f"{UI_IS_BEHIND}: it does not answer")
        sys.stdout.flush()
    os._exit(code)

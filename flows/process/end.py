"""The end of a process that a worker started for a run: in order whoever is gone, and bounded.

A worker that is told to stop kills its children at once, and one that is killed leaves them behind, where
nobody can cancel them. So a run has a shield between its worker and itself, which may be killed in its place,
and ends in order when its parent is gone. `python -m flows.process.end COMMAND …` runs a command below one.

When the work is over, Prefect's engine tells the API for over a minute, and then waits some seconds for every
event that nobody takes. The session's files are closed by then: nothing is lost with the wait.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from flows.process.terminal import note
from tasks.core.errors import RunInterrupted, VellumforgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IN_WORKER = "PREFECT__FLOW_RUN_ID"
"""Set by a Prefect worker for the processes that it starts."""

SHIELD = "VELLUMFORGE_SHIELD"
"""The process id of the shield, for the command below it."""

UI_IS_BEHIND = "Prefect's UI is behind and may show this run as Running; the run itself is not affected"
"""How every warning begins that Prefect's server did not take note of a run's end."""

END_SECONDS = 12.0
"""How long Prefect may take for its last words after the work of a run is over."""

SLICE = 0.5
"""Seconds of a part of it: of a process that was stopped and goes on, no more than one part has passed."""

WATCH_SECONDS = 0.25
"""Between two looks at whether a process or its parent is still there."""

ALONE_SECONDS = 60.0
"""After which a run leaves that was told to stop because its parent is gone: no worker is left to kill it."""

LAST_WORDS_SECONDS = 1.0
"""How long what was said last may take to its reader when the process ends."""

_CHUNK = 65_536
_SUPERVISOR = "prefect.runner._workspace_supervisor"
_ADOPT_ORPHANS = 36
"""Linux's PR_SET_CHILD_SUBREAPER: who is left behind below becomes a child of this process."""

_ends: list[threading.Event] = []


def state_after(error: VellumforgeError | None) -> str:
    """The name of Prefect's state of a run that this ended: it failed, if it was not told to stop."""
    if error is None:
        return "Completed"
    return "Cancelled" if isinstance(error, RunInterrupted) else "Failed"


@contextmanager
def bounded_end(flow_run: str) -> Iterator[None]:
    """Stop the block in order when this process's parent is gone, and leave soon after the block.

    The process is left at the latest `END_SECONDS` after the block, with the exit code of the work in it.
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
    _outlive_readers()
    over = threading.Event()
    threading.Thread(target=_stop_without_parent, args=[over], daemon=True).start()
    code = 0
    try:
        yield
    except BaseException as error:
        code = error.exit_code if isinstance(error, VellumforgeError) else 1
        raise
    finally:
        over.set()
        goes_on = threading.Event()
        threading.Thread(target=_leave, args=(code, goes_on), daemon=True).start()
        _ends.append(goes_on)


def _stop_without_parent(over: threading.Event) -> None:
    """Tell this process to stop once its parent is gone, unless its work is over before."""
    # What a worker starts anew in place of itself keeps its parent; below a shield it is known by its number.
    parent = int(os.environ.get(SHIELD) or os.getppid())
    while os.getppid() == parent:
        if over.wait(WATCH_SECONDS):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    if not over.wait(ALONE_SECONDS):
        os._exit(128 + signal.SIGTERM)


def _leave(code: int, goes_on: threading.Event) -> None:
    for _ in range(round(END_SECONDS / SLICE)):
        if goes_on.wait(SLICE):
            return
    note(f"{UI_IS_BEHIND}: it does not answer")
    for spoken in _outlive_readers():
        spoken.end()
    os._exit(code)


class _Spoken:
    """What this process says on a standard stream, handed on for as long as somebody reads it.

    A worker reads what its runs say. When it is gone, each write to its pipe fails, and rich, by which
    Prefect logs, ends a process whose words fail: the calls in flight would be given up.

    Args:
        number: The stream's file descriptor.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._reader = os.dup(number)
        self._inside, outside = os.pipe()
        os.dup2(outside, number)
        os.close(outside)
        self._thread = threading.Thread(target=self._hand_on, daemon=True)
        self._thread.start()

    def _hand_on(self) -> None:
        is_read = True
        while said := os.read(self._inside, _CHUNK):
            while said and is_read:
                try:
                    said = said[os.write(self._reader, said) :]
                except OSError:
                    is_read = False

    def end(self) -> None:
        """Hand on what is left; from now on the stream is what it was."""
        (sys.stdout if self._number == 1 else sys.stderr).flush()
        os.dup2(self._reader, self._number)
        self._thread.join(LAST_WORDS_SECONDS)


@cache
def _outlive_readers() -> tuple[_Spoken, _Spoken]:
    """Let this process say what it likes, whether somebody reads it or not."""
    streams = _Spoken(1), _Spoken(2)
    for spoken in streams:
        atexit.register(spoken.end)
    return streams


def shielded() -> None:
    """The first pull step of a deployment: what a worker started begins anew below a shield.

    Nothing happens where Prefect starts runs in another way: nobody kills there without asking first.
    """
    started = getattr(sys.modules["__main__"].__spec__, "name", "")
    if started == _SUPERVISOR and os.environ.get(SHIELD) != str(os.getppid()):
        # The process stays the one that the worker knows.
        os.execv(sys.executable, [sys.executable, "-m", "flows.process.end", *sys.orig_argv])  # noqa: S606 - no shell is wanted


def shield(command: Sequence[str]) -> int:
    """Run a command, hand SIGTERM on to it, and tell it to stop when this process's parent is gone.

    SIGINT is left to the command: a terminal sends it to all its processes. Where the command is a worker,
    what it leaves behind is waited for: a container ends with its first process.

    Returns:
        The command's exit code, negative for a signal.
    """
    parents = {os.getppid()}
    variables = dict(os.environ)
    of_run = IN_WORKER in variables
    if of_run:
        variables[SHIELD] = str(os.getpid())
        # Before its flow runs, a run cannot say how it ended: it goes on until it can, and sees who is gone.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        import ctypes  # noqa: PLC0415 - for this alone, and not for each run's start

        with suppress(OSError, AttributeError):  # only Linux has it
            ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)
    child = subprocess.Popen(command, env=variables)  # noqa: S603 - what was asked for
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: None)
    while child.poll() is None:
        if os.getppid() not in parents:
            parents.add(os.getppid())
            child.send_signal(signal.SIGTERM)
        time.sleep(WATCH_SECONDS)
    with suppress(ChildProcessError):
        while not of_run:
            os.wait()
    return child.returncode


if __name__ == "__main__":
    ended = shield(sys.argv[1:])
    if ended < 0:
        # Whoever waits for this process is told what the command ended by.
        with suppress(OSError):
            signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    sys.exit(ended)

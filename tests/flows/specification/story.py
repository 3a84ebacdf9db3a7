"""A session of the specification's kind: begun, interrupted with Ctrl+C, and ready to resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.flows.command import PROGRAM, User, config

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, Model, Process

SUBTOPICS, PROMPTS = 3, 4
JOBS = SUBTOPICS * PROMPTS
LISTS = 1 + SUBTOPICS
"""Calls for subtopics and prompts."""
CALLS = LISTS + 2 * JOBS
"""Calls of a whole run: an undisturbed one, or all parts of an interrupted one together."""

ENABLED = """\
enable_checkpointing = true
checkpoint_interval = 10  # Save every 10 jobs
"""
"""The settings of "Enable Checkpointing", as they stand there."""

_WRITTEN = "enable_checkpointing = true\ncheckpoint_interval = 1\n"


def settings(server: Model, checkpointing: str = ENABLED) -> str:
    """A configuration with these lines about checkpoints."""
    text = config(
        server.url,
        subtopics=SUBTOPICS,
        prompts=PROMPTS,
        concurrency=2,
        more="[execution]\ngrace_seconds = 5.0",
    )
    assert text.count(_WRITTEN) == 1
    return text.replace(_WRITTEN, checkpointing)


def vellumforge2(user: User, *words: str) -> Ended:
    """Run a command as the specification writes it, to its end; it never ends with a traceback."""
    ended = user.run(*words, program=PROGRAM)
    assert "Traceback" not in ended.err
    return ended


def checkpoint_of(session: Path) -> dict[str, Any]:
    """The document in a session's `checkpoint.json`."""
    found: dict[str, Any] = json.loads((session / "checkpoint.json").read_text(encoding="utf-8"))
    return found


def dataset_of(session: Path) -> bytes:
    """The bytes of a session's dataset."""
    return (session / "dataset.jsonl").read_bytes()


@dataclass(frozen=True)
class Interruption:
    """Ctrl+C, and what there was around it.

    Attributes:
        ended: How the process ended.
        running: The checkpoint as it stood before, while the first calls of a phase were in flight.
        stopped: The checkpoint as it stood after.
        asked: Calls that the server was asked for so far, in all parts of the session.
    """

    ended: Ended
    running: dict[str, Any]
    stopped: dict[str, Any]
    asked: int


def press_ctrl_c(server: Model, user: User, process: Process, requests: int) -> Interruption:
    """Press Ctrl+C in the terminal of a process once so many requests arrived.

    Args:
        server: Its model server.
        user: Who runs it; the session is theirs.
        process: The process.
        requests: The last of them is the first of the phase that is looked at, or a later one.
    """
    assert server.until_requests(requests, process)
    (session,) = user.sessions()
    running = checkpoint_of(session)
    # The terminal signals the whole group of processes.
    os.killpg(process.pid, signal.SIGINT)
    ended = process.end()
    return Interruption(ended, running, checkpoint_of(session), len(server.requests()))


@dataclass(frozen=True)
class Story:
    """A session that was interrupted while prompts were written, resumed, and interrupted among its pairs.

    Attributes:
        user: Whose it is; tests go on with it elsewhere, see `copy`.
        name: Its name.
        in_prompts: The first interruption.
        in_pairs: The second one.
        asked_twice: Keys of calls that the two parts asked for more than once.
        config: The configuration.
    """

    user: User
    name: str
    in_prompts: Interruption
    in_pairs: Interruption
    asked_twice: list[str]
    config: str

    @property
    def session(self) -> Path:
        """Its folder."""
        return self.user.folder / "output" / self.name

    @property
    def missing(self) -> int:
        """Calls that are still to be paid for."""
        return CALLS - self.in_pairs.asked

    def copy(self, where: Path) -> User:
        """Another user with the same files, who can go on with the session."""
        variables = dict(self.user.variables) | {"PREFECT_HOME": str(where / "prefect")}
        user = User.made(where, **variables).in_one_process()
        shutil.copytree(self.user.folder, user.folder, dirs_exist_ok=True)
        return user

"""A session's folder: its name, how it is found, and the lock that gives it one writer."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import socket
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import orjson

from tasks.core import files
from tasks.core.errors import SessionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


PREFIX = "session_"


def create_folder(output: Path, now: datetime, fill: Callable[[Path], None]) -> Path:
    """Make a new session folder under `output`, named after the local time `now`.

    It is filled under a hidden name and put in its place in one step: whoever finds it, finds it whole.

    Args:
        output: The output folder; made when it is missing.
        now: The time.
        fill: Writes the folder's first files.

    Returns:
        `output/session_YYYY-MM-DDTHH-MM-SS`, with `-2`, `-3`, … behind it when that name is taken.

    Raises:
        SessionError: The folder cannot be made.
    """
    stamp = f"{PREFIX}{now:%Y-%m-%dT%H-%M-%S}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        with files.folder_beside(output, ".making-") as made:
            fill(made)
            return _put_in_place(made, output, stamp)
    except OSError as error:
        raise SessionError(f"{error.filename} cannot be made: {error.strerror}") from error


def _put_in_place(made: Path, output: Path, stamp: str) -> Path:
    for number in itertools.count(1):
        folder = output / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            # By one's own attempt alone: whoever looks first may find it made meanwhile.
            made.rename(folder)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
        else:
            return folder
    raise AssertionError("unreachable: the numbers do not end")


_NAME = re.compile(rf"(?!.*\.\.){PREFIX}[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}")


def check_name(name: str) -> str:
    """The name, when a session can have it.

    Raises:
        UsageError: It is no session's name: a path, `..`, a control character, or not `session_…`.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no session's name: give it as the list shows it, e.g. {PREFIX}2026-01-31T12-00-00"
        )
    return name


def find_session(output: Path, name: str) -> Path:
    """The folder of the session called `name` under `output`.

    Raises:
        UsageError: The name is not valid, there is no such folder, or it is a link that leads elsewhere.
    """
    folder = output / check_name(name)
    if not folder.is_dir():
        raise UsageError(
            f"there is no session {name} in {output}; `checkpoint list` shows those that are there"
        )
    if folder.resolve().parent != output.resolve():
        raise UsageError(f"session {name} is a link that leads out of {output}")
    return folder


def all_sessions(output: Path) -> list[Path]:
    """The session folders under `output`, newest name first; none when there is no such folder."""
    if not output.is_dir():
        return []
    resolved = output.resolve()
    found = [
        folder
        for folder in output.iterdir()
        if _NAME.fullmatch(folder.name) and folder.is_dir() and folder.resolve().parent == resolved
    ]
    return sorted(found, key=lambda folder: folder.name, reverse=True)


FILE_NAME = ".lock"


class SessionLockedError(SessionError):
    """Another process writes to the session."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the session's lock while the block runs.

    The file stays: a lock is the system's, not the file's, and removing it would let two hold it.

    Raises:
        SessionLockedError: Another process holds it; the message says which.
        SessionError: The lock cannot be taken.
    """
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.SHARED)
    except OSError as error:
        raise SessionError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            _lock(descriptor)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _signature())
        except BlockingIOError as error:
            raise SessionLockedError(f"session {folder.name} is being written by {_holder(path)}") from error
        except OSError as error:
            raise SessionError(f"{path} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the session's lock; it is not taken."""
    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # Not known, and so it is left alone.
    try:
        # To share it for a moment is to hold it: `_lock` lets that pass.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


LOOK_SECONDS = 0.05
"""For so long a lock may be held by those who only look at it."""


def _lock(descriptor: int) -> None:
    end = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(LOOK_SECONDS / 10)
        else:
            return


def _signature() -> bytes:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return orjson.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _holder(path: Path) -> str:
    """Who holds the lock, as it wrote down itself."""
    try:
        document = orjson.loads(files.read(path))
        return f"process {document['pid']} on {document['host']}, since {document['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"

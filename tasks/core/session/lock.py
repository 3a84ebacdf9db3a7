"""One writer for a session: a lock that the system releases when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import orjson

from tasks.core.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise SessionError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _signature())
        except BlockingIOError as error:
            raise SessionLockedError(f"session {folder.name} is being written by {_holder(path)}") from error
        except OSError as error:
            raise SessionError(f"{path} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def _signature() -> bytes:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return orjson.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _holder(path: Path) -> str:
    """Who holds the lock, as it wrote down itself."""
    try:
        document = orjson.loads(path.read_bytes())
        return f"process {document['pid']} on {document['host']}, since {document['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"

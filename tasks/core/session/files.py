"""The one atomic writer: a reader finds the old file or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".part"
"""The end of the names of files that are being written."""


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file anew: `path` is replaced, durably, when the block ends, and untouched when it raises.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=SUFFIX)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write(path: Path, content: bytes) -> None:
    """Replace a file's content in one step; durable on return."""
    with replaced(path) as file:
        file.write(content)


def sweep(folder: Path) -> None:
    """Remove what a writer that was killed left of its files; nobody else may be writing in the folder."""
    for left in folder.glob(f".*{SUFFIX}"):
        with suppress(OSError):
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the folder's own entry durable: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

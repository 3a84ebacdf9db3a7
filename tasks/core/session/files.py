"""The one atomic writer: a reader finds the old file or folder or the new one, never a part."""

from __future__ import annotations

import os
import shutil
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


@contextmanager
def folder_replaced(path: Path) -> Iterator[Path]:
    """Write a folder anew: `path` is replaced when the block ends, and untouched when it raises.

    A new folder takes its place in one step. Between the old one's going and the new one's coming there is a
    moment with neither, as file systems have no single step for that.

    Raises:
        OSError: The folder above cannot be written to, or the disk is full.
    """
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=SUFFIX))
    old = beside.with_name(f"{beside.name}.old{SUFFIX}")
    try:
        yield beside
        for folder in (*(found for found in beside.rglob("*") if found.is_dir()), beside):
            _sync_folder(folder)
        beside.chmod(0o755)
        if path.exists():
            path.rename(old)
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    _sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def write(path: Path, content: bytes) -> None:
    """Replace a file's content in one step; durable on return."""
    with replaced(path) as file:
        file.write(content)


def sweep(folder: Path) -> None:
    """Remove what a writer that was killed left of its files; nobody else may be writing in the folder."""
    for left in folder.glob(f".*{SUFFIX}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
            continue
        with suppress(OSError):
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the folder's own entry durable: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

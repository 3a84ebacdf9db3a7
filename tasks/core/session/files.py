"""The one atomic writer: a reader finds the old file or folder or the new one, never a part."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from tasks.core.errors import UsageError
from tasks.core.printable import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".part"
"""The end of the names of files that are being written."""

SHARED = 0o666
"""The mode of a file for whoever the umask lets at it; what holds secrets has a mode of its own."""


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file anew: `path` is replaced, durably, when the block ends, and untouched when it raises.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    temporary = _beside(path)
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, new, SHARED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
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
    beside = _beside(path)
    beside.mkdir()
    old = beside.with_name(f"{beside.name}.old{SUFFIX}")
    try:
        yield beside
        for folder in (*(found for found in beside.rglob("*") if found.is_dir()), beside):
            _sync_folder(folder)
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


def check_folder(path: Path, *, writes: bool) -> None:
    """Refuse a path that can be no folder, before anything is done for it; it need not be there yet.

    Args:
        path: The path, as it was given.
        writes: Whether something is to be written into it.

    Raises:
        UsageError: It, or a folder above it, is a file, or a link that leads nowhere, or must not be entered
            or written to; or no path can be like that.
    """
    for above in (path, *path.parents):
        try:
            is_folder = stat.S_ISDIR(above.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            if not above.is_symlink():
                continue
            raise UsageError(f"{path} can be no folder: {above} is a link that leads nowhere") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} can be no folder: {reason_of(error, bare=True)}") from error
        if not is_folder:
            what = "it" if above == path else str(above)
            raise UsageError(f"{path} can be no folder: {what} is a file; name another one")
        # A disk that is read-only is no mistake of whoever named the folder: it is found by writing.
        if writes and not os.access(above, os.W_OK | os.X_OK) and not os.statvfs(above).f_flag & os.ST_RDONLY:
            raise UsageError(f"{path} cannot be written to: {above} is closed to this user; name another one")
        return


def check_file(path: Path) -> None:
    """Refuse a path to which no file can be written, before anything is done for it.

    Raises:
        UsageError: It is a folder, or the folder above it is none, is not there, or must not be written to.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file that is to be written")
    check_folder(path.parent, writes=True)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} to write {path.name} into")


def sweep(folder: Path) -> None:
    """Remove what a writer that was killed left of its files; nobody else may be writing in the folder."""
    for left in folder.glob(f".*{SUFFIX}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
            continue
        with suppress(OSError):
            left.unlink()


def _beside(path: Path) -> Path:
    """A name beside a file or folder that nobody else takes.

    Not tempfile's: its files are for their owner alone, and what the umask would let others do can be asked
    for only by changing it, for every thread.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")


def _sync_folder(folder: Path) -> None:
    """Make the folder's own entry durable: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files: the one atomic writer, what it leaves when it is killed, and reading what is a file at all.

A reader finds the old file or folder or the new one, never a part. What is being written has a hidden name
and a lock of the system's, which ends with its owner: so anybody can tell what is still being written from
what a writer that was killed has left, and the next command that works in a folder removes that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import select
import shutil
import stat
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from tasks.core.errors import UsageError
from tasks.core.printable import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUFFIX = ".vellumforge.part"
"""The end of the names of files that are being written, in whosever folder: no other program has it."""

REMOVED = ".removed-"
"""The beginning of the names of folders that are being removed."""

LEFT = (REMOVED, ".import-", ".merge-", ".fetch-", ".making-")
"""Beginnings of the names of folders that are being made or removed in an output folder. What was to be
removed goes first: whatever comes then may need its room."""

SHARED = 0o666
"""The mode of a file for whoever the umask lets at it; what holds secrets has a mode of its own."""

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
"""How a file is opened that must not be there yet."""

PART = ".part"
"""The end of hidden names in folders of ours, also of those that older versions gave."""

PIPE_PATIENCE = 10.0
"""Seconds for which a pipe that is read in a file's place may be silent."""

NO_FILE = "it is a pipe or a device, and no file"


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file anew: `path` is replaced, durably, when the block ends, and untouched when it raises.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    with _beside(path) as temporary:
        # Open until it is in its place: its lock must not be gone before its name is.
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, to be written and renamed; what is not renamed is gone with the block."""
    sweep(path.parent, foreign=True)
    while True:
        temporary = _named(path.parent, f".{path.name}.", SUFFIX)
        descriptor = os.open(temporary, NEW, SHARED)
        if _take(descriptor, temporary):
            break
    try:
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
        os.close(descriptor)


@contextmanager
def folder_beside(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """A new folder to work in, gone when the block ends and it is still there: it may be renamed meanwhile.

    Args:
        parent: The folder that it is made in.
        prefix: The beginning of its name; one of `LEFT`, or any with `suffix`.
        suffix: The end of its name: `SUFFIX`, or nothing.

    Raises:
        OSError: The folder above cannot be written to.
    """
    sweep(parent, foreign=bool(suffix))
    while True:
        folder = _named(parent, prefix, suffix)
        folder.mkdir()
        # Until it is locked, somebody who sweeps may take it for something left.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            if _take(descriptor, folder):
                break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def folder_replaced(path: Path) -> Iterator[Path]:
    """Write a folder anew: `path` is replaced when the block ends, and untouched when it raises.

    A new folder takes its place in one step. Between the old one's going and the new one's coming there is a
    moment with neither, as file systems have no single step for that.

    Raises:
        OSError: The folder above cannot be written to, or the disk is full.
    """
    with folder_beside(path.parent, f".{path.name}.", SUFFIX) as beside:
        yield beside
        for folder in (*(found for found in beside.rglob("*") if found.is_dir()), beside):
            _sync_folder(folder)
        if path.exists():
            with folder_beside(path.parent, f".{path.name}.old.", SUFFIX) as old:
                # An empty folder gives way to one that is renamed.
                path.rename(old)
                try:
                    beside.rename(path)
                except BaseException:
                    old.rename(path)
                    raise
        else:
            beside.rename(path)
    _sync_folder(path.parent)


def _named(parent: Path, prefix: str, suffix: str) -> Path:
    """A path that nobody else takes.

    Not tempfile's: its files are for their owner alone, and what the umask would let others do can be asked
    for only by changing it, for every thread.
    """
    return parent / f"{prefix}{secrets.token_hex(4)}{suffix}"


def put_in_place(made: Path, path: Path) -> None:
    """Give a file or folder that is whole its name, durably.

    Raises:
        OSError: It cannot be renamed.
    """
    made.replace(path)
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; one that is left in the middle of it has another name.

    Raises:
        OSError: It cannot be removed.
    """
    with folder_beside(path.parent, f"{REMOVED}{path.name}-") as doomed:
        path.rename(doomed)
        shutil.rmtree(doomed)


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


def sweep(folder: Path, *, foreign: bool = False) -> None:
    """Remove what writers left that were killed; what is still being written stays.

    Args:
        folder: The folder.
        foreign: Whether it may be anybody's, so that only names go which no other program gives.
    """
    hidden = []
    with suppress(OSError):
        hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
    left = [path for path in hidden if path.name.endswith(SUFFIX if foreign else PART)]
    if not foreign:
        left = [path for beginning in LEFT for path in hidden if path.name.startswith(beginning)] + left
    for path in left:
        _remove_if_left(path)


def is_being_made(folder: Path) -> bool:
    """Whether something is being made in an output folder that takes its place there as a whole."""
    made = [path for beginning in LEFT[1:] for path in folder.glob(f"{beginning}*")]
    return any(_is_held(path) for path in made)


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # It is in its place, or was never locked.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> bool:
    """Lock what was just made; False, and closed, when it was taken for something left and is gone."""
    # A file system without locks has nothing swept either.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if _is_at(descriptor, path):
        return True
    os.close(descriptor)
    return False


def _remove_if_left(path: Path) -> None:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | flags)
        except IsADirectoryError:
            descriptor = os.open(path, os.O_RDONLY | flags)
    except OSError:
        return  # Gone meanwhile, a link, or somebody else's.
    try:
        with suppress(OSError):  # It is locked: its owner lives.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have put it in its place between our opening it and its letting go.
            if not _is_at(descriptor, path):
                return
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file or folder still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Make the folder's own entry durable: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def opened(path: Path) -> IO[bytes]:
    """A file, open for reading.

    Raises:
        OSError: It cannot be read, or is no file: to open a pipe or to read a device might never end.
    """
    return os.fdopen(_regular(path, os.O_RDONLY), "rb")


def read(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: As `opened` says.
    """
    with opened(path) as file:
        return file.read()


def begun(path: Path, *, keeping: bool = False) -> IO[bytes]:
    """A file, open for writing in its place.

    Args:
        path: The file.
        keeping: Whether what it holds stays, and what is written comes behind it.

    Raises:
        OSError: It cannot be written, or there is a pipe in its place.
    """
    how = os.O_APPEND if keeping else os.O_TRUNC
    descriptor = _regular(path, os.O_WRONLY | os.O_CREAT | how, stat.S_ISCHR)
    return os.fdopen(descriptor, "ab" if keeping else "wb")


def _regular(path: Path, flags: int, *others: Callable[[int], bool]) -> int:
    """Open what is a file, or of one of the other kinds."""
    try:
        # Without waiting for the other end of a pipe.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.EINVAL, NO_FILE, str(path)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if any(is_kind(mode) for is_kind in (stat.S_ISREG, *others)):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, NO_FILE, str(path))


def read_stream(path: Path, most: int, patience: float = PIPE_PATIENCE) -> bytes:
    """The first bytes of a file, or of a pipe in its place, as `<(command)` of a shell is one.

    Args:
        path: The file.
        most: How many bytes at most.
        patience: Seconds for which a pipe may be silent.

    Raises:
        OSError: It cannot be read, or nothing came through the pipe for too long.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        content = b""
        while len(content) < most:
            if not stat.S_ISREG(mode):
                _await(descriptor, path, patience)
            try:
                piece = os.read(descriptor, most - len(content))
            except BlockingIOError:
                continue
            if not piece:
                break
            content += piece
        return content
    finally:
        os.close(descriptor)


def _await(descriptor: int, path: Path, patience: float) -> None:
    """Wait until there is something to read, or the end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + patience
    if not poll.poll(patience * 1000) and time.monotonic() >= end:
        why = f"nothing came through this pipe for {patience:g} s"
        raise TimeoutError(errno.ETIMEDOUT, why, str(path))

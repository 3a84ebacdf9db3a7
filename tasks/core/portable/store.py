"""A folder in a store, wherever fsspec finds one: S3, Google Cloud Storage, a local or mounted folder.

What a store raises is its own affair and may name secrets: here it becomes a StoreError of one line.
Whatever is done with a store may take long or hang, so it is done in a thread of its own, which neither
the event loop nor the process's end waits for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tasks.core.errors import SessionError, UsageError
from tasks.core.printable import reason_of
from tasks.core.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

PART = ".part"
"""Ends the hidden name of a file that is being written, where the store does not write it in one step."""

LONGEST_REASON = 300
"""Characters of a store's own words that are shown."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Schemes whose libraries the project's extras bring."""

_WITHOUT_FOLDERS = {*_EXTRAS, "abfs", "abfss", "adl", "az", "oci", "oss"}
"""Object stores: a file appears whole or not at all, and to make a folder would be to make a bucket."""

_Result = TypeVar("_Result")


class StoreError(SessionError):
    """A store that cannot be read or written."""


def check_store(url: str, output: Path) -> None:
    """Make sure that copies can go to a mirror at all; the store itself is not asked.

    Args:
        url: `output.mirror`; "" for none.
        output: The output folder.

    Raises:
        UsageError: No library can reach it, or it is the output folder itself.
    """
    if not url:
        return
    scheme = urlsplit(url).scheme
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        what = f"pip install 'vellumforge-flows[{extra}]'" if extra else reason_of(error)
        raise UsageError(
            f"output.mirror: {scheme}:// needs a library that is not installed: {what}"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"output.mirror: {scheme}:// is not known to fsspec; use s3://, gs:// or file://"
        ) from error
    if issubclass(kind, LocalFileSystem):
        place = Path(kind._strip_protocol(url))  # noqa: SLF001 - how every file system of fsspec reads a URL
        if place.resolve() == output.resolve():
            raise UsageError("output.mirror is the output folder itself; give another folder")


class Store:
    """A folder in a store. Names are relative to it, with slashes.

    Attributes:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folders = urlsplit(url).scheme not in _WITHOUT_FOLDERS
        self._opened: tuple[Any, str] | None = None

    async def put(self, name: str, content: bytes) -> None:
        """Write a file, or replace it.

        Raises:
            StoreError: It cannot be written.
        """
        await self._do("written", lambda files, path: self._place(files, f"{path}/{name}", content))

    async def put_file(self, name: str, source: Path) -> None:
        """Write a file, or replace it, with what a local one holds.

        Raises:
            StoreError: It cannot be written.
        """
        await self._do("written", lambda files, path: self._place(files, f"{path}/{name}", source))

    async def get(self, name: str, most: int) -> bytes | None:
        """What a file holds; None when there is none.

        Raises:
            StoreError: It cannot be read, or holds more than `most` bytes.
        """

        def read(files: Any, path: str) -> bytes | None:
            try:
                with files.open(f"{path}/{name}", "rb") as file:
                    content: bytes = file.read(most + 1)
            except FileNotFoundError:
                return None
            return content

        content = await self._do("read", read)
        if content is not None and len(content) > most:
            raise StoreError(f"{self.url} cannot be read: {name} holds more than {most:,} bytes")
        return content

    async def get_file(self, name: str, target: Path) -> None:
        """Copy a file to a local one.

        Raises:
            StoreError: It cannot be read.
        """
        await self._do("read", lambda files, path: files.get_file(f"{path}/{name}", str(target)))

    async def names(self, folder: str) -> list[str]:
        """The names of the files in a folder of it, in order; those of folders below are left out.

        Raises:
            StoreError: It cannot be read.
        """

        def read(files: Any, path: str) -> list[str]:
            try:
                # Not as remembered: another process may write there.
                entries = files.ls(f"{path}/{folder}", detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return [str(entry["name"]).rpartition("/")[2] for entry in entries if entry["type"] == "file"]

        return sorted(filter(None, await self._do("read", read)))

    def _place(self, files: Any, path: str, content: bytes | Path) -> None:
        """Put a file into its place, whole."""
        target = path
        if self._folders:
            folder, _, name = path.rpartition("/")
            files.makedirs(folder, exist_ok=True)
            target = f"{folder}/.{name}{PART}"
        if isinstance(content, bytes):
            files.pipe_file(target, content)
        else:
            files.put_file(str(content), target)
        if self._folders:
            files.mv(target, path)

    async def _do(self, verb: str, work: Callable[[Any, str], _Result]) -> _Result:
        """Work with the store in a thread of its own.

        Raises:
            StoreError: The work raises.
        """

        def begin() -> _Result:
            if self._opened is None:
                files, path = fsspec.url_to_fs(self.url, skip_instance_cache=True, use_listings_cache=False)
                self._opened = files, path.rstrip("/")
            return work(*self._opened)

        try:
            return await _in_thread(begin)
        except Exception as error:  # noqa: BLE001 - every store raises what it likes
            # Without its cause: a traceback would show what the line leaves out.
            raise StoreError(f"{self.url} cannot be {verb}: {_reason(error)}") from None


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Run blocking work in a daemon thread: whoever stops waiting leaves it to itself."""
    done: Future[_Result] = Future()
    # From here on, to cancel it is to leave it: the thread itself goes on.
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the work is waited for
            done.set_exception(error)

    threading.Thread(target=run, name="store", daemon=True).start()
    return await asyncio.wrap_future(done)


def _reason(error: Exception) -> str:
    """A store's own words in one line, without what nobody must see."""
    return without_secrets(reason_of(error, bare=True), os.environ)[:LONGEST_REASON]

"""A session brought back from its mirror: put together as an archive, and imported with the same distrust."""

from __future__ import annotations

import asyncio
import gzip
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import orjson
from pydantic import ValidationError

from tasks.core import files
from tasks.core.errors import SessionError, UsageError
from tasks.core.portable.archive import (
    CALLS,
    FILES,
    JOBS,
    LARGEST_LINE,
    MANIFEST,
    MILESTONES,
    MOST_INFLATION,
    REFUSED,
    SMALL,
    Manifest,
    import_session,
    is_file_name,
)
from tasks.core.portable.mirror import LARGEST_PAPER, PARTS, Memory, address, is_part, is_whole
from tasks.core.portable.store import Store
from tasks.core.session.folder import check_name
from tasks.core.session.ledger import open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

_UNREADABLE = (ValueError, TypeError, KeyError, EOFError, OSError, zlib.error)
"""What a damaged or hostile part makes its reader raise."""


async def fetch_session(mirror: str, name: str, output: Path, ledger_at: URL) -> Path | None:
    """Bring a session and its calls back from a mirror into an output folder and a ledger.

    Args:
        mirror: `output.mirror`.
        name: The session's name.
        output: The output folder, which has no session of this name.
        ledger_at: The ledger that takes the calls; what it has already stays as it is.

    Returns:
        The session's folder; None when the mirror has no such session, and nothing was made.

    Raises:
        UsageError: The name is no session's, or what the mirror holds is damaged.
        StoreError: The mirror cannot be read.
        SessionError: The folder cannot be written.
        LedgerError: The ledger cannot be opened or written.
    """
    store = Store(address(mirror, check_name(name)))
    content = await store.get(MANIFEST, LARGEST_PAPER)
    if content is None:
        return None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(store, "its manifest cannot be read") from error
    try:
        with _room_in(output) as room:
            archive = room / f"{name}.zip"
            keys = await _collect(store, manifest, archive)
            try:
                async with await open_ledger(ledger_at, output) as ledger:
                    folder = await import_session(archive, output, ledger, name)
            except UsageError as error:
                raise UsageError(str(error).replace(str(archive), f"the mirror {store.url}")) from error
    except OSError as error:
        raise SessionError(f"{output} cannot be written: {error.strerror or error}") from error
    memory = Memory(folder, store.url)
    memory.add(keys)
    memory.save()
    return folder


@contextmanager
def _room_in(output: Path) -> Iterator[Path]:
    """A folder for the pieces, in the output folder, which is made when it is not there."""
    output.mkdir(parents=True, exist_ok=True)
    with files.folder_beside(output, ".fetch-") as folder:
        yield folder


async def _collect(store: Store, manifest: Manifest, target: Path) -> set[bytes]:
    """Put what the mirror holds into an archive; returns the keys of its calls.

    Raises:
        UsageError: Something is missing or damaged.
        StoreError: The mirror cannot be read.
        OSError: The archive cannot be written.
    """
    keys: set[bytes] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        with archive.open(CALLS, "w", force_zip64=True) as calls:
            for name in filter(is_part, await store.names(PARTS)):
                part = target.with_name(name)
                await store.get_file(PARTS + name, part)
                try:
                    await asyncio.to_thread(_take_part, part, calls, keys)
                except _UNREADABLE as error:
                    raise _damaged(store, f"{PARTS}{name} cannot be read") from error
                part.unlink()
        if len(keys) < manifest.calls:
            raise _damaged(store, f"it holds {len(keys):,} calls of the {manifest.calls:,} that it names")
        for name in (MILESTONES, REFUSED, JOBS):
            content = await store.get(name, LARGEST_PAPER)
            if content is not None:
                archive.writestr(name, content)
            elif name == MILESTONES:
                raise _damaged(store, f"{name} is missing")
        for name in filter(is_file_name, await store.names(FILES)):
            copy = target.with_name(f"{name}.copy")
            await store.get_file(FILES + name, copy)
            archive.write(copy, FILES + name)
            copy.unlink()
        held = manifest.model_copy(update={"calls": len(keys)})
        archive.writestr(MANIFEST, held.model_dump_json())
    return keys


def _take_part(part: Path, calls: IO[bytes], keys: set[bytes]) -> None:
    """Add the calls of a part that are new; one that was cut off is left out, for it was written again.

    Raises:
        ValueError: It holds what is no call, or far more than text compresses to; or another error of
            `_UNREADABLE`.
    """
    if not is_whole(part):
        return
    left = MOST_INFLATION * part.stat().st_size + SMALL
    with gzip.open(part) as lines:
        while line := lines.readline(LARGEST_LINE):
            left -= len(line)
            if left < 0:
                raise ValueError("far more than text compresses to")
            key = bytes.fromhex(orjson.loads(line)["key"])
            if key not in keys:
                keys.add(key)
                calls.write(line)


def _damaged(store: Store, what: str) -> UsageError:
    return UsageError(f"the mirror {store.url} is damaged: {what}")

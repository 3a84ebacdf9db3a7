"""The mirror: a session and the calls that it uses, copied to a store while the session is written.

Copies are made at the ends of phases, every few minutes, and at the end, one at a time and in the
background. Each call is copied once. A mirror that fails warns and is tried again; whatever happens to
it, the run goes on, and ends as it would without one.

A mirror is the folder `<output.mirror>/<session>`: the session's own files under `files/`, its calls under
`calls/`, the milestones of its lists, what a server refused, its jobs when they were taken over, and the
manifest, all as in an archive of the session. The calls stand in parts that are only ever added, each named
by the hash of its content: one that was cut off, or is there twice, does no harm.

A session is brought back from there put together as an archive, and imported with the same distrust.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import os
import re
import zipfile
import zlib
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from tasks.core import files
from tasks.core.errors import SessionError, UsageError
from tasks.core.ledger.sessions import call_rows, find_session_row
from tasks.core.portable.archive import (
    CALLS,
    FILES,
    FORMAT,
    JOBS,
    KEY_BYTES,
    LARGEST_LINE,
    MANIFEST,
    MILESTONES,
    MOST_INFLATION,
    REFUSED,
    ROWS_AT_ONCE,
    SMALL,
    Manifest,
    import_session,
    is_file_name,
    line_of,
    own_files,
    pack_refused,
)
from tasks.core.portable.store import Store, StoreError
from tasks.core.session.folder import check_name
from tasks.core.session.ledger import open_ledger
from tasks.core.session.record import document_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import URL

    from tasks.core.generation.run import Run
    from tasks.core.session.record import SessionRecord
    from tasks.core.session.session import Session


PARTS = "calls/"
LARGEST_PAPER = 64 * 1024 * 1024
"""Bytes that the manifest, the milestones, the refusals or the jobs may have."""

_PART_NAME = re.compile(r"([0-9a-f]{64})\.jsonl\.gz")
_FASTEST = 1
"""Level of compression: most of a call is an answer, which is compressed already."""


def address(mirror: str, session: str) -> str:
    """Where a session's mirror is."""
    return f"{mirror.rstrip('/')}/{session}"


def pack_part(rows: Sequence[dict[str, Any]]) -> tuple[str, bytes]:
    """Calls, as the ledger's table holds them, as a part: its name and its content."""
    content = gzip.compress(b"".join(line_of(row) for row in rows), _FASTEST, mtime=0)
    return f"{PARTS}{hashlib.sha256(content).hexdigest()}.jsonl.gz", content


def is_part(name: str) -> bool:
    """Whether a file under `calls/` is a part."""
    return _PART_NAME.fullmatch(name) is not None


def is_whole(part: Path) -> bool:
    """Whether a part's content is the one that it was written with."""
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == part.name.partition(".")[0]


class Memory:
    """The keys of the calls that a mirror holds, in a small hidden file of the session's folder.

    Losing it does no harm: the calls are then copied once more.

    Attributes:
        keys: The keys, also those that are not yet in the file.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """Read what is remembered.

        Args:
            folder: The session's folder.
            url: Address of the mirror: another mirror has another memory.
        """
        self._path = folder / f".mirror-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._added: list[bytes] = []
        try:
            content = files.read(self._path)
        except OSError:
            content = b""
        # A key that was cut off at the end is none, and the next one is written over it.
        self._size = len(content) - len(content) % KEY_BYTES
        self.keys = {content[place : place + KEY_BYTES] for place in range(0, self._size, KEY_BYTES)}

    def add(self, keys: Iterable[bytes]) -> None:
        """Remember keys; `save` makes it last."""
        new = [key for key in keys if key not in self.keys]
        self.keys.update(new)
        self._added += new

    def forget(self) -> None:
        """The mirror does not hold what it held."""
        self.keys.clear()
        self._added.clear()
        self._size = 0

    def save(self) -> None:
        """Write down what was added, once the mirror says itself that it holds it."""
        content = b"".join(self._added)
        with suppress(OSError):
            how = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, how, files.SHARED)
            try:
                os.ftruncate(descriptor, self._size)
                os.pwrite(descriptor, content, self._size)
            finally:
                os.close(descriptor)
            self._size += len(content)
            self._added.clear()


log = logging.getLogger("vellumforge.mirror")

LAST_SECONDS = 120.0
"""How long the last copy may take."""

STOPPED_SECONDS = 5.0
"""How long it may take after a signal: a Prefect worker kills 30 s after its own, and 20 s are given to the
calls in flight."""

SMALL_FILE = 1024 * 1024
GROWTH = 1.25
"""A larger file that grows is copied anew, between phases, only when it is so many times as large as at its
last copy: all its copies together are then no more than five times the file."""


@asynccontextmanager
async def mirrored(run: Run, session: Session) -> AsyncIterator[Callable[[], None]]:
    """Mirror a session while the block runs, if there is a mirror, with a last copy on leaving.

    Args:
        run: The run that writes the session; from here on, the mirror is told what it uses.
        session: The session.

    Yields:
        What asks for a copy now: to be called at the end of a phase.
    """
    if not run.config.output.mirror:
        yield _no_copy
        return
    mirror = Mirror(run, session)
    run.client.used = mirror.note
    try:
        yield mirror.copy_soon
    finally:
        stopped = run.stop.requested
        # A session that is complete is taken as it stands in the mirror; any other dataset is made anew.
        whole = not stopped or session.record.complete
        await mirror.close(STOPPED_SECONDS if stopped else LAST_SECONDS, whole=whole)


class Mirror:
    """The mirror of one session; made and closed by `mirrored`.

    Attributes:
        url: Where it is.
    """

    def __init__(self, run: Run, session: Session) -> None:
        self.url = address(run.config.output.mirror, session.name)
        self._run = run
        self._session = session
        self._store = Store(self.url)
        self._memory = Memory(session.folder, self.url)
        self._waiting: set[bytes] = set()
        """Keys of calls that are used and not mirrored yet; some may have no answer, and never get one."""
        self._papers: dict[str, bytes] = {}
        """Hashes of the small documents as the mirror has them, by name."""
        self._files: dict[str, tuple[int, int]] = {}
        """Time and size of the session's files as the mirror has them, by name."""
        self._compared = False
        self._behind = False
        self._wanted = asyncio.Event()
        self._whole = False
        self._copying = asyncio.Lock()
        self._copier = asyncio.create_task(self._copy_now_and_then())

    def note(self, key: bytes) -> None:
        """Note a call that the session uses."""
        if key not in self._memory.keys:
            self._waiting.add(key)

    def copy_soon(self) -> None:
        """Ask for a copy now, of everything: a phase has ended."""
        self._whole = True
        self._wanted.set()

    async def close(self, seconds: float, *, whole: bool) -> None:
        """Make the last copy, as far as it can be made in time, and say so when something is missing.

        Args:
            seconds: How long it may take.
            whole: Whether large files that grew a little are copied too.
        """
        reason = f"it took more than {seconds:g} s"
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    reason = await self._copy(whole=whole)
        finally:
            self._copier.cancel()
            await asyncio.gather(self._copier, return_exceptions=True)
        if reason:
            log.warning(
                "the mirror is behind the session: %s; `checkpoint export` makes a copy of all", reason
            )
        elif self._behind:
            self._say_whole()

    async def _copy_now_and_then(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._run.config.output.mirror_minutes * 60):
                    await self._wanted.wait()
            self._wanted.clear()
            whole, self._whole = self._whole, False
            reason = await self._copy(whole=whole)
            if reason and not self._behind:
                log.warning("the mirror fails: %s; the run goes on, and the next copy tries again", reason)
            elif self._behind and not reason:
                self._say_whole()
            self._behind = bool(reason)

    def _say_whole(self) -> None:
        log.warning("the mirror works again: %s has everything", self.url)

    async def _copy(self, *, whole: bool) -> str:
        """Copy what is new; returns what is wrong, "" when nothing is."""
        async with self._copying:
            # Taken first: it must not call a session complete whose files are those from before.
            record = self._session.record
            try:
                await self._compare()
                await self._copy_calls()
                await self._copy_papers()
                # The largest last: where time is short, the others are there.
                for path in sorted(own_files(self._session.folder), key=lambda path: path.stat().st_size):
                    await self._copy_file(path, whole=whole)
                await self._copy_manifest(record)
            except Exception as error:  # noqa: BLE001 - whatever it is, a copy must not end the run
                return str(error) or type(error).__name__
        self._memory.save()
        return ""

    async def _compare(self) -> None:
        """Before the first copy: make sure that the mirror is this session's, and holds what is remembered.

        Raises:
            StoreError: It is another session's.
        """
        if self._compared:
            return
        content = await self._store.get(MANIFEST, LARGEST_PAPER)
        try:
            manifest = None if content is None else Manifest.model_validate_json(content)
        except ValueError:
            manifest = None  # It is written anew.
        if manifest is not None and manifest.record.get("id") != self._session.record.id:
            raise StoreError(f"{self.url} holds another session of this name")
        if manifest is None or manifest.calls < len(self._memory.keys):
            self._waiting |= self._memory.keys
            self._memory.forget()
        self._compared = True

    async def _copy_calls(self) -> None:
        keys = sorted(self._waiting)
        for start in range(0, len(keys), ROWS_AT_ONCE):
            rows = await call_rows(self._run.ledger, keys[start : start + ROWS_AT_ONCE])
            if rows:
                await self._store.put(*await asyncio.to_thread(pack_part, rows))
            found = {bytes(row["key"]) for row in rows}
            self._memory.add(found)
            self._waiting -= found

    async def _copy_papers(self) -> None:
        """Copy the milestones of the session's lists, what was refused, and its jobs if it took them over."""
        ledger = self._run.ledger
        lists = sorted(self._run.lists)
        reached = {question.hex(): await ledger.reached(question) for question in lists}
        await self._put(MILESTONES, orjson.dumps(reached))
        # Also where there is nothing: what the mirror has from before may not hold any more.
        await self._put(REFUSED, await pack_refused(ledger, self._session.record.id) or b"{}")
        row = await find_session_row(ledger, self._session.record.id)
        if row is not None and row.jobs is not None:
            await self._put(JOBS, row.jobs)

    async def _copy_manifest(self, record: SessionRecord) -> None:
        name, calls = self._session.name, len(self._memory.keys)
        manifest = Manifest(format=FORMAT, session=name, calls=calls, record=document_of(record))
        await self._put(MANIFEST, manifest.model_dump_json().encode())

    async def _put(self, name: str, content: bytes) -> None:
        """Write a small document, when it is not what the mirror has."""
        digest = hashlib.sha256(content).digest()
        if self._papers.get(name) != digest:
            await self._store.put(name, content)
            self._papers[name] = digest

    async def _copy_file(self, path: Path, *, whole: bool) -> None:
        """Copy a file of the session, when it is worth it."""
        now = _state(path)
        before = self._files.get(path.name)
        if before == now:
            return
        grown_a_little = before is not None and SMALL_FILE < now[1] < GROWTH * before[1]
        if whole or not grown_a_little:
            await self._store.put_file(FILES + path.name, path)
            self._files[path.name] = now


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _no_copy() -> None:
    """There is no mirror."""


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

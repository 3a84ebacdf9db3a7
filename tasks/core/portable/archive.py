"""A session with its calls in one file: exported here, imported and resumed elsewhere without paying again.

The file is a compressed ZIP: `manifest.json`, the session folder's own files under `files/`, the calls as
JSON lines, the milestones of its lists, the questions that a server refused, if any, and the jobs when they
were taken over. Nothing else is accepted on import: it is read with distrust, may be damaged or made to do
harm, and whatever is wrong with it is a UsageError in one line.
"""

from __future__ import annotations

import base64
import itertools
import re
import shutil
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.core import files
from tasks.core.errors import SessionError, UsageError
from tasks.core.ledger.failures import put_refusal_rows, refusal_rows
from tasks.core.ledger.schema import unpack
from tasks.core.ledger.sessions import call_rows, find_session_row, put_call_rows
from tasks.core.models import Phase, Purpose
from tasks.core.printable import reason_of
from tasks.core.session.adoption import unpack_jobs
from tasks.core.session.folder import check_name
from tasks.core.session.record import (
    SESSION_RECORD,
    SessionRecord,
    document_of,
    record_session,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tasks.core.ledger.ledger import Ledger
    from tasks.core.session.record import SessionRecord


FORMAT = 2
"""2 added `cached_tokens` and `estimated_tokens` to the calls."""

FORMATS = frozenset({1, FORMAT})
"""What can be read."""

MANIFEST = "manifest.json"
CALLS = "calls.jsonl"
MILESTONES = "milestones.json"
JOBS = "jobs.json"
REFUSED = "refused.json"
"""Not there where nothing was refused, nor in archives of before."""

FILES = "files/"
ROWS_AT_ONCE = 500
LARGEST_LINE = 256 * 1024 * 1024
"""Bytes of one call, and of its answer unpacked; the chat client takes no larger answer."""

MOST_INFLATION = 200
"""How many times larger than the archive its contents may be; text is compressed about four times."""

SMALL = 64 * 1024 * 1024
"""Bytes that any archive may hold, a packed list of jobs unpacked, and a list of what was refused."""

KEY_BYTES = 32
SHOWN = 60
"""Characters of a strange name that are shown."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INFLATED_AT_ONCE = 1024 * 1024
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OSError)
"""What a damaged or hostile ZIP makes its reader raise; RuntimeError when it is encrypted."""

_MILESTONES = TypeAdapter(
    dict[str, list[Annotated[int, Field(ge=1, lt=2**31)]]], config=ConfigDict(strict=True)
)
Word = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that every database takes."""


class Call(BaseModel):
    """A call in an archive: a row of the ledger, its bytes as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: str
    purpose: Purpose
    model: Word
    session: Word = Field(max_length=64)
    answer: str
    prompt_tokens: int | None = Field(ge=0, lt=2**63)
    completion_tokens: int | None = Field(ge=0, lt=2**63)
    finished: float = Field(allow_inf_nan=False)
    cached_tokens: int | None = Field(None, ge=0, lt=2**63)
    estimated_tokens: int | None = Field(None, ge=0, lt=2**63)


class Manifest(BaseModel):
    """What an archive says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int
    session: str
    calls: int = Field(ge=0)
    record: dict[str, Any]


@contextmanager
def opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, open for reading, and every entry's name, kind and size found harmless.

    Raises:
        UsageError: There is no such file, it is no ZIP file, or holds what an export does not.
    """
    with damage_of(source):
        file = files.opened(source)
    with file:
        with damage_of(source):
            archive = zipfile.ZipFile(file)
        with archive:
            _check_entries(source, archive)
            yield archive


@contextmanager
def damage_of(source: Path) -> Iterator[None]:
    """While the block reads an archive: what damage makes it raise is raised as a UsageError."""
    try:
        yield
    except _UNREADABLE as error:
        reason = reason_of(error, bare=True)
        raise UsageError(f"{source} is no archive of a session, or is damaged: {reason}") from error


def is_file(name: str) -> bool:
    """Whether an entry of this name is a file of the session's folder."""
    return name.startswith(FILES) and is_file_name(name.removeprefix(FILES))


def is_file_name(name: str) -> bool:
    """Whether a file of this name goes along: nothing hidden, such as the lock, and no path."""
    return _FILE_NAME.fullmatch(name) is not None


def read_manifest(source: Path, archive: zipfile.ZipFile) -> tuple[Manifest, SessionRecord]:
    """The manifest, and the session's record in it.

    Raises:
        UsageError: It cannot be read, or another version wrote it; or its session is none that is exported.
    """
    try:
        manifest = Manifest.model_validate_json(archive.read(MANIFEST))
        # By way of JSON, which has no infinite numbers, and as which the record is kept.
        record = SESSION_RECORD.validate_json(orjson.dumps(manifest.record))
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{source} is damaged: its manifest cannot be read") from error
    if manifest.format not in FORMATS:
        raise UsageError(f"{source} has format {manifest.format}; this version reads formats up to {FORMAT}")
    if record.transform:
        raise UsageError(f"{source} is none that an export wrote: its session is that of a transform")
    if not _ID.fullmatch(record.id):
        raise UsageError(f"{source} is damaged: {record.id[:SHOWN]!r} is no session's id")
    return manifest, record


def read_jobs(archive: zipfile.ZipFile) -> bytes | None:
    """The jobs as the ledger holds them, when they were taken over.

    Raises:
        UsageError: They cannot be read.
    """
    if JOBS not in archive.namelist():
        return None
    jobs = archive.read(JOBS)
    try:
        _check_inflation(jobs, SMALL)
        unpack_jobs(jobs)
    except (SessionError, ValueError, zlib.error) as error:
        raise UsageError("the archive is damaged: its jobs cannot be read") from error
    return jobs


def read_milestones(archive: zipfile.ZipFile) -> dict[bytes, list[int]]:
    """The counts that its lists were grown to, by question.

    Raises:
        UsageError: They cannot be read.
    """
    try:
        reached = _MILESTONES.validate_json(archive.read(MILESTONES))
    except ValidationError as error:
        raise UsageError("the archive is damaged: its milestones cannot be read") from error
    return {_key(question): counts for question, counts in reached.items()}


def read_calls(archive: zipfile.ZipFile) -> Iterator[list[dict[str, Any]]]:
    """The calls as the ledger's table holds them, some at a time.

    Raises:
        UsageError: One cannot be read.
    """
    with archive.open(CALLS) as lines:
        while rows := [_row_of(line) for line in itertools.islice(_lines(lines), ROWS_AT_ONCE)]:
            yield rows


def check_contents(archive: zipfile.ZipFile, manifest: Manifest) -> None:
    """Read all that is going to be taken.

    Raises:
        UsageError: A call cannot be read, or some are missing.
        BadZipFile: An entry is damaged.
    """
    if (damaged := archive.testzip()) is not None:
        raise zipfile.BadZipFile(f"{damaged!r} cannot be read")
    held = sum(len(rows) for rows in read_calls(archive))
    if held != manifest.calls:
        raise UsageError(
            f"the archive holds {held:,} calls of the {manifest.calls:,} that it names: it is damaged"
        )


def _check_entries(source: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    # As they stand in the archive: the reader itself cuts a name off at a NUL.
    names = [entry.orig_filename for entry in entries]
    strange = [entry.orig_filename for entry in entries if not _is_ours(entry)]
    # One wrong byte makes of the entries that follow another one its comment, and they would be missing.
    odd = len(set(names)) != len(names) or any(entry.comment for entry in entries)
    if strange or odd or not {MANIFEST, CALLS, MILESTONES} <= set(names):
        named = f"it holds {strange[0][:SHOWN]!r}" if strange else "its contents are not those of an export"
        raise UsageError(f"{source} is no archive of a session: {named}; nothing was taken from it")
    size = sum(entry.file_size for entry in entries)
    if size > MOST_INFLATION * source.stat().st_size + SMALL:
        raise UsageError(f"{source} claims to hold {size:,} bytes, far more than text compresses to; refused")


def _is_ours(entry: zipfile.ZipInfo) -> bool:
    """Whether an export makes such an entry: a plain file under a known name."""
    name = entry.orig_filename
    known = name in {MANIFEST, CALLS, MILESTONES, JOBS, REFUSED} or is_file(name)
    linked = stat.S_ISLNK(entry.external_attr >> 16)
    return known and not linked and entry.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(LARGEST_LINE):
        yield line


def _row_of(line: bytes) -> dict[str, Any]:
    """A call as the ledger's table holds it; its answer must be readable, and its key a key."""
    try:
        call = Call.model_validate_json(line)
        answer = base64.b64decode(call.answer, validate=True)
        _check_inflation(answer, LARGEST_LINE)
        unpack(answer)
    except (ValueError, zlib.error) as error:
        raise UsageError("the archive is damaged: a call cannot be read") from error
    return call.model_dump() | {"key": _key(call.key), "answer": answer}


def _check_inflation(packed: bytes, largest: int) -> None:
    """Refuse bytes that would inflate to more than `largest`.

    Raises:
        ValueError: They would.
        zlib.error: They are damaged.
    """
    if packed.startswith(b"{"):
        return  # Plain, not compressed.
    inflating = zlib.decompressobj()
    left, size = packed, 0
    while left and size <= largest:
        size += len(inflating.decompress(left, _INFLATED_AT_ONCE))
        left = inflating.unconsumed_tail
    if size > largest:
        raise ValueError("far more than it may hold")


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError("the archive is damaged: a key is none")
    return key


async def export_session(
    target: Path,
    folder: Path,
    record: SessionRecord,
    ledger: Ledger,
    *,
    keys: Sequence[bytes],
    questions: Sequence[bytes],
    jobs: bytes | None,
) -> int:
    """Write a session and its calls into one file; replaced in one step, so never half written.

    Args:
        target: The archive.
        folder: The session's folder.
        record: Its record.
        ledger: The ledger that holds its calls.
        keys: Keys of the calls that it uses.
        questions: Its lists' questions, whose milestones go along.
        jobs: Its jobs as the ledger holds them, when they were taken over.

    Returns:
        The number of calls in the archive.

    Raises:
        SessionError: The file cannot be written, or the folder not read.
        LedgerError: The ledger cannot be read.
    """
    try:
        with (
            files.replaced(target) as file,
            # A file from before 1980 is no reason to fail: its time is not kept.
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
        ):
            calls = 0
            with archive.open(CALLS, "w", force_zip64=True) as lines:
                for start in range(0, len(keys), ROWS_AT_ONCE):
                    rows = await call_rows(ledger, keys[start : start + ROWS_AT_ONCE])
                    calls += len(rows)
                    lines.write(b"".join(line_of(row) for row in rows))
            reached = {question.hex(): await ledger.reached(question) for question in questions}
            archive.writestr(MILESTONES, orjson.dumps(reached))
            refused = await pack_refused(ledger, record.id)
            if refused is not None:
                archive.writestr(REFUSED, refused)
            if jobs is not None:
                archive.writestr(JOBS, jobs)
            for path in own_files(folder):
                archive.write(path, FILES + path.name)
            manifest = Manifest(format=FORMAT, session=folder.name, calls=calls, record=document_of(record))
            archive.writestr(MANIFEST, manifest.model_dump_json())
    except OSError as error:
        raise SessionError(f"{target} cannot be written: {error.strerror or error}") from error
    return calls


async def import_session(source: Path, output: Path, ledger: Ledger, name: str | None = None) -> Path:
    """Bring a session and its calls from an archive into an output folder and a ledger.

    In both it is marked as one from elsewhere. All of the archive is read before anything is kept, so that
    nothing is taken from one that is damaged. Then the calls come first and the folder last, in one step: an
    import that was cut off is simply done again.

    Args:
        source: The archive.
        output: The output folder.
        ledger: The ledger that takes the calls; what it has already stays as it is.
        name: The session's name here; None for the name that it had.

    Returns:
        The session's folder.

    Raises:
        UsageError: The file is no archive of a session, is damaged, or the name is taken.
        SessionError: The folder cannot be written.
        LedgerError: The ledger cannot be written.
    """
    with opened(source) as archive:
        with damage_of(source):
            manifest, record = read_manifest(source, archive)
            target = output / check_name(name or manifest.session)
            if target.exists():
                raise UsageError(f"there is a session {target.name} in {output} already; give another --name")
            jobs = read_jobs(archive)
            milestones = read_milestones(archive)
            refused = read_refused(archive)
            check_contents(archive, manifest)
        try:
            # Before the calls: whoever prunes the ledger sees that they are about to be used.
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.folder_beside(target.parent, ".import-") as temporary:
                for rows in read_calls(archive):
                    await put_call_rows(ledger, rows)
                for question, reached in milestones.items():
                    for count in reached:
                        await ledger.add_reached(question, count)
                await put_refusal_rows(ledger, record.id, refused)
                # Of a Prefect elsewhere, which must not find this copy when it runs again.
                record = replace(record, ledger=ledger.id, flow_run="", from_elsewhere=True)
                if await find_session_row(ledger, record.id) is None:
                    await record_session(ledger, target.name, record, jobs)
                _take_files(archive, temporary / target.name, record)
                (temporary / target.name).rename(target)
        except OSError as error:
            raise SessionError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def own_files(folder: Path) -> list[Path]:
    """The session's files that go along: no links, and nothing hidden, such as the lock."""
    found = (path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if is_file_name(path.name))


def line_of(row: dict[str, Any]) -> bytes:
    """A call, as the ledger's table holds it, as a line of JSON."""
    answer = base64.b64encode(row["answer"]).decode()
    document = row | {"key": row["key"].hex(), "answer": answer}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _take_files(archive: zipfile.ZipFile, folder: Path, record: SessionRecord) -> None:
    """Make the session's folder, which nobody sees yet."""
    folder.mkdir()
    for name in archive.namelist():
        if is_file(name):
            with archive.open(name) as source, (folder / name.removeprefix(FILES)).open("xb") as copy:
                shutil.copyfileobj(source, copy)
    write_record(folder, record)


LONGEST = 500
"""Characters of a server's words, and of what was asked for, that go along: a server may say back all."""


class Refusal(BaseModel):
    """A refusal in an archive: a row of the ledger's failures, under the key of its request."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    phase: Phase
    item: Word = Field(max_length=LONGEST)
    purpose: Purpose
    cause: Word = Field(max_length=64)
    message: Word = Field(max_length=LONGEST)
    status: int = Field(ge=100, lt=600)
    attempts: int = Field(ge=1, lt=2**31)
    at: float = Field(allow_inf_nan=False)


_REFUSALS = TypeAdapter(
    dict[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], Refusal], config=ConfigDict(strict=True)
)


async def pack_refused(ledger: Ledger, session: str) -> bytes | None:
    """What was refused in the session with this id, as a document; None when nothing was.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    refused = {}
    for row in await refusal_rows(ledger, session):
        request = row.pop("request")
        refused[request] = row | {name: row[name][:LONGEST] for name in ("item", "message")}
    return orjson.dumps(refused) if refused else None


def read_refused(archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    """What was refused in an archive's session, as `put_refusal_rows` takes it.

    Raises:
        UsageError: It cannot be read.
    """
    if REFUSED not in archive.namelist():
        return []
    try:
        # What is too large is not read, and nothing is no document.
        small = archive.getinfo(REFUSED).file_size <= SMALL
        refused = _REFUSALS.validate_json(archive.read(REFUSED) if small else b"")
    except ValidationError as error:
        raise UsageError("the archive is damaged: its refused questions cannot be read") from error
    return [refusal.model_dump() | {"request": request} for request, refusal in refused.items()]

"""What an archive of a session holds, read with distrust: it may be damaged, or made to do harm.

Whatever is wrong with one is a UsageError in one line. Nothing is written here.
"""

from __future__ import annotations

import base64
import itertools
import re
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.core.errors import SessionError, UsageError
from tasks.core.llm.ledger_schema import unpack
from tasks.core.models import Purpose
from tasks.core.session.adoption import unpack_jobs
from tasks.core.session.record import SESSION_RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        archive = zipfile.ZipFile(source)
    with archive:
        _check_entries(source, archive)
        yield archive


@contextmanager
def damage_of(source: Path) -> Iterator[None]:
    """While the block reads an archive: what damage makes it raise is raised as a UsageError."""
    try:
        yield
    except _UNREADABLE as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        shown = " ".join(words.split()) or type(error).__name__
        raise UsageError(f"{source} is no archive of a session, or is damaged: {shown}") from error


def is_file(name: str) -> bool:
    """Whether an entry of this name is a file of the session's folder."""
    return name.startswith(FILES) and is_file_name(name.removeprefix(FILES))


def is_file_name(name: str) -> bool:
    """Whether a file of this name goes along: nothing hidden, such as the lock, and no path."""
    return _FILE_NAME.fullmatch(name) is not None


def read_manifest(source: Path, archive: zipfile.ZipFile) -> tuple[Manifest, SessionRecord]:
    """The manifest, and the session's record in it.

    Raises:
        UsageError: It cannot be read, or another version wrote it.
    """
    try:
        manifest = Manifest.model_validate_json(archive.read(MANIFEST))
        # By way of JSON, which has no infinite numbers, and as which the record is kept.
        record = SESSION_RECORD.validate_json(orjson.dumps(manifest.record))
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{source} is damaged: its manifest cannot be read") from error
    if manifest.format not in FORMATS:
        raise UsageError(f"{source} has format {manifest.format}; this version reads formats up to {FORMAT}")
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

"""A file of the user's own prompts: what each line asks, and what is wrong with those that ask nothing."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import orjson
from pydantic_core import from_json

from tasks.core import files
from tasks.core.errors import UsageError
from tasks.core.models import GivenJob
from tasks.core.printable import printable_line, reason_of
from tasks.core.rows.formats import text_of
from tasks.core.rows.samples import LONGEST_LINE, BadLine, bounded_lines, refused
from tasks.core.rows.transformed import NoRowError, read_turns
from tasks.core.sameness import Sieve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.core.config.settings import Input

PROMPT, MESSAGES = "prompt", "messages"
"""The column of prompts where none is named, and the one that is taken where that is not there."""
GZIPPED: Final = ".gz"
LARGEST_DOCUMENT: Final = 1 << 30
"""Bytes of a `.json`, which is read as a whole."""
MOST_SHOWN: Final = 100
"""Bad lines that are named."""
LONGEST_NAMES: Final = 300
"""Characters of the names of a file's columns, where they are shown."""
AT_ONCE: Final = 100
"""Prompts that are compared with the others at once."""
ABOVE: Final = 10
"""Levels that kept values may have above them, where they are kept."""
BATCH: Final = 32
"""Rows of Parquet that are unpacked at a time."""

Entry = tuple[int, object]
"""The number of a line or row, from 1, with what stands there; a `NoRowError` where that cannot be read."""


@dataclass(slots=True)
class GivenPrompts:
    """What stands in a file of prompts.

    Attributes:
        jobs: Its prompts, in the order of the file; their ids are the numbers of their lines.
        digest: SHA-256 of the file in hex.
        dropped: Prompts that were left out, as `duplicate` or `near_duplicate`.
        skipped: What was left out of lines that are no prompts, in words; "" where there are none.
    """

    jobs: list[GivenJob] = field(default_factory=list)
    digest: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    skipped: str = ""


def read_prompts(wanted: Input, topic: str, *, threshold: float | None = None) -> GivenPrompts:
    """The prompts of a file: a line or a row each.

    Args:
        wanted: Which file, and what of it.
        topic: The topic that its prompts count under.
        threshold: Likeness from which the later of two prompts is left out; None for equal ones alone.

    Raises:
        UsageError: The file cannot be read, is not the one that is wanted, has lines that are no prompts, or
            no prompt at all.
    """
    path = Path(wanted.prompts)
    found, bad, seen = GivenPrompts(), list[BadLine](), set[str]()
    read = _reader(path)
    try:
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(files.opened(path))
            found.digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it can be read
            file.seek(0)
            if wanted.sha256 and wanted.sha256 != found.digest:
                raise UsageError(
                    f"{path} is not the file whose SHA-256 input.sha256 names: its own is {found.digest}"
                )
            if path.suffix.lower() == GZIPPED:
                file = cast("IO[bytes]", stack.enter_context(gzip.open(file)))
                if read is _parquet:
                    # Its end is read first, and what is packed is read from the beginning.
                    whole = stack.enter_context(tempfile.TemporaryFile())
                    shutil.copyfileobj(file, whole)
                    file = whole
            jobs = _jobs(read(file, wanted), wanted, topic, bad, seen)
            found.jobs, found.dropped = _new(jobs, threshold)
    except OSError as error:
        # What gzip says of a damaged file has no number of the system's.
        raise UsageError(f"{path} cannot be read: {error.strerror or reason_of(error, 200)}") from error
    except (EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: its end is missing, or it is damaged") from error
    except _UnreadableError as error:
        raise UsageError(f"{path} {error}") from error
    found.skipped = _left_out(path, bad, skips=wanted.skip_bad)
    for name in filter(None, (wanted.system_column, *wanted.keep_columns)):
        if name not in seen:
            there = printable_line(", ".join(sorted(seen)), LONGEST_NAMES) or "none"
            raise UsageError(f"{path} has no column {name!r} in any row; it has {there}")
    if not found.jobs:
        raise UsageError(f"{path} holds no prompts")
    return found


def _left_out(path: Path, bad: Sequence[BadLine], *, skips: bool) -> str:
    """What is left out, in words.

    Raises:
        UsageError: Lines are no prompts, and none is to be left out.
    """
    if bad and not skips:
        raise refused(path, bad[:MOST_SHOWN], len(bad))
    first = f"{path}:{bad[0].line}: {bad[0].reason}" if bad else ""
    return f"{len(bad):,} lines are no prompts and are left out; the first is {first}" if bad else ""


class _UnreadableError(ValueError):
    """A file that is not of its kind; `str()` says what is wrong with it, after its name."""


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with files.opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it can be read
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or reason_of(error, 200)}") from error


def _reader(path: Path) -> _Reader:
    """How a file is read, by the end of its name."""
    name = path.name.lower().removesuffix(GZIPPED)
    kind = Path(name).suffix
    if kind not in _READERS:
        kinds = ", ".join(_READERS)
        raise UsageError(f"{path} is of no kind that holds prompts: {kinds}, each also with {GZIPPED}")
    return _READERS[kind]


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | NoRowError]]:
    for number, line in enumerate(bounded_lines(file), 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        too_long = len(line) == LONGEST_LINE
        yield number, NoRowError(f"it is longer than {LONGEST_LINE // 1024**2} MB") if too_long else text


def _each(
    file: IO[bytes], read: Callable[[bytes], object], wrong: Callable[[ValueError], str]
) -> Iterator[Entry]:
    """What stands in each line, as `read` reads it; `wrong` says why it cannot."""
    for number, line in _lines(file):
        try:
            yield number, line if isinstance(line, NoRowError) else read(line)
        except ValueError as error:
            yield number, NoRowError(wrong(error))


def _text(file: IO[bytes], _wanted: Input) -> Iterator[Entry]:
    return _each(file, lambda line: line.decode().rstrip("\r\n"), lambda _: "it is not UTF-8 text")


def _json_lines(file: IO[bytes], _wanted: Input) -> Iterator[Entry]:
    # Unlike others it keeps whole numbers of any size as they are.
    return _each(file, partial(from_json, allow_inf_nan=False), lambda error: f"it is no JSON ({error})")


def _json(file: IO[bytes], _wanted: Input) -> Iterator[Entry]:
    content = file.read(LARGEST_DOCUMENT + 1)
    if len(content) > LARGEST_DOCUMENT:
        raise _UnreadableError(f"is larger than {LARGEST_DOCUMENT >> 30} GB; give JSON lines (.jsonl)")
    try:
        found = from_json(content.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
    except ValueError as error:
        raise _UnreadableError(f"is no JSON: {error}") from error
    if not isinstance(found, list):
        raise _UnreadableError("is no JSON array of prompts or rows")
    yield from enumerate(found, 1)


def _csv(file: IO[bytes], _wanted: Input) -> Iterator[Entry]:
    csv.field_size_limit(LONGEST_LINE)
    # Not closed with it: whoever opened the file closes it.
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    rows, begins = csv.reader(text, strict=True), 1
    columns: list[str] | None = None
    try:
        for row in rows:
            number, begins = begins, rows.line_num + 1
            if not row:
                continue
            if columns is None:
                columns = row
                _check_once(columns)
            elif len(row) != len(columns):
                yield number, NoRowError(f"it has {len(row)} fields, and the first line names {len(columns)}")
            else:
                yield number, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise _UnreadableError(f"cannot be read as CSV from line {begins} on: {error}") from error
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"is not UTF-8 text from line {begins} on") from error
    finally:
        text.detach()


def _parquet(file: IO[bytes], wanted: Input) -> Iterator[Entry]:
    # Imported here: it takes a quarter of a second, and most files are text.
    import pyarrow.parquet  # noqa: PLC0415

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:
            names = list(table.schema_arrow.names)
            # What nobody asked for may hold what cannot be read.
            read = [wanted.prompt_column, wanted.system_column, *wanted.keep_columns]
            read += [MESSAGES] if wanted.prompt_column == PROMPT else []
            columns = [name for name in names if name in read]
            _check_columns(columns, names, wanted.prompt_column)
            for batch in table.iter_batches(batch_size=BATCH, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except _UnreadableError:
        raise
    # Times that no calendar has, in zones that nobody knows: each is another error.
    except (pyarrow.ArrowException, ArithmeticError, LookupError, ValueError) as error:
        reason = reason_of(error, 200)
        raise _UnreadableError(f"cannot be read as Parquet after row {number}: {reason}") from error


def _check_columns(columns: Sequence[str], names: Sequence[str], prompt: str) -> None:
    """Refuse a table without prompts, or with two columns of one name.

    Raises:
        _UnreadableError: It is one.
    """
    _check_once(columns)
    if prompt not in columns and MESSAGES not in columns:
        raise _UnreadableError(
            f"has no column {prompt!r}; it has {printable_line(', '.join(names), LONGEST_NAMES)}"
        )


def _check_once(columns: Sequence[str]) -> None:
    """Refuse columns of which two have one name.

    Raises:
        _UnreadableError: Two have.
    """
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise _UnreadableError(f"names the column {twice[0]!r} twice")


_Reader = Callable[[IO[bytes], "Input"], Iterator[Entry]]
_READERS: Final[dict[str, _Reader]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _jobs(
    entries: Iterable[Entry], wanted: Input, topic: str, bad: list[BadLine], seen: set[str]
) -> Iterator[GivenJob]:
    """The prompts of a file in their order; what is none is added to `bad`, and columns' names to `seen`."""
    for number, entry in entries:
        if isinstance(entry, dict):
            seen.update(map(str, entry))
        try:
            yield _job(number, entry, wanted, topic)
        except NoRowError as reason:
            bad.append(BadLine(number, str(reason)))


def _job(number: int, entry: object, wanted: Input, topic: str) -> GivenJob:
    """The prompt of a line or row.

    Raises:
        NoRowError: It holds none.
    """
    if isinstance(entry, NoRowError):
        raise entry
    row = {wanted.prompt_column: entry} if isinstance(entry, str) else entry
    if not isinstance(row, dict):
        raise NoRowError("it is neither a text nor an object with columns")
    asked = row.get(wanted.prompt_column)
    if asked is None and wanted.prompt_column == PROMPT:
        asked = row.get(MESSAGES)
    if asked is None:
        columns = printable_line(", ".join(map(str, row)), LONGEST_NAMES) or "none"
        raise NoRowError(f"it has no column {wanted.prompt_column!r}; it has {columns}")
    system, history, prompt = _conversation(asked, wanted.prompt_column)
    if wanted.system_column:
        given = row.get(wanted.system_column)
        if given is not None and not isinstance(given, str):
            raise NoRowError(f"{wanted.system_column} is no text")
        system = given or system
    if not prompt.strip():
        raise NoRowError("its prompt is blank")
    kept = {name: _plain(row.get(name), name) for name in wanted.keep_columns}
    return GivenJob(number, topic, "", prompt, system=system, history=history, kept=kept)


def _conversation(asked: object, name: str) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """System prompt, what was said before, and the last turn, of a text or a list of messages."""
    if isinstance(asked, str):
        return "", (), asked
    turns = [(role, text.content) for role, text in read_turns(asked, name)]
    system = ""
    if turns[:1] and turns[0][0] == "system":
        system, turns = turns[0][1], turns[1:]
    for role, _ in turns:
        if role not in {"user", "assistant"}:
            raise NoRowError(f"{name} holds a message of {role!r}, where user and assistant speak")
    if not turns or turns[-1][0] != "user":
        raise NoRowError(f"{name} does not end with a turn of the user")
    return system, tuple(turns[:-1]), turns[-1][1]


def _plain(value: object, name: str) -> Any:
    """A value as it is kept, and read again, which one that is nested too deeply would not be.

    Raises:
        NoRowError: JSON cannot hold it.
    """
    wrapped = value
    for _ in range(ABOVE):
        wrapped = [wrapped]
    try:
        found = from_json(orjson.dumps(wrapped, default=_as_text))
    except (TypeError, ValueError) as error:
        raise NoRowError(f"{name} cannot be kept as JSON: 64 bits and 190 levels at most") from error
    for _ in range(ABOVE):
        found = found[0]
    return found


def _as_text(value: object) -> str:
    """Times of more digits than usual, which have a type of their own."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError


def _new(jobs: Iterator[GivenJob], threshold: float | None) -> tuple[list[GivenJob], dict[str, int]]:
    """The prompts of which none came before, and how many are left out."""
    sieve = None if threshold is None else Sieve(threshold)
    seen: set[bytes] = set()
    found: list[GivenJob] = []
    equal = 0
    while some := list(islice(jobs, AT_ONCE)):
        fresh = []
        for job in some:
            mark = hashlib.blake2b(
                orjson.dumps([job.system, job.history, job.prompt]), digest_size=16
            ).digest()
            equal += mark in seen
            if mark not in seen:
                fresh.append(job)
                seen.add(mark)
        if sieve is not None:
            texts = [text_of(job) for job in fresh]
            kept = iter([*sieve.fresh(texts), None])
            following = next(kept)
            unlike = []
            for job, text in zip(fresh, texts, strict=True):
                if text == following:
                    unlike.append(job)
                    following = next(kept)
            fresh = unlike
        found += fresh
    dropped = dict(sieve.dropped) if sieve else {}
    if equal:
        dropped["duplicate"] = dropped.get("duplicate", 0) + equal
    return found, dropped

"""A session with its calls in one file: exported here, imported and resumed elsewhere without paying again.

The file is a compressed ZIP: `manifest.json`, the session folder's own files under `files/`, the calls as
JSON lines, the milestones of its lists, the questions that a server refused, if any, and the jobs when they
were taken over. Nothing else is accepted on import, and nothing is written outside of the new session's
folder and the ledger.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tasks.core.errors import SessionError, UsageError
from tasks.core.llm.ledger_failures import put_refusal_rows
from tasks.core.llm.ledger_records import call_rows, find_session_row, put_call_rows
from tasks.core.session import archived, files
from tasks.core.session.archived import (
    CALLS,
    FILES,
    FORMAT,
    JOBS,
    MANIFEST,
    MILESTONES,
    REFUSED,
    ROWS_AT_ONCE,
    Manifest,
)
from tasks.core.session.find import check_name
from tasks.core.session.record import record_session, write_record
from tasks.core.session.refused import pack_refused, read_refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.llm.ledger import Ledger
    from tasks.core.session.record import SessionRecord


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
            manifest = Manifest(format=FORMAT, session=folder.name, calls=calls, record=asdict(record))
            archive.writestr(MANIFEST, manifest.model_dump_json())
    except OSError as error:
        raise SessionError(f"{target} cannot be written: {error.strerror or error}") from error
    return calls


async def import_session(source: Path, output: Path, ledger: Ledger, name: str | None = None) -> Path:
    """Bring a session and its calls from an archive into an output folder and a ledger.

    All of the archive is read before anything is kept, so that nothing is taken from one that is damaged.
    Then the calls come first and the folder last, in one step: an import that was cut off is simply done
    again.

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
    with archived.opened(source) as archive:
        with archived.damage_of(source):
            manifest, record = archived.read_manifest(source, archive)
            target = output / check_name(name or manifest.session)
            if target.exists():
                raise UsageError(f"there is a session {target.name} in {output} already; give another --name")
            jobs = archived.read_jobs(archive)
            milestones = archived.read_milestones(archive)
            refused = read_refused(archive)
            archived.check_contents(archive, manifest)
        for rows in archived.read_calls(archive):
            await put_call_rows(ledger, rows)
        for question, reached in milestones.items():
            for count in reached:
                await ledger.add_reached(question, count)
        await put_refusal_rows(ledger, record.id, refused)
        # Of a Prefect elsewhere, which must not find this copy when it runs again.
        record = replace(record, ledger=ledger.id, flow_run="")
        if await find_session_row(ledger, record.id) is None:
            await record_session(ledger, target.name, record, jobs)
        try:
            _take_files(archive, target, record)
        except OSError as error:
            raise SessionError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def own_files(folder: Path) -> list[Path]:
    """The session's files that go along: no links, and nothing hidden, such as the lock."""
    found = (path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if archived.is_file_name(path.name))


def line_of(row: dict[str, Any]) -> bytes:
    """A call, as the ledger's table holds it, as a line of JSON."""
    answer = base64.b64encode(row["answer"]).decode()
    document = row | {"key": row["key"].hex(), "answer": answer}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _take_files(archive: zipfile.ZipFile, target: Path, record: SessionRecord) -> None:
    """Make the session's folder beside its place and put it there when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import-") as temporary:
        folder = Path(temporary) / target.name
        folder.mkdir()
        for name in archive.namelist():
            if archived.is_file(name):
                with archive.open(name) as source, (folder / name.removeprefix(FILES)).open("xb") as copy:
                    shutil.copyfileobj(source, copy)
        write_record(folder, record)
        folder.rename(target)

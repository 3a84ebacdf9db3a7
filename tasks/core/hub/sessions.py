"""A session on its way to the Hub: its formats as files beside each other, and all that its card says."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cost import prices_for
from tasks.core.errors import SessionError, UsageError
from tasks.core.export.layout import DATA
from tasks.core.hub.card import CardFacts
from tasks.core.ledger.failures import failures_of
from tasks.core.ledger.sessions import spent_by
from tasks.core.lint.linter import lint_file
from tasks.core.session import files
from tasks.core.session.exporting import ExportRequest, export_dataset
from tasks.core.session.folder import locked
from tasks.core.session.record import read_record, restore_record, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasks.core.config.settings import Config, OutputFormat
    from tasks.core.export.layout import Exported
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.lint.report import Report
    from tasks.core.session.record import SessionRecord


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What is to be uploaded, and as what.

    Attributes:
        repo: The repository, as owner/name.
        license: The dataset's licence as the Hub names it; None for that of the settings.
        formats: The forms of its rows; none for those of the session's own settings.
        test_share: Share of the pairs for a test split, by whole subtopics; None as the session's own.
        partial: Whether a session that is not finished is uploaded as far as it is.
    """

    repo: str
    license: str | None = None
    formats: Sequence[OutputFormat] = ()
    test_share: float | None = None
    partial: bool = False


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder for the files, inside the session's, which nobody else writes to while the block runs.

    What an upload left that was killed is removed first.

    Raises:
        SessionLockedError: The session is being written, or uploaded.
        SessionError: The folder cannot be made.
    """
    with locked(folder):
        files.sweep(folder)
        try:
            stage = tempfile.TemporaryDirectory(dir=folder, prefix=".hub.", suffix=files.SUFFIX)
        except OSError as error:
            raise SessionError(f"{folder} cannot be written: {error.strerror}") from error
        with stage as name:
            yield Path(name)


async def prepare(
    folder: Path,
    ledger: Ledger,
    stage: Path,
    order: UploadRequest,
    *,
    now: Config | None,
    version: str,
    environ: Mapping[str, str],
) -> CardFacts:
    """Export a session as Parquet, and gather what its card says.

    Args:
        folder: The session's folder.
        ledger: The ledger that holds its answers.
        stage: An empty folder for the files, as `staging` makes it.
        order: What is wanted.
        now: The configuration as it is now, where there is one. Its licence and prices are taken, and those
            of the session's own where it has none.
        version: The version of this program.
        environ: The environment.

    Raises:
        UsageError: The session cannot be exported so.
        SessionError: The session cannot be read, or the files not be written.
        LedgerError: The ledger cannot be read.
    """
    await restore_record(folder, ledger)
    record, before = _known(folder)
    formats = order.formats or before.output.formats
    exports = [await _export(folder, ledger, stage, order, name) for name in dict.fromkeys(formats)]
    exported = await asyncio.to_thread(_beside_each_other, stage, exports)
    configured = (now.huggingface.license if now else "") or before.huggingface.license
    return CardFacts(
        repo=order.repo,
        license=configured if order.license is None else order.license,
        config=before,
        created=record.created,
        complete=record.complete,
        exported=exported,
        bill=await spent_by(ledger, record.id),
        prices=prices_for(now, before),
        failures=await failures_of(ledger, record.id),
        lint=await asyncio.to_thread(_lint, folder / "dataset.jsonl"),
        version=version,
        environ=environ,
    )


def _lint(dataset: Path) -> Report | None:
    """What lint finds in the session's own rows; None where they cannot be read: the upload does without."""
    try:
        return lint_file(dataset)
    except UsageError:
        return None


def _known(folder: Path) -> tuple[SessionRecord, Config]:
    """The session's record, and the settings that it began with."""
    record = read_record(folder)
    before = None if record is None else settings_of(record)
    if record is None or before is None:
        raise UsageError(
            f"the settings of session {folder.name} are not known; if it is VellumForge2's, resume it first"
        )
    return record, before


async def _export(
    folder: Path, ledger: Ledger, stage: Path, order: UploadRequest, output_format: OutputFormat
) -> Exported:
    wanted = ExportRequest(
        output_format,
        file_type="parquet",
        test_share=order.test_share,
        into=stage / output_format,
        partial=order.partial,
    )
    return await export_dataset(folder, ledger, wanted)


def _beside_each_other(stage: Path, exports: Sequence[Exported]) -> Exported:
    """The exports as one: no two formats have a configuration in common."""
    try:
        (stage / DATA).mkdir()
        for exported in exports:
            for configuration in exported.rows:
                (exported.folder / DATA / configuration).rename(stage / DATA / configuration)
    except OSError as error:
        raise SessionError(f"{stage} cannot be written: {error.strerror}") from error
    return replace(exports[0], folder=stage, files=tuple(file for one in exports for file in one.files))

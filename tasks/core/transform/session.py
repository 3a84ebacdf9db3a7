"""The session folder of a transform: its rows as they come, in order, and what was skipped."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson

from tasks.core.errors import SessionError, UsageError
from tasks.core.session import files
from tasks.core.session.folder import create_folder
from tasks.core.session.journal import journal
from tasks.core.session.lock import locked
from tasks.core.session.record import SessionRecord, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.core.config.models import Config
    from tasks.core.lint.rows import BadLine
    from tasks.core.transform.working import Transformed

DATASET = "dataset.jsonl"
REASONING = "dataset_reasoning.jsonl"
SKIPPED = "skipped.jsonl"


class TransformSession:
    """One folder that is being written. Rows come in their order, so that none of them is held.

    Attributes:
        folder: The folder.
        record: What is recorded of it.
        skipped: Lines that were left out.
    """

    def __init__(self, folder: Path, record: SessionRecord) -> None:
        self.folder = folder
        self.record = record
        self.skipped = 0
        self._began = time.monotonic()
        self._open: dict[str, IO[bytes]] = {}

    def add(self, done: Transformed) -> None:
        """Append the rows of the next block.

        Raises:
            SessionError: They cannot be written.
        """
        self._write(DATASET, done.plain)
        self._write(REASONING, done.reasoning)

    def skip(self, line: BadLine) -> None:
        """Note a line that is left out.

        Raises:
            SessionError: It cannot be written.
        """
        self.skipped += 1
        entry = {"line": line.line, "reason": line.reason}
        self._write(SKIPPED, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    async def finish(self, *, complete: bool) -> None:
        """Make what there is durable, and record whether it is all.

        Raises:
            SessionError: The disk is full, or the folder cannot be written to.
        """
        await asyncio.to_thread(self._sync)
        seconds = time.monotonic() - self._began
        self.record = replace(self.record, complete=complete, seconds=seconds)
        await asyncio.to_thread(write_record, self.folder, self.record)

    async def hand_out(self, name: str, path: Path) -> None:
        """Put a copy of one of the files in its place, in one step.

        Raises:
            SessionError: It cannot be written there; the file in the folder is whole.
        """
        try:
            await asyncio.to_thread(self._copy, name, path)
        except OSError as error:
            raise SessionError(
                f"{path} cannot be written: {error.strerror}; the rows are in {self.folder / name}"
            ) from error

    def first_row(self) -> str:
        """The first row, without its newline; "" when there is none."""
        with (self.folder / DATASET).open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")

    def close(self) -> None:
        """Close the files as they are."""
        for file in self._open.values():
            with suppress(OSError):
                file.close()

    def _write(self, name: str, content: bytes) -> None:
        try:
            if name not in self._open:
                self._open[name] = (self.folder / name).open("wb")
            self._open[name].write(content)
            self._open[name].flush()
        except OSError as error:
            raise SessionError(
                f"{self.folder / name} cannot be written: {error.strerror}; every answer is in the ledger, "
                "so run again when there is room and nothing is paid for twice"
            ) from error

    def _sync(self) -> None:
        try:
            for file in self._open.values():
                os.fsync(file.fileno())
        except OSError as error:
            raise SessionError(f"{self.folder} cannot be written: {error.strerror}") from error

    def _copy(self, name: str, path: Path) -> None:
        with (self.folder / name).open("rb") as rows, files.replaced(path) as copy:
            shutil.copyfileobj(rows, copy, 1 << 20)


@contextmanager
def open_transform(config: Config, *, command: str, ledger: str, flow_run: str) -> Iterator[TransformSession]:
    """A new session folder for a transform, locked, with its log and its record.

    Args:
        config: The configuration.
        command: The command that goes on with it.
        ledger: Id of the ledger.
        flow_run: Id of the Prefect flow run, "" when there is none.

    Raises:
        SessionError: The folder cannot be made or written.
    """
    settings = config.model_dump(mode="json", exclude_unset=True)
    record = SessionRecord(
        str(uuid.uuid4()), time.time(), settings, ledger, flow_run=flow_run, transform=command
    )
    folder = create_folder(
        Path(config.output.folder), datetime.now().astimezone(), partial(write_record, record=record)
    )
    with locked(folder), journal(folder / "session.log"):
        session = TransformSession(folder, record)
        try:
            yield session
        finally:
            session.close()


def check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """Make sure that the outputs can be written and are none of the inputs.

    Raises:
        UsageError: They cannot, or are.
    """
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise UsageError(f"{path} is given twice; every input and output is a file of its own")
        taken.add(path.resolve())
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name the file that is to be written")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} to write {path.name} into")
        if not os.access(path.parent, os.W_OK):
            raise UsageError(f"{path.parent} cannot be written to; choose another place for {path.name}")

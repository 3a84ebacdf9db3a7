"""`session.log`: what happened, one JSON object a line."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "vellumforge"
"""The logger that every module of the project logs under."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line; a traceback, if any, goes into the field `error`."""
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


class _JournalFile(logging.FileHandler):
    """The file; one that cannot be written any more says so once, and the run goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._given_up = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._given_up:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = sys.exception()
        if isinstance(error, OSError):
            self._give_up(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # of what waited in memory
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._given_up:
            self._given_up = True
            _warn(Path(self.baseFilename), error)


def _warn(path: Path, error: OSError) -> None:
    logging.getLogger(ROOT).warning("%s cannot be written: %s; going on without it", path, error.strerror)


@contextmanager
def journal(path: Path, level: int = logging.INFO) -> Iterator[None]:
    """Write the project's log records to `path` while the block runs.

    A log that cannot be written only warns: it is not what must hold.
    """
    root = logging.getLogger(ROOT)
    try:
        handler: logging.Handler = _JournalFile(path)
    except OSError as error:
        _warn(path, error)
        handler = logging.NullHandler()
    handler.setFormatter(JsonLines())
    handler.setLevel(level)
    before = root.level
    root.setLevel(min(level, before) if before else level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()

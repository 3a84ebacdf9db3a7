"""`session.log`: what happened, one JSON object a line."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


@contextmanager
def journal(path: Path, level: int = logging.INFO) -> Iterator[None]:
    """Write the project's log records to `path` while the block runs.

    A log that cannot be written only warns: it is not what must hold.
    """
    root = logging.getLogger(ROOT)
    try:
        handler: logging.Handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        root.warning("%s cannot be written: %s; going on without it", path, error.strerror)
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

"""The log of a run in Prefect's UI: the project's own records, and errors without tracebacks of ours.

Set up here and not by `PREFECT_LOGGING_EXTRA_LOGGERS`, so that a worker needs no setting for it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from prefect.logging.handlers import APILogHandler

from flows.process.console import ShownRecord
from tasks.core.errors import VellumforgeError
from tasks.core.session.dataset import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_ITEMS = "vellumforge.run"
"""It tells of every item that failed, at level INFO; the page has a table of them."""


@contextmanager
def logged(flow_run: str) -> Iterator[None]:
    """Send the project's records, from level INFO, to the log of the flow run while the block runs.

    Args:
        flow_run: The run's id; "" where there is none, and nothing is sent.
    """
    ours = logging.getLogger(ROOT)
    if not flow_run or any(isinstance(handler, APILogHandler) for handler in ours.handlers):
        yield
        return

    def belongs(record: logging.LogRecord) -> bool:
        # Threads and tasks of our own do not know which run they are of.
        record.flow_run_id = flow_run
        return record.name != _ITEMS or record.levelno > logging.INFO

    handler = APILogHandler(logging.INFO)
    handler.setFormatter(ShownRecord())
    handler.addFilter(belongs)
    with _at_level(ours, min(logging.INFO, ours.level or logging.INFO)), _fewer_lines():
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)


def _fewer_lines() -> AbstractContextManager[None]:
    """No line for every task run that ends well, unless somebody asked for levels of their own."""
    tasks = logging.getLogger("prefect.task_runs")
    asked = tasks.level != logging.NOTSET or tasks.getEffectiveLevel() < logging.INFO
    return nullcontext() if asked else _at_level(tasks, logging.WARNING)


@contextmanager
def _at_level(logger: logging.Logger, level: int) -> Iterator[None]:
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def plain(record: logging.LogRecord) -> bool:
    """A logging filter: what we raise says in one line what is wrong, and a traceback says nothing more."""
    if record.exc_info and isinstance(record.exc_info[1], VellumforgeError):
        record.exc_info = record.exc_text = None
    # It is an error of ours that is not written, and nobody would read it there.
    return not str(record.msg).startswith("Failed to write result")


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(plain)

"""A run as a function, for scripts and notebooks: `from flows import run`."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.process.run import run_within
from flows.request import RunRequest
from tasks.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from datasets import Dataset

    from tasks.core.summary import Summary

DATASET = "dataset.jsonl"


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that brought all its rows.

    Attributes:
        summary: Its numbers: rows, calls, tokens, money, as `--json` prints them.
        folder: The session's folder.
    """

    summary: Summary
    folder: Path

    def rows(self) -> Iterator[dict[str, Any]]:
        """The dataset's rows, read one after the other."""
        with (self.folder / DATASET).open("rb") as lines:
            for line in lines:
                yield orjson.loads(line)

    def to_dataset(self) -> Dataset:
        """The dataset, as the package `datasets` has it.

        Raises:
            UsageError: The package is not installed.
        """
        try:
            from datasets import Dataset  # noqa: PLC0415 - whoever asks for it has it
        except ImportError as error:
            raise UsageError("to_dataset() needs the package datasets: pip install datasets") from error
        return Dataset.from_list(list(self.rows()))


async def arun(**given: Any) -> FinishedRun:
    """Run in this process, as `run` does; for code that awaits.

    Args:
        given: The fields of `RunRequest`.
    """
    if given.get("config") is not None:
        given["config"] = str(given["config"])
    request = RunRequest(**given)
    console = await run_within(request, _generate)
    assert console.folder is not None  # noqa: S101 - a run that raised nothing had a session
    return FinishedRun(cast("Summary", console.summary), console.folder)


def run(**given: Any) -> FinishedRun:
    """Generate a dataset in this process, and wait for it; in a notebook too.

    It may be called several times. Nothing of the process is taken over: neither signals nor its end. A run
    that is interrupted, like one that fails, is resumed with `resume=`, and pays for what is missing alone.

    Args:
        given: The fields of `RunRequest`, among them `config`, `overrides` and `resume`.

    Returns:
        The finished run.

    Raises:
        ConfigError: Something given cannot be used; nothing was created.
        VellumforgeError: What ended the run; its notes say how to go on.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(arun(**given))
    # A loop that runs cannot wait for another run of itself.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, lambda: asyncio.run(arun(**given))).result()


def _generate() -> Any:
    from flows.generate import generate  # noqa: PLC0415 - Prefect finds its settings made

    return generate


for _function in (run, arun):
    # What help() and an editor show: the fields are named in one place.
    setattr(_function, "__signature__", inspect.signature(RunRequest))  # noqa: B010 - mypy knows no such field

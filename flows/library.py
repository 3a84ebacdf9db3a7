"""A run as a function, for scripts and notebooks: `from flows import run`."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.hosting import generate_within
from flows.request import RunRequest
from tasks.core.errors import UsageError
from tasks.core.session.dataset import DATASET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from datasets import Dataset

    from tasks.core.summary import Summary


POLL = 0.2
"""Seconds between two looks whether the caller of a run is cancelled, where it cannot be awaited."""


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
    given = {name: value for name, value in given.items() if value is not None}
    paths = {name: str(given[name]) for name in ("config", "env_file", "output") if given.get(name)}
    console = await generate_within(RunRequest(**{**given, **paths}))
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
    return _in_another_thread(given)


def _in_another_thread(given: dict[str, Any]) -> FinishedRun:
    """Run where a loop runs already, which cannot wait for another run of itself."""
    caller = asyncio.current_task()
    before = caller.cancelling() if caller is not None else 0
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def work() -> FinishedRun:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is this one
        begun.set_result((asyncio.get_running_loop(), task))
        return await arun(**given)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(contextvars.copy_context().run, asyncio.run, work())
        try:
            while not wait([running], POLL).done:
                _check_wanted(caller, before)
        finally:
            # Ctrl+C comes to this thread, or cancels its task: the run is told, and puts its files in order.
            either: list[Future[Any]] = [begun, running]
            wait(either, return_when=FIRST_COMPLETED)
            if not running.done():
                loop, task = begun.result()
                with suppress(RuntimeError):  # it has ended just now
                    loop.call_soon_threadsafe(task.cancel)
                wait([running])
        return running.result()


def _check_wanted(caller: asyncio.Task[Any] | None, before: int) -> None:
    """Raise CancelledError where the caller was told once more to end."""
    if caller is not None and caller.cancelling() > before:
        raise asyncio.CancelledError


for _function in (run, arun):
    # What help() and an editor show: the fields are named in one place.
    setattr(_function, "__signature__", inspect.signature(RunRequest))  # noqa: B010 - mypy knows no such field

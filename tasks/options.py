"""How every task of the pipeline is run by Prefect: its cache key, its stored result, its run's name."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

# Imported here, beside the start of Prefect's server: else a run's first seconds are spent on them, between
# the server's start and the first request.
import aiosqlite  # noqa: F401 - SQLAlchemy imports it with the first connection
import fastapi.encoders  # noqa: F401 - Prefect imports it with a run's parameters
import orjson
import prefect.flow_engine
import prefect.task_engine
import prefect.utilities.visualization  # noqa: F401 - Prefect imports all three when a flow or task is called
from prefect import task
from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import aget_default_result_storage
from prefect.serializers import JSONSerializer

from tasks.core.errors import VellumforgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prefect.context import TaskRunContext

    from tasks.core.generation.run import Block

_What = TypeVar("_What")

# Without these two, reading a result would import whatever a `__class__` in it names.
_SERIALIZER = JSONSerializer(object_encoder=None, object_decoder=None)
_SERIALIZER_AS_STORED = _SERIALIZER.model_dump(mode="json")


class BlockFailedError(VellumforgeError):
    """Some items of a block failed. The others are paid for; running the block again does only the rest.

    It is raised, not returned: Prefect would store a returned failure under the block's key.
    """


class PlainResults(WritableFileSystem):
    """The result storage that is configured, from which nothing but our own plain JSON is read.

    Prefect reads a result in the way that the stored file itself names, and takes one that names none for
    a pickle: whoever can write such a file could have code run here.
    """

    async def read_path(self, path: str) -> bytes:
        """A stored result.

        Raises:
            Exception: There is none, or it is torn or not ours: Prefect then takes it as missing, and the
                block is run again, for nothing.
        """
        content: bytes = await (await _configured_storage()).read_path(path)
        document = orjson.loads(content)
        if document["metadata"]["serializer"] != _SERIALIZER_AS_STORED:
            raise ValueError(f"the result {path} is not stored as plain JSON")
        # Written anew, so that nothing in it can be read in two ways.
        return orjson.dumps({"metadata": document["metadata"], "result": document["result"]})

    async def write_path(self, path: str, content: bytes) -> None:
        """Store a result, in one step where it is a file."""
        storage = await _configured_storage()
        if not isinstance(storage, LocalFileSystem):
            await storage.write_path(path, content)
            return
        # Written in place, a file is empty for a moment, in which another run may read it.
        await asyncio.to_thread(_replace, storage, path, content)

    def _resolve_path(self, _path: str) -> None:
        """Prefect asks for this: None leaves the keys as they are, for the storage beneath."""


def _replace(storage: LocalFileSystem, path: str, content: bytes) -> None:
    """Write a file in one step. Where a power failure takes it, its block is run again, for nothing."""
    target = Path(storage.basepath or "").expanduser() / path
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_bytes(content)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


async def _configured_storage() -> WritableFileSystem:
    context = FlowRunContext.get()
    storage = context.result_store.result_storage if context else None
    return storage or await aget_default_result_storage()


@dataclass(frozen=True, slots=True)
class Found(Generic[_What]):
    """What the work on a block brought.

    Attributes:
        what: What the run goes on with.
        numbers: What Prefect keeps and shows of it.
        failure: Why the block counts as failed, "" where it does not.
    """

    what: _What
    numbers: dict[str, int]
    failure: str = ""


class BlockTask(Generic[_What]):
    """Work on one block, as a task of Prefect's. Made by `block_task`.

    A finished block is found again by its key, in this run and in later ones, and shown as Cached.
    """

    def __init__(self, name: str, work: Callable[..., Awaitable[Found[_What]]]) -> None:
        self._work = work
        self._task = task(
            name=name,
            task_run_name="{block}",
            persist_result=True,
            # Whatever Prefect's own default is: what can be tried again was, and waves are made once.
            retries=0,
            cache_key_fn=_block_key,
            cache_result_in_memory=False,
            result_serializer=_SERIALIZER,
        )(_for_prefect(work))
        # Not given above, where Prefect wants a storage that others can load from its server.
        self._task.result_storage = PlainResults()

    async def __call__(self, *given: Any, block: Block[Any]) -> _What:
        """What the work brought; where Prefect knows it as done, it is read again from the ledger.

        Args:
            given: What the work is given before its block.
            block: The block.
        """
        job = _BlockWork(partial(self._work, *given, block))
        # Failures are data, on the ledger's list; the block is shown as Failed and can be retried.
        with suppress(BlockFailedError):
            await self._task(job, block)
        found: Found[_What] = job.found or await self._work(*given, block)
        return found.what


class _BlockWork:
    """Work that is handed to Prefect, and what it brought; no dataclass, through which Prefect would walk."""

    def __init__(self, work: Callable[[], Awaitable[Found[Any]]]) -> None:
        self.work = work
        self.found: Found[Any] | None = None


def _for_prefect(work: Callable[..., Awaitable[Found[Any]]]) -> Callable[..., Awaitable[dict[str, int]]]:
    """What Prefect runs: named like the work, for its task runs are found by that name."""

    async def carry_out(job: _BlockWork, block: Block[Any]) -> dict[str, int]:
        del block  # Prefect takes the task's key and name of it.
        found = job.found = await job.work()
        if found.failure:
            raise BlockFailedError(found.failure)
        return found.numbers

    carry_out.__name__ = carry_out.__qualname__ = work.__name__
    carry_out.__doc__ = work.__doc__
    return carry_out


def block_task(
    name: str,
) -> Callable[[Callable[..., Awaitable[Found[_What]]]], BlockTask[_What]]:
    """The decorator of the work on one block, which it is given last."""
    return partial(BlockTask, name)


def _block_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    key: str = parameters["block"].key
    return key

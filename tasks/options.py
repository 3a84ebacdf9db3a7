"""How every task of the pipeline is run by Prefect: its cache key, its stored result, its run's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.serializers import JSONSerializer

from tasks.core.errors import VellumforgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.context import TaskRunContext


class BlockFailedError(VellumforgeError):
    """Some items of a block failed. The others are paid for; running the block again does only the rest.

    It is raised, not returned: Prefect would store a returned failure under the block's key.
    """


def block_task(name: str) -> Callable[[Any], Any]:
    """The decorator of a task over one block, which it is given as the parameter `block`.

    A finished block is found again by its key, in this run and in later ones, and shown as Cached.
    """
    return task(
        name=name,
        task_run_name="{block}",
        persist_result=True,
        cache_key_fn=_block_key,
        cache_result_in_memory=False,
        # Without these two, reading a result would import whatever a `__class__` in it names.
        result_serializer=JSONSerializer(object_encoder=None, object_decoder=None),
    )


def _block_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    key: str = parameters["block"].key
    return key

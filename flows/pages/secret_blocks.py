"""Keys in Prefect's Secret blocks, read from the server that a run belongs to.

Prefect is imported when a block is read and not before: its settings are made by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from tasks.core.errors import UsageError
from tasks.core.printable import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable


async def read_blocks(names: Iterable[str]) -> dict[str, SecretStr]:
    """The values of Secret blocks, by name.

    Raises:
        UsageError: There is no such block, it holds no text, or Prefect's server does not answer.
    """
    return {name: await _read(name) for name in names}


async def _read(name: str) -> SecretStr:
    # Imported here: it takes a second, and most configurations name no block.
    from prefect.blocks.system import Secret  # noqa: PLC0415
    from prefect.exceptions import PrefectException  # noqa: PLC0415

    try:
        block: Secret[str] = await Secret.aload(name)
    except ValueError as error:
        raise UsageError(
            f"api_key_block names {name}, and Prefect has no Secret block of that name; make it in Prefect's "
            "pages, or name the key's variable with api_key_env"
        ) from error
    except (PrefectException, httpx.HTTPError, RuntimeError) as error:
        reason = reason_of(error)
        raise UsageError(f"the Prefect block {name} cannot be read: {reason}") from error
    # Not `get`, which would read a key of digits alone as a number.
    value: object = block.value.get_secret_value()
    if not isinstance(value, str) or not value:
        raise UsageError(f"the Prefect block {name} holds no text that could be a key; save it anew")
    return SecretStr(value)

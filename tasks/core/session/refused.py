"""The questions that a server refused, as they travel with a session.

Nothing of them is among its calls, and yet whoever has the session must know of them: they were replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.core.errors import UsageError
from tasks.core.llm.ledger_failures import refusal_rows
from tasks.core.models import Phase, Purpose
from tasks.core.session.archived import REFUSED, SMALL, Word

if TYPE_CHECKING:
    import zipfile

    from tasks.core.llm.ledger import Ledger

LONGEST = 500
"""Characters of a server's words, and of what was asked for, that go along: a server may say back all."""


class Refusal(BaseModel):
    """A refusal in an archive: a row of the ledger's failures, under the key of its request."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    phase: Phase
    item: Word = Field(max_length=LONGEST)
    purpose: Purpose
    cause: Word = Field(max_length=64)
    message: Word = Field(max_length=LONGEST)
    status: int = Field(ge=100, lt=600)
    attempts: int = Field(ge=1, lt=2**31)
    at: float = Field(allow_inf_nan=False)


_REFUSALS = TypeAdapter(
    dict[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], Refusal], config=ConfigDict(strict=True)
)


async def pack_refused(ledger: Ledger, session: str) -> bytes | None:
    """What was refused in the session with this id, as a document; None when nothing was.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    refused = {}
    for row in await refusal_rows(ledger, session):
        request = row.pop("request")
        refused[request] = row | {name: row[name][:LONGEST] for name in ("item", "message")}
    return orjson.dumps(refused) if refused else None


def read_refused(archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    """What was refused in an archive's session, as `put_refusal_rows` takes it.

    Raises:
        UsageError: It cannot be read.
    """
    if REFUSED not in archive.namelist():
        return []
    try:
        # What is too large is not read, and nothing is no document.
        small = archive.getinfo(REFUSED).file_size <= SMALL
        refused = _REFUSALS.validate_json(archive.read(REFUSED) if small else b"")
    except ValidationError as error:
        raise UsageError("the archive is damaged: its refused questions cannot be read") from error
    return [refusal.model_dump() | {"request": request} for request, refusal in refused.items()]

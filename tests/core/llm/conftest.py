"""The databases that the ledger's tests run on: SQLite always, PostgreSQL where a server is named."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from tests.core.llm.databases import POSTGRES, administer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_SERVER = os.environ.get(POSTGRES, "")


@pytest.fixture(params=["sqlite", "postgresql"] if _SERVER else ["sqlite"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a ledger that does not exist yet; on PostgreSQL, a database of its own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
        return
    name = f"vellumforge_test_{uuid.uuid4().hex}"
    await administer(_SERVER, f"CREATE DATABASE {name}")
    yield make_url(_SERVER).set(database=name).render_as_string(hide_password=False)
    await administer(_SERVER, f"DROP DATABASE {name} WITH (FORCE)")

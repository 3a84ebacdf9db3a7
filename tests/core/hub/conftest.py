"""A Hub on loopback, and a library that knows no other."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest

from tests.core.hub.server import TOKEN, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.core.hub.server import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server; what the library reads from the environment at its import is set here as it would be."""
    with running() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
            monkeypatch.setattr(huggingface_hub.constants, name, True)
        # It waits between its attempts: up to 23 seconds.
        monkeypatch.setattr(huggingface_hub.utils._http, "time", SimpleNamespace(sleep=lambda _: None))
        yield server
        huggingface_hub.close_session()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token but the one that a test gives."""
    for name in os.environ:
        if "HUGGING" in name or name == "HF_TOKEN":
            monkeypatch.delenv(name)
    monkeypatch.setenv("SOME_TOKEN", TOKEN)

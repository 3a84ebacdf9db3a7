"""Servers that others wrote as processes of their own environment, and a user of the command line."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from tests.flows.command import ROOT, User, free_port, prefect_server, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

SERVERS = ROOT / ".venv-servers/bin"
SLOTS = 64
"""Requests that llama.cpp works on at the same time."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of all runs but that of `make test-servers`."""
    del collection_path
    return None if config.inipath == Path(__file__).with_name("pytest.ini") else True


@contextmanager
def process(command: Sequence[str], url: str, log: Path) -> Iterator[None]:
    """A server that runs until the block ends; it is there once `url` answers."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        until(lambda: server.poll() is not None or _answers(url), f"the start of {command[0]}")
        assert server.poll() is None, log.read_text()
        yield
    finally:
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=10):  # noqa: S310 - our own
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Mock:
    """llmock, and what it is told and asked over its own paths.

    Attributes:
        port: Its port on the loopback interface.
    """

    port: int

    @property
    def url(self) -> str:
        """The base URL of its OpenAI kind."""
        return f"http://127.0.0.1:{self.port}/v1"

    def play(self, *behaviours: dict[str, Any]) -> None:
        """Forget all that was, and queue behaviours."""
        self._ask("reset", {})
        self._ask("scenario", {"behaviors": behaviours})

    def pending(self) -> list[dict[str, Any]]:
        """The behaviours with an end that no request has met yet."""
        found = self._ask("scenario")["pending"]
        return [behaviour for behaviour in found if behaviour["times"] is not None]

    def verdict(self) -> dict[str, Any]:
        """What it thinks of the client."""
        found: dict[str, Any] = self._ask("verdict")
        return found

    def _ask(self, path: str, document: dict[str, Any] | None = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"http://127.0.0.1:{self.port}/_llmock/{path}", data=body, headers=headers)
        with urlopen(request, timeout=10) as response:  # noqa: S310
            return json.load(response)


@pytest.fixture(scope="session")
def mocks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Mock]]:
    """Starts llmock with options of its command line."""
    folder = tmp_path_factory.mktemp("llmock")

    @contextmanager
    def started(*options: str) -> Iterator[Mock]:
        mock = Mock(free_port())
        command = [str(SERVERS / "llmock"), "serve", "--port", str(mock.port), *options]
        with process(command, f"http://127.0.0.1:{mock.port}/health", folder / f"{mock.port}.log"):
            yield mock

    return started


@pytest.fixture(scope="session")
def mock(mocks: Callable[..., AbstractContextManager[Mock]]) -> Iterator[Mock]:
    """Llmock without any chaos of its own.

    Its streams take a moment: one that is sent whole before the client can leave counts as read to its end.
    """
    with mocks("--stream-chunk-delay-ms", "5") as server:
        yield server


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of llama.cpp with its model of random weights."""
    port = free_port()
    command = [str(SERVERS / "python"), "-m", "tests.servers.llama", str(port), str(SLOTS)]
    with process(command, f"http://127.0.0.1:{port}/health", tmp_path_factory.mktemp("llama") / "log"):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a Prefect server that all tests share."""
    with prefect_server(tmp_path_factory.mktemp("server") / "home") as url:
        yield url


@pytest.fixture
def user(tmp_path: Path, prefect_url: str) -> User:
    """Someone who works with the shared Prefect server."""
    return User.made(tmp_path, PREFECT_API_URL=prefect_url, PREFECT_HOME=str(tmp_path / "prefect"))

"""One Prefect server for all tests here, and users who work with it or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.flows.command import User, config, model, prefect_server
from tests.flows.prepared import PARENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Model


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the Prefect server that the tests of this process share."""
    return tmp_path_factory.mktemp("server") / "home"


@pytest.fixture(scope="session")
def prefect_url(prefect_home: Path) -> Iterator[str]:
    """The API of a Prefect server; a run with it is spared the start of an embedded one.

    It does without the services that look after schedules, workers and automations: there are none. The
    prepared parent makes its own first run with it.
    """
    with prefect_server(prefect_home, services=False) as url:
        with model() as server:
            first = User.made(prefect_home.parent / "first", PREFECT_API_URL=url)
            first.write("config.toml", config(server.url))
            PARENT.warm(["run"], folder=first.folder, environment=first.environment)
        yield url


PROVE_PROCESSES = {
    "test_api_lost",
    "test_full_disk",
    "test_interrupt",
    "test_kill",
    "test_prefect_server",
    "test_results",
    "test_secrets_nowhere",
    "test_torn_files",
    "test_two_resumes",
    "test_upload",
}
"""Modules whose tests prove something of processes: each run has its own there."""


@pytest.fixture
def user(tmp_path: Path, prefect_url: str, request: pytest.FixtureRequest) -> User:
    """Someone who works with the shared Prefect server; results of tasks stay in a home of their own.

    What is only run to its end is run in turn, by one process, where no test proves something of processes.
    """
    made = User.made(tmp_path, PREFECT_API_URL=prefect_url, PREFECT_HOME=str(tmp_path / "prefect"))
    return made if request.path.stem in PROVE_PROCESSES else made.in_one_process()


@pytest.fixture
def lone_user(tmp_path: Path) -> User:
    """Someone who has configured no Prefect server."""
    return User.made(tmp_path)


@pytest.fixture
def demo_model() -> Iterator[Model]:
    """A model server that answers flawlessly and at once."""
    with model() as server:
        yield server

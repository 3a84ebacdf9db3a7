"""Without authentication nothing but the loopback interface is ever bound, whichever command is used."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.deployments.listening import listeners, public
from tests.flows.command import ROOT, User, config, free_port, model, take_database, until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.deployments.listening import Address
    from tests.flows.command import Process

PREFECT = (sys.executable, "-m", "prefect")
SERVE = (sys.executable, "-m", "deployments.serve")


def watched(user: User, process: Process, wanted: int) -> set[tuple[Address, int]]:
    """Everything that the user's processes listened on until there were so many sockets, or it ended."""
    found: set[tuple[Address, int]] = set()

    def enough() -> bool:
        found.update(listeners({process.pid, *user.processes()}))
        return len(found) >= wanted or not process.running

    until(enough, "something to listen")
    return found


@pytest.mark.parametrize("arguments", [("--demo",), ()], ids=["demo", "config"])
def test_a_run_without_a_server(lone_user: User, arguments: Sequence[str]) -> None:
    with model(latency_ms=200) as server:
        lone_user.write("config.toml", config(server.url))
        take_database(lone_user.folder / "output" / ".prefect")
        process = lone_user.start(*arguments)
        found = watched(lone_user, process, 1)
        while process.running:
            found |= listeners({process.pid, *lone_user.processes()})
        ended = process.end()
    assert ended.code == 0, ended.err
    assert found
    assert public(found) == []


def test_a_server_its_worker_and_serving_without_a_pool(tmp_path: Path) -> None:
    port = free_port()
    variables = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_SERVER_API_PORT": str(port)}
    user = User.made(tmp_path, **variables)
    shutil.copy(ROOT / "prefect.yaml", user.folder)
    started = [user.start("server", "start", program=PREFECT)]
    try:
        found = watched(user, started[0], 1)
        create = user.run("work-pool", "create", "vellumforge", "--type", "process", program=PREFECT)
        assert create.code == 0, create.err
        started += [
            user.start("worker", "start", "--pool", "vellumforge", program=PREFECT),
            user.start(program=SERVE),
        ]
        inspect = ("deployment", "inspect", "generate/generate")
        until(
            lambda: not started[-1].running or user.run(*inspect, program=PREFECT).code == 0,
            "serving to have made its deployment",
        )
        found |= listeners(user.processes())
        for process in started:
            assert process.running, process.end()
    finally:
        for process in started:
            process.kill(group=True)
            process.end()
    assert port in {number for _, number in found}
    assert public(found) == []

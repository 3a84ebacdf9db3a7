"""Without authentication nothing but the loopback interface is ever bound, whichever command is used."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx

from tests.deployments.listening import listeners, public
from tests.flows.command import PREFECT, ROOT, TIMEOUT, User, free_port, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deployments.listening import Address
    from tests.flows.command import Process

SERVE = (sys.executable, "-m", "deployments.serve")


def watched(user: User, process: Process, wanted: int) -> set[tuple[Address, int]]:
    """Everything that the user's processes listened on until there were so many sockets, or it ended."""
    found: set[tuple[Address, int]] = set()

    def enough() -> bool:
        found.update(listeners({process.pid, *user.processes()}))
        return len(found) >= wanted or not process.running

    until(enough, "something to listen")
    return found


def test_a_run_without_a_server(lone_user: User) -> None:
    """The demo has a model server of its own besides the embedded one of Prefect's, which all runs have."""
    process = lone_user.start("--demo")
    found = watched(lone_user, process, sys.maxsize)
    ended = process.end()
    assert ended.code == 0, ended.err
    assert len({port for _, port in found}) == 2
    assert public(found) == []


def test_a_server_its_worker_and_serving_without_a_pool(tmp_path: Path) -> None:
    port = free_port()
    variables = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_SERVER_API_PORT": str(port)}
    user = User.made(tmp_path, **variables)
    shutil.copy(ROOT / "prefect.yaml", user.folder)
    started = [replace(user, forks=False).start("server", "start", program=PREFECT)]
    try:
        found = watched(user, started[0], 1)
        create = user.run("work-pool", "create", "vellumforge", "--type", "process", program=PREFECT)
        assert create.code == 0, create.err
        started += [
            user.start("worker", "start", "--pool", "vellumforge", program=PREFECT),
            user.start(program=SERVE),
        ]
        made = f"{variables['PREFECT_API_URL']}/deployments/name/generate/generate-served"
        with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
            until(
                lambda: not started[-1].running or client.get(made).is_success,
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

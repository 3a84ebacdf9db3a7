"""A server for many: every part of compose.yaml as a process here, with its command and environment."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.core.ledger.databases import sql
from tests.deployments.listening import listeners, open_port, public
from tests.deployments.topology import running
from tests.flows.command import TIMEOUT, config, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deployments.topology import Topology
    from tests.flows.command import Model


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """All of it but the workers."""
    with running(tmp_path_factory.mktemp("many")) as found:
        yield found


def asked(topology: Topology, path: str, body: dict[str, Any] | None = None, *, password: str | None) -> Any:
    """What the API answers to the user admin with that password, or to nobody."""
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(topology.url + path, data, headers), timeout=TIMEOUT) as response:  # noqa: S310 - http
        return json.load(response)


async def test_a_run_is_completed_by_a_worker_and_paid_for_in_the_ledger_of_the_same_server(
    topology: Topology, demo_model: Model
) -> None:
    (topology.work / "config.toml").write_text(config(demo_model.url), encoding="utf-8")
    topology.start("worker")
    topology.until_answers("worker", f"http://127.0.0.1:{topology.ports['worker']}/health")

    run = ["prefect", "deployment", "run", "generate/generate", "--watch", "--watch-interval", "1"]
    ended = subprocess.run(  # noqa: ASYNC221 - nothing else waits in this loop
        run,
        env=topology.environment("deploy"),
        cwd=topology.work,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )

    log = (topology.folder / "worker.log").read_text(encoding="utf-8")
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{log}"
    (session,) = (topology.work / "output").glob("session_*")
    assert len(rows_of(session)) == 6
    assert not (topology.work / "output" / "ledger.db").exists()
    ((calls,),) = await sql(topology.ledger, "SELECT count(*) FROM calls")
    assert calls == demo_model.stats()["requests"]
    password = topology.secrets["API_PASSWORD"]
    runs = asked(topology, "/flow_runs/filter", {}, password=password)
    assert [found["state_type"] for found in runs] == ["COMPLETED"]
    # Recorded by the background services, which hear of them through Redis alone.
    tasks = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    assert asked(topology, "/task_runs/count", tasks, password=password) >= 3

    found = listeners(topology.processes_of())
    assert {port for _, port in found} >= set(topology.ports.values())
    assert public(found) == []
    for secret in topology.secrets.values():
        for path in (*session.iterdir(), *topology.folder.glob("*.log")):
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_who_has_no_password_is_refused(topology: Topology, password: str | None) -> None:
    for path, body in (("/flow_runs/filter", {}), ("/admin/settings", None), ("/block_documents/filter", {})):
        with pytest.raises(HTTPError) as refused:
            asked(topology, path, body, password=password)
        refused.value.close()
        assert refused.value.code == 401
    # A probe may ask whether it is there, and learns nothing else.
    assert asked(topology, "/health", password=None) is True


@pytest.mark.parametrize(("role", "database"), [("prefect", "ledger"), ("ledger", "prefect")])
def test_neither_role_reaches_what_is_the_others(topology: Topology, role: str, database: str) -> None:
    refused = subprocess.run(
        ["psql", "--host=127.0.0.1", f"--port={topology.ports['postgres']}", f"--username={role}", database],
        env=os.environ | {"PGPASSWORD": topology.secrets[f"{role.upper()}_DATABASE_PASSWORD"]},
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert f'permission denied for database "{database}"' in refused.stderr


def test_a_public_address_would_be_seen() -> None:
    with open_port("0.0.0.0") as everywhere, open_port("127.0.0.1") as here:  # noqa: S104 - it is what is looked for
        found = listeners([os.getpid()])
        assert public(found) == [f"0.0.0.0 port {everywhere.getsockname()[1]}"]
        assert here.getsockname()[1] in {port for _, port in found}

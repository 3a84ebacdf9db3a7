"""A run that a worker started is cancelled, or its API is lost: it stops in order, and is resumed."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.flows.command import TIMEOUT, User, config, model, outlives, prefect_server, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Process

PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")
POOL = "machines"
SUBTOPICS, PROMPTS = 10, 5
CALLS = SUBTOPICS + 2 * SUBTOPICS * PROMPTS


@dataclass
class Machine:
    """A worker, its user and the server that both know.

    Attributes:
        user: Whose worker it is.
        worker: The worker's process.
        client: A client of Prefect's API.
        deployment: The id of the deployment.
    """

    user: User
    worker: Process
    client: httpx.Client
    deployment: str

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Ask Prefect's API for something that may be asked for again."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            # A server that is busy says 503, or closes a connection that was idle, and Prefect's own
            # client asks again as well.
            with suppress(httpx.TransportError):
                answers.append(self.client.post(path, json=body))
            return bool(answers) and answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        until(answered, f"an answer to {path}")
        done: dict[str, Any] = answers[-1].raise_for_status().json()
        return done

    def start(self, **parameters: Any) -> str:
        """Start a run of the deployment; returns its id."""
        run = self.post(
            f"/deployments/{self.deployment}/create_flow_run",
            parameters=parameters,
            idempotency_key=str(uuid.uuid4()),
        )
        return str(run["id"])

    def state(self, run: str) -> str:
        """The type of the state that the run is in."""
        return str(self.client.get(f"/flow_runs/{run}").raise_for_status().json()["state_type"])

    def until_state(self, run: str, state: str) -> None:
        """Wait until the run is in that state."""
        until(lambda: self.state(run) == state, f"the run is {state}")


@contextmanager
def machine(folder: Path, url: str) -> Iterator[Machine]:
    """A process worker with a deployment of the flow in its folder."""
    user = User.made(
        folder, PREFECT_API_URL=url, PREFECT_HOME=str(folder / "prefect"), PREFECT_WORKER_QUERY_SECONDS="1"
    )
    into_folder = {"prefect.deployments.steps.set_working_directory": {"directory": str(user.folder)}}
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        worker = user.start("worker", "start", "--pool", POOL, "--type", "process", program=PREFECT)
        try:
            found = Machine(user, worker, client, "")
            until(lambda: client.get(f"/work_pools/{POOL}").is_success, "the worker's pool")
            found.deployment = found.post(
                "/deployments/",
                name=folder.name,
                flow_id=found.post("/flows/", name="generate")["id"],
                entrypoint="flows.generate.generate",
                pull_steps=[into_folder],
                work_pool_name=POOL,
            )["id"]
            yield found
        finally:
            worker.kill(group=True)
            worker.end()


@pytest.fixture(scope="module")
def cancelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose runs are cancelled."""
    folder = tmp_path_factory.mktemp("cancelling")
    with prefect_server(folder / "server") as url, machine(folder / "machine", url) as made:
        yield made


@pytest.mark.parametrize("way", ["ui", "command"])
def test_a_cancelled_run_is_resumed_to_the_same_dataset(
    tmp_path: Path, cancelling: Machine, way: str
) -> None:
    made = cancelling
    with model(latency_ms=800.0) as server:
        output = f'[output]\nfolder = "{way}"\n'
        text = config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=4, more=output)
        made.user.write("config.toml", text)
        run = made.start()
        assert server.until_requests(CALLS // 5, made.worker)
        if way == "ui":
            made.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        else:
            assert made.user.run("flow-run", "cancel", run, program=PREFECT).code == 0
        made.until_state(run, "CANCELLED")
        assert all(request["finished"] for request in server.requests()), "a call was given up"
        assert len(server.requests()) < CALLS
        (session,) = made.user.sessions(way)
        keys = [request["key"] for request in server.requests()]
        # The rest in a moment.
        server.start()
        resumed = made.start(resume=session.name)
        made.until_state(resumed, "COMPLETED")
        assert made.state(run) == "CANCELLED"
        keys += [request["key"] for request in server.requests()]
        assert len(keys) == len(set(keys)), "a call was paid for twice"
        undisturbed = User.made(
            tmp_path / "undisturbed", PREFECT_API_URL=made.user.variables["PREFECT_API_URL"]
        )
        undisturbed.write("config.toml", text)
        assert undisturbed.run().code == 0
        (other,) = undisturbed.sessions(way)
    datasets = [path / "dataset.jsonl" for path in (session, other)]
    assert datasets[0].read_bytes() == datasets[1].read_bytes()
    assert len(datasets[0].read_text().splitlines()) == SUBTOPICS * PROMPTS


def test_a_workers_run_outlives_the_api_and_leaves_in_time(tmp_path: Path) -> None:
    home = tmp_path / "server"
    with (
        prefect_server(home) as url,
        model(latency_ms=250.0) as server,
        machine(tmp_path / "lost", url) as made,
    ):
        made.user.write("config.toml", config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS))
        made.start()
        assert server.until_requests(CALLS // 2, made.worker)
        running = made.worker.children()
        assert running
        for pid in User(home, home, {}).processes():
            os.kill(pid, signal.SIGKILL)
        assert server.until_requests(CALLS, made.worker)
        assert not outlives(running, TIMEOUT)
        (session,) = made.user.sessions()
        assert len((session / "dataset.jsonl").read_text().splitlines()) == SUBTOPICS * PROMPTS

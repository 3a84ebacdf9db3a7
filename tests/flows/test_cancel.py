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

from tests.flows.command import (
    PREFECT,
    PROGRAM,
    TIMEOUT,
    User,
    config,
    model,
    outlives,
    prefect_server,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Model, Process

POOL = "machines"
SUBTOPICS, PROMPTS = 8, 5
CALLS = SUBTOPICS + 2 * SUBTOPICS * PROMPTS
"""For prompts and answers; the one for subtopics comes on top."""
SLOW_MS = 2500.0
"""So slow that a run is not done before it hears that it is cancelled."""


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


def test_runs_that_are_cancelled_in_either_way_are_resumed_to_the_same_dataset(tmp_path: Path) -> None:
    """The first one by the UI's button, a worker's resume of it by a command; the rest is resumed by hand."""
    with (
        prefect_server(tmp_path / "server") as url,
        machine(tmp_path / "machine", url) as made,
        model(latency_ms=SLOW_MS) as server,
    ):
        text = config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=4)
        made.user.write("config.toml", text)
        first = made.start()
        assert server.until_requests(CALLS // 5, made.worker)
        made.post(f"/flow_runs/{first}/set_state", state={"type": "CANCELLING"})
        keys = _keys_once_cancelled(made, server, first)
        (session,) = made.user.sessions()

        server.start(latency_ms=SLOW_MS)
        second = made.start(resume=session.name)
        assert server.until_requests(CALLS // 5, made.worker)
        assert made.user.run("flow-run", "cancel", second, program=PREFECT).code == 0
        keys += _keys_once_cancelled(made, server, second)
        assert len(keys) < CALLS

        # The rest in a moment.
        server.start()
        resumed = made.user.run("checkpoint", "resume", session.name, program=PROGRAM)
        assert resumed.code == 0, resumed.err
        assert [made.state(run) for run in (first, second)] == ["CANCELLED", "CANCELLED"]
        keys += [request["key"] for request in server.requests()]
        assert len(keys) == len(set(keys)) == CALLS + 1, "a call was paid for twice"
        assert made.user.sessions() == [session]
        undisturbed = User.made(tmp_path / "undisturbed", PREFECT_API_URL=url)
        undisturbed.write("config.toml", text)
        assert undisturbed.run().code == 0
        (other,) = undisturbed.sessions()
    datasets = [path / "dataset.jsonl" for path in (session, other)]
    assert datasets[0].read_bytes() == datasets[1].read_bytes()
    assert len(datasets[0].read_text().splitlines()) == SUBTOPICS * PROMPTS


def _keys_once_cancelled(made: Machine, server: Model, run: str) -> list[str]:
    """The keys of the calls that a run made until it was cancelled; it gave none up."""
    made.until_state(run, "CANCELLED")
    requests = server.requests()
    assert all(request["finished"] for request in requests), "a call was given up"
    return [request["key"] for request in requests]


def test_a_workers_run_outlives_the_api_and_leaves_in_time(tmp_path: Path) -> None:
    home = tmp_path / "server"
    with (
        prefect_server(home) as url,
        model(latency_ms=500.0) as server,
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


def test_a_container_that_is_stopped_waits_for_what_its_worker_leaves_behind(tmp_path: Path) -> None:
    """A shield, told to stop, tells its command, and ends after all below it with the command's exit code."""
    worker = """
        trap 'touch told; exit 3' TERM
        (trap '' TERM; touch left; until [ -e told ]; do sleep 0.01; done; sleep 0.3; echo done >left) &
        until [ -s left ]; do sleep 0.01; done
    """
    shield = User.made(tmp_path).start(
        "sh", "-c", worker, program=(sys.executable, "-m", "flows.process.end")
    )
    left = tmp_path / "work" / "left"
    until(left.exists, "what is left behind has begun")
    shield.send(signal.SIGTERM)
    assert shield.end().code == 3
    assert left.read_text() == "done\n"

"""What Prefect shows of a run and what it must not hold; servers that are not there, or no longer."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx

from tests.flows.command import TIMEOUT, config, flow_run_states, free_port, model, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Model, User

PLANTED = "planted-secret-123"
SUBTOPICS, PROMPTS = 4, 4
JOBS = SUBTOPICS * PROMPTS


def test_the_server_shows_every_pair_and_holds_no_secret(
    user: User, demo_model: Model, prefect_url: str, prefect_home: Path
) -> None:
    user.write("config.toml", config(demo_model.url, subtopics=SUBTOPICS, prompts=PROMPTS))
    known = {run["id"] for run in _all(prefect_url, "flow_runs")}
    for _ in range(2):
        ended = user.run(API_KEY=PLANTED, OPENAI_API_KEY=PLANTED, HF_TOKEN=PLANTED)
        assert (ended.code, ended.err) == (0, "")
    runs = [run for run in _all(prefect_url, "flow_runs") if run["id"] not in known]
    assert [run["state_name"] for run in runs] == ["Completed", "Completed"]
    assert all(re.fullmatch(r"dpo · Lighthouse keepers & the sea · session_\S+", run["name"]) for run in runs)
    runs.sort(key=lambda run: str(run["start_time"]))
    for run, state in zip(runs, ("Completed", "Cached"), strict=True):
        tasks = _all(prefect_url, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        assert {task["state_name"] for task in tasks} == {state}
        pairs = [task for task in tasks if task["task_key"].startswith("pairs-")]
        assert sorted(task["name"] for task in pairs) == sorted(f"job {job}" for job in range(JOBS))
        others = Counter(task["name"] for task in tasks if task not in pairs)
        assert others == Counter(
            ["subtopics", *(f"subtopic {number}" for number in range(SUBTOPICS)), "duplicates and shortages"]
        )

    with _suspicious_server() as (address, received):
        refused = user.run("--set", f"models.main.base_url={address}", API_KEY=PLANTED)
    assert received == [f"Bearer {PLANTED}"], "the key was not used"
    assert refused.code == 3
    assert "HTTP 401: wrong key: Bearer ***" in refused.err
    assert PLANTED not in refused.err

    places = [prefect_home, user.folder, user.home, user.folder.parent / "prefect"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert {"ledger.db", "prefect.db", "session.log", "dataset.jsonl"} <= {path.name for path in files}
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]


def test_a_server_that_is_not_there_is_named_before_anything_is_paid_for(
    lone_user: User, demo_model: Model
) -> None:
    lone_user.write("config.toml", config(demo_model.url))
    address = f"http://127.0.0.1:{free_port()}/api"
    ended = lone_user.run(PREFECT_API_URL=address)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith(f"vellumforge2: the Prefect server at {address} cannot be used: ")
    assert demo_model.stats()["requests"] == 0
    assert not lone_user.sessions()


def test_a_server_that_dies_costs_no_row_and_does_not_hold_up_the_end(lone_user: User) -> None:
    with model(latency_ms=300.0) as server:
        lone_user.write("config.toml", config(server.url, subtopics=2, prompts=3, concurrency=2))
        home = lone_user.folder / "output" / ".prefect"
        process = lone_user.start("--json")
        assert server.until_requests(2, process)
        (embedded,) = process.children()
        os.kill(embedded, signal.SIGKILL)
        ended = process.end()
    assert (ended.code, ended.summary["rows"]) == (0, 6)
    assert "Traceback" not in ended.err
    assert "Prefect's UI is behind" in " ".join(ended.err.split())
    (session,) = lone_user.sessions()
    assert len(rows_of(session)) == 6
    assert json.loads((session / "checkpoint.json").read_text())["current_phase"] == "complete"
    # The next run says what the dead server could not be told.
    assert flow_run_states(home) == ["RUNNING"]
    with model():
        assert lone_user.run().code == 0
    assert flow_run_states(home) == ["COMPLETED", "COMPLETED"]


@contextmanager
def _suspicious_server() -> Iterator[tuple[str, list[str]]]:
    """A model server that refuses every key and says which; its base URL and the keys that it was given."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.headers["authorization"])
            body = json.dumps({"error": {"message": f"wrong key: {received[-1]}"}}).encode()
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the library's name
            """Say nothing on the test's standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", received
        server.shutdown()


def _all(url: str, what: str, **filters: Any) -> list[dict[str, Any]]:
    """All runs of a kind that the filters let through."""
    found: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        while True:
            page = {**filters, "offset": len(found), "limit": 200}
            some = client.post(f"/{what}/filter", json=page).raise_for_status().json()
            if not some:
                return found
            found += some

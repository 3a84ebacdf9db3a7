"""Prefect's API goes away, hangs or refuses, at the start and in mid-run: the work does not depend on it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.flows.command import User, config, free_port, model, outlives, prefect_server, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.flows.command import Model

SUBTOPICS, PROMPTS = 20, 10
PAIRS = SUBTOPICS * PROMPTS
CALLS = 2 * PAIRS + SUBTOPICS
"""For the answers and for the prompts; those for subtopics come on top."""
END_SECONDS = 50.0
"""Less than the 60 s that Prefect's client waits for one request."""
REQUEST_SECONDS = {"PREFECT_API_REQUEST_TIMEOUT": "2"}
IS_BEHIND = "WARNING  Prefect's UI is behind"


@pytest.mark.parametrize("ways", [("hangs", "dies"), ("refuses",)], ids="-".join)
def test_a_run_outlives_the_api(tmp_path: Path, ways: Sequence[str]) -> None:
    """A server that hung goes on, and is there for the next run; one that died is not."""
    home = tmp_path / "server"
    with prefect_server(home, services=False) as url, model() as server:
        for how in ways:
            server.start(latency_ms=200.0)
            user = User.made(tmp_path / how, PREFECT_API_URL=url)
            text = config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=16)
            user.write("config.toml", text)
            process = user.start("--json")
            assert server.until_requests(CALLS // 3, process)
            with _broken(how, home, url):
                assert server.until_requests(CALLS, process)
                ended = process.end(timeout=END_SECONDS)
            assert (ended.code, ended.summary["rows"]) == (0, PAIRS), how
            assert ended.err.count(IS_BEHIND) == ended.err.count("WARNING") == 1, how
            assert "Traceback" not in ended.err, how
            (session,) = user.sessions()
            assert len(rows_of(session)) == PAIRS, how


@contextmanager
def _broken(how: str, home: Path, url: str) -> Iterator[None]:
    """The Prefect server with that home, broken while the block runs."""
    processes = User(home, home, {}).processes()
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGSTOP if how == "hangs" else signal.SIGKILL)
    try:
        if how == "refuses":
            assert not outlives(processes, END_SECONDS), "its port is still taken"
            with _answering(503, b"", urlsplit(url).port or 0):
                yield
        else:
            yield
    finally:
        if how == "hangs":
            for pid in processes:
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>somebody's page</html>", "what answers there is not Prefect's API"),
        (404, b"", "it answers HTTP 404: the URL of Prefect's API ends in /api"),
        (500, b"", "it answers HTTP 500"),
        (503, b"", "it does not answer within 2 s"),
    ],
)
def test_what_is_no_prefect_server_is_named_before_anything_is_paid_for(
    lone_user: User, demo_model: Model, status: int, body: bytes, reason: str
) -> None:
    with _answering(status, body) as address:
        _check_refused(lone_user, demo_model, address, reason, **REQUEST_SECONDS)


def test_a_server_that_wants_a_password_is_named_and_not_shown_one(tmp_path: Path, demo_model: Model) -> None:
    home = tmp_path / "server"
    with prefect_server(home, services=False, PREFECT_SERVER_API_AUTH_STRING="admin:right") as url:
        for number, variables in enumerate([{}, {"PREFECT_API_AUTH_STRING": "admin:wrong-one"}]):
            user = User.made(tmp_path / str(number), **variables)
            reason = "it does not let us in (HTTP 401): PREFECT_API_AUTH_STRING is missing or wrong"
            _check_refused(user, demo_model, url, reason)


def test_an_address_where_nobody_speaks_our_protocol(
    tmp_path: Path, demo_model: Model, prefect_url: str
) -> None:
    addresses = {
        prefect_url.replace("http:", "https:"): "[SSL: WRONG_VERSION_NUMBER] wrong version number",
        f"http://127.0.0.1:{free_port()}/api": "All connection attempts failed",
        prefect_url.removesuffix("/api"): "it answers HTTP 404: the URL of Prefect's API ends in /api",
        "nonsense": "Request URL is missing an 'http://' or 'https://' protocol.",
    }
    for number, (address, reason) in enumerate(addresses.items()):
        _check_refused(User.made(tmp_path / str(number)), demo_model, address, reason)
    hidden = f"http://someone:secret@127.0.0.1:{free_port()}/api"
    ended = User.made(tmp_path / "hidden").run("--demo", PREFECT_API_URL=hidden)
    assert ended.code == 2
    assert "secret" not in ended.err


def _check_refused(user: User, demo_model: Model, address: str, reason: str, **variables: str) -> None:
    user.write("config.toml", config(demo_model.url))
    ended = user.run(PREFECT_API_URL=address, **variables)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith(f"vellumforge2: the Prefect server at {address} cannot be used: {reason}")
    assert "wrong-one" not in line
    assert demo_model.stats()["requests"] == 0
    assert not user.sessions()


@contextmanager
def _answering(status: int, body: bytes, port: int = 0) -> Iterator[str]:
    """A server that gives everybody the same answer; the URL of its API."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_GET  # noqa: N815 - the library's names

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the library's name
            """Say nothing on the test's standard error."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()

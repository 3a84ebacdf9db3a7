"""The embedded server: it answers us alone, ends with us, and records every task run.

Each start of a server costs seconds: two here at once, one each for a parent that is killed, one that is
told to end, and a flow.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.process.server import EmbeddedServer, EmbeddedServerError
from flows.process.settings import configured_api_url, set_defaults
from tasks.core.errors import UsageError

ROOT = Path(__file__).parents[2]
GONE_WITHIN_MS = 5_000


@pytest.fixture(autouse=True)
def plain_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without Prefect settings, in an empty folder; what a test sets is undone."""
    for name in [*os.environ]:
        if name.upper().startswith("PREFECT_") or name.upper() in {"DO_NOT_TRACK", "NO_PROXY"}:
            monkeypatch.delenv(name)
    for folder in ("user", "work"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path / "work")


def run(script: str, *arguments: str, stdin: str = "") -> str:
    """The output of a helper script that must end well."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    return subprocess.run(command, input=stdin, text=True, check=True, stdout=subprocess.PIPE).stdout


def status(url: str, path: str) -> int:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", f"/api{path}")
        return connection.getresponse().status
    finally:
        connection.close()


def test_two_servers_on_one_new_home_answer_and_leave_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with EmbeddedServer(home) as first, EmbeddedServer(home) as second:
        urls = [first.wait_ready(), second.wait_ready()]
        pids = [first.pid, second.pid]
        for url in urls:
            assert status(url, "/health") == HTTPStatus.OK
            assert status(url, "/admin/settings") == HTTPStatus.UNAUTHORIZED
            # A server on all addresses would answer here too.
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", urlsplit(url).port or 0), timeout=5)
        assert urls[0] != urls[1]
    for pid, url in zip(pids, urls, strict=True):
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)
        with pytest.raises(ConnectionRefusedError):
            status(url, "/health")
    assert not (tmp_path / "user" / ".prefect").exists()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waiting for a process of others needs Linux")
def test_the_server_ends_with_its_parent_and_no_other_does(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with EmbeddedServer(home) as others:
        url = others.wait_ready()
        for signal_number, when in (
            (signal.SIGKILL, "ready"),
            (signal.SIGKILL, "starting"),
            (signal.SIGTERM, "starting"),
        ):
            command = [sys.executable, str(Path(__file__).with_name("_parent.py")), str(home), when]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
                assert parent.stdout is not None
                server = os.pidfd_open(int(parent.stdout.readline()))
                try:
                    poll = select.poll()
                    poll.register(server, select.POLLIN)
                    assert not poll.poll(0), "it must run before its parent ends"
                    parent.send_signal(signal_number)
                    assert poll.poll(GONE_WITHIN_MS), f"the server outlived its parent, which was {when}"
                    assert status(url, "/health") == HTTPStatus.OK
                finally:
                    os.close(server)
            assert parent.returncode == -signal_number, when


def test_every_task_run_is_recorded_as_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy for the world outside, at an address where nothing listens.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    answers = json.loads(run("_quick_flow.py", str(tmp_path / "home"), "30"))
    assert answers == [[True, {"Completed": 30}], [True, {"Cached": 30}]]
    assert (tmp_path / "home" / "prefect.db").exists()
    assert not [*(tmp_path / "user").iterdir()]


def test_a_server_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "prefect.db").write_text("this is no database " * 100)
    with EmbeddedServer(tmp_path / "home") as server:
        with pytest.raises(
            EmbeddedServerError, match=r"not a database.*server\.log.*PREFECT_API_URL"
        ) as error:
            server.wait_ready()
        assert "\n" not in str(error.value)
        assert server.pid is None


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    home = tmp_path / "a?b#c%41&d: é"
    with EmbeddedServer(home) as server:
        server.wait_ready()
    assert (home / "prefect.db").stat().st_size
    assert not (tmp_path / "a").exists()


def test_a_home_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="cannot start the embedded Prefect server"):
        EmbeddedServer(tmp_path / "file" / "home").start()


def test_the_client_keeps_the_hosts_that_need_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    assert EmbeddedServer(tmp_path).client_settings["NO_PROXY"] == "intranet,127.0.0.1"


def test_a_configured_server_is_found_where_prefect_finds_it(tmp_path: Path) -> None:
    (tmp_path / "user" / ".prefect").mkdir()
    (tmp_path / "user" / ".prefect" / "profiles.toml").write_text(
        'active = "mine"\n'
        '[profiles.mine]\nPREFECT_API_URL = "http://profile/api"\n'
        '[profiles.none]\nPREFECT_LOGGING_LEVEL = "INFO"\n'
    )
    files = {
        "pyproject.toml": '[tool.prefect.api]\nurl = "http://pyproject/api"\n',
        "prefect.toml": '[api]\nurl = "http://toml/api"\n',
        ".env": "PREFECT_API_URL=http://dotenv/api\n",
    }
    for modified, (name, text) in enumerate(files.items()):
        folder = tmp_path / f"only {name}"
        folder.mkdir()
        (folder / name).write_text(text)
        os.utime(folder / name, (modified, modified))
    for name, text in files.items():
        Path(name).write_text(text)

    here = str(tmp_path)
    cases: list[tuple[str, dict[str, str], str | None]] = [
        (here, {}, "http://profile/api"),
        (here, {"PREFECT_PROFILE": "none"}, None),
        (here, {"PREFECT_PROFILE": "missing"}, None),
        (here, {"PREFECT_HOME": str(tmp_path / "other")}, None),
        (here, {"PREFECT_PROFILES_PATH": str(tmp_path / "nowhere.toml")}, None),
        (str(tmp_path / "only pyproject.toml"), {}, "http://pyproject/api"),
        (str(tmp_path / "only prefect.toml"), {}, "http://toml/api"),
        (str(tmp_path / "only .env"), {}, "http://dotenv/api"),
        (str(tmp_path / "work"), {}, "http://dotenv/api"),
        (str(tmp_path / "work"), {"PREFECT_API_URL": "http://environment/api"}, "http://environment/api"),
        (here, {"prefect_api_url": "http://lower/api"}, "http://lower/api"),
    ]
    questions = [{"folder": folder, "environment": environment} for folder, environment, _ in cases]
    answers = json.loads(run("_configured.py", stdin=json.dumps(questions)))
    assert answers == [[expected, expected] for _, _, expected in cases]


def test_settings_that_are_no_toml_are_the_users_mistake() -> None:
    Path("prefect.toml").write_text("[api\n")
    with pytest.raises(UsageError, match=r"prefect\.toml"):
        configured_api_url()


@pytest.mark.parametrize(
    ("configured", "home"),
    [
        ({}, "ours"),
        ({"PREFECT_API_URL": "http://somewhere/api"}, None),
        ({"PREFECT_HOME": "/theirs"}, "/theirs"),
    ],
)
def test_the_home_is_ours_only_when_nothing_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: dict[str, str], home: str | None
) -> None:
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy() | configured)
    set_defaults(tmp_path / "ours")
    assert os.environ.get("PREFECT_HOME") == (str(tmp_path / home) if home else None)


def test_what_the_user_set_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ["PREFECT_RESULTS_DEFAULT_SERIALIZER"] = "compressed/json"
    os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    Path("prefect.toml").write_text("[server]\nanalytics_enabled = true\n")
    set_defaults(tmp_path)
    assert os.environ["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "compressed/json"
    assert "PREFECT_SERVER_ANALYTICS_ENABLED" not in os.environ
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in os.environ
    assert os.environ["DO_NOT_TRACK"] == "1"

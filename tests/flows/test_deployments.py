"""The README's section on Prefect, done word for word with real processes; the deployments' parameters."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx
import pytest

from flows.process.settings import DEFAULTS, variable_of
from tasks.core.config.load import load_config
from tasks.core.config.settings import Config, settings
from tasks.core.errors import ConfigError
from tests.flows.command import (
    PREFECT,
    PROGRAM,
    ROOT,
    TIMEOUT,
    User,
    config,
    free_port,
    healthy,
    model,
    rows_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.flows.command import Ended, Model

INSTALLED = (str(Path(sys.executable).with_name("prefect")),)
SERVE = (sys.executable, "-m", "deployments.serve")
README_ADDRESS = "127.0.0.1:4200"


def commands() -> list[list[str]]:
    """The commands of the README's section, in its order, each as words."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"## In Prefect\n.*?```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


@dataclass(frozen=True)
class Clone:
    """A fresh clone with a Prefect server at work, as the README makes them.

    Attributes:
        user: Who works there.
        url: The API of the server.
        ran: The README's other commands, by their first two words after `prefect`, as they ended.
        worker: The README's worker.
    """

    user: User
    url: str
    ran: dict[str, Ended]
    worker: subprocess.Popen[bytes]

    def prefect(self, *words: str) -> Ended:
        """Run Prefect's command line to its end."""
        return self.user.run(*words, program=PREFECT[:3])

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a further worker, as the README says it."""
        (words,) = (words for words in commands() if words[:2] == ["prefect", "worker"])
        with (self.user.folder.parent / "output.log").open("a") as output:
            return stays(self.user, INSTALLED, words[1:], output)

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment; returns its id."""
        ended = self.prefect("deployment", "run", deployment, "--params", json.dumps(parameters))
        assert ended.code == 0, ended
        return str(self.flow_runs()[-1]["id"])

    def until_state(self, run: str, state: str) -> str:
        """Wait until a run is in that state; returns the state's message."""
        found: list[dict[str, Any]] = []

        def is_so() -> bool:
            found[:] = [known for known in self.flow_runs() if known["id"] == run]
            return bool(found[0]["state_type"] == state)

        until(is_so, f"the run is {state}")
        return str(found[0]["state"]["message"])

    def flow_runs(self, name: str = "generate") -> list[dict[str, Any]]:
        """The flow runs of a flow, oldest first."""
        wanted = {"flows": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC"}
        reply = httpx.post(f"{self.url}/flow_runs/filter", json=wanted, timeout=TIMEOUT, trust_env=False)
        found: list[dict[str, Any]] = reply.raise_for_status().json()
        return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, served_model: Model) -> Iterator[Clone]:
    """The README's commands, but for the last one; with this port in place of the usual one."""
    where = tmp_path_factory.mktemp("clone")
    port = free_port()
    home = where / "prefect"
    variables = {variable_of(name): value for name, value in DEFAULTS.items()}
    user = User.made(
        where,
        **variables,
        PYTHONPATH=str(where / "work"),
        PREFECT_HOME=str(home),
        PREFECT_SERVER_API_PORT=str(port),
        PREFECT_SERVER_REGISTER_BLOCKS_ON_START="false",
        PREFECT_UI_STATIC_DIRECTORY=str(where / "ui"),
        PREFECT_WORKER_QUERY_SECONDS="1",
        PREFECT_RUNNER_POLL_FREQUENCY="1",
        DO_NOT_TRACK="1",
    )
    for name in ("flows", "tasks", "deployments"):
        shutil.copytree(ROOT / name, user.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", user.folder)
    user.write("config.toml", config(served_model.url))
    ran: dict[str, Ended] = {}
    server = worker = None
    with (where / "output.log").open("w") as output:
        try:
            for words in commands()[:-1]:
                here = [word.replace(README_ADDRESS, f"127.0.0.1:{port}") for word in words]
                if here[0] == "export":
                    name, _, value = here[1].partition("=")
                    user = User(user.home, user.folder, {**user.variables, name: value})
                    continue
                assert here[0] == "prefect"
                name = " ".join(here[1:3])
                if name == "server start":
                    server = stays(user, INSTALLED, here[1:], output)
                    until(lambda: healthy(port), "the server's start")
                elif name == "worker start":
                    worker = stays(user, INSTALLED, here[1:], output)
                else:
                    ran[name] = user.run(*here[1:], program=INSTALLED)
                    assert ran[name].code == 0, ran[name]
            assert worker is not None
            yield Clone(user, user.variables["PREFECT_API_URL"], ran, worker)
        finally:
            for pid in user.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in (server, worker):
                if process is not None:
                    process.wait()
            until(lambda: not user.processes(), "the end of all processes")


def stays(
    user: User, program: Sequence[str], words: Sequence[str], output: IO[str]
) -> subprocess.Popen[bytes]:
    """Start what goes on until it is told to end, writing there: nobody would empty a pipe."""
    return subprocess.Popen(
        [*program, *words],
        cwd=user.folder,
        env=user.environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def served_model() -> Iterator[Model]:
    """The model server that the clone's configuration names."""
    with model() as server:
        yield server


LANTERN_CALLS = 1 + 8 + 2 * 8 * 5
SLOW_MS = 2500.0
"""So slow that a run is not done before what is done to it."""


def lanterns(clone: Clone, model: Model, topic: str) -> str:
    """Write a configuration of so many calls, about a topic that nobody has paid for; returns its name."""
    # The most that a worker allows: on a busy machine, calls in flight take longer than they should.
    grace = "[execution]\ngrace_seconds = 20\n"
    text = config(model.url, subtopics=8, prompts=5, concurrency=4, more=grace)
    return clone.user.write(f"{topic}.toml", text.replace("Lighthouse keepers & the sea", topic)).name


def inline(url: str, **main: Any) -> dict[str, Any]:
    """A configuration as a parameter, with a template that looks like one of Prefect's own."""
    table = {"base_url": url, "rate_limit_per_minute": 0}
    return {
        "generation": {
            "main_topic": "Tides",
            "num_subtopics": 2,
            "num_prompts_per_subtopic": 2,
            "dataset_mode": "dpo",
        },
        "models": {
            "main": table | {"model_name": "strong"} | main,
            "rejected": {**table, "model_name": "weak"},
        },
        "prompt_templates": {"rejected_generation": "Say something, briefly: {{.Prompt}}"},
        "output": {"folder": "inline"},
    }


def test_the_readmes_commands_make_a_dataset(clone: Clone) -> None:
    last = commands()[-1]
    ended = clone.prefect(*last[1:])
    assert ended.code == 0, ended
    (run,) = clone.flow_runs()
    assert (run["state_name"], run["parameters"]["config"]) == ("Completed", "config.toml")
    (session,) = clone.user.sessions()
    assert len(rows_of(session)) == 6


def test_deploying_asks_nothing_in_a_terminal_and_without_a_pool_says_what_is_missing(clone: Clone) -> None:
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) != 0)"
    in_terminal = clone.user.run(
        *INSTALLED, "deploy", "--all", program=(sys.executable, "-c", script), TERM="dumb"
    )
    assert in_terminal.code == 0, in_terminal
    assert "?" not in in_terminal.out
    with httpx.Client(base_url=clone.url, timeout=TIMEOUT, trust_env=False) as client:
        (made,) = client.post("/automations/filter", json={}).raise_for_status().json()
        client.patch(f"/automations/{made['id']}", json={"enabled": False}).raise_for_status()
        unasked = clone.prefect("--no-prompt", "deploy", "--all")
        assert unasked.code == 0
        # Made once, and what somebody switched off stays so.
        (known,) = client.post("/automations/filter", json={}).raise_for_status().json()
        assert (known["id"], known["enabled"]) == (made["id"], False)
        client.patch(f"/automations/{made['id']}", json={"enabled": True}).raise_for_status()
    for name in ("generate/generate", "generate-shard/generate-shard", "clean/clean"):
        assert f"'{name}' successfully" in " ".join(unasked.out.split())


def test_wrong_settings_fail_with_the_message_of_the_command_line(clone: Clone, served_model: Model) -> None:
    before = served_model.stats()["requests"]
    given = inline(served_model.url, base_url="ftp://models", headers={"X-Key": "planted-123"})
    with pytest.raises(ConfigError) as known:
        load_config(None, table=given, environ={})
    for message in (
        "models.main.base_url: is 'ftp://models'; must start with http:// or",
        "models.main.headers: is a table; must not hold a secret in X-Key",
    ):
        assert message in str(known.value)
    clone.prefect(
        "deployment", "run", "generate/generate", "--watch", "--params", json.dumps({"settings": given})
    )
    run = clone.flow_runs()[-1]
    assert (run["state_name"], run["state"]["message"]) == ("Failed", str(known.value))
    assert served_model.stats()["requests"] == before
    assert not clone.user.sessions("inline")


def test_what_no_form_would_send_is_not_even_begun(clone: Clone) -> None:
    known = len(clone.flow_runs())
    for wrong, message in (
        ({"api_key": "planted-123"}, "Additional properties are not allowed ('api_key' was unexpected)"),
        ({"structured_output": "yes"}, "'yes' is not one of ['auto', 'json_schema', 'json_object', 'off']"),
    ):
        given = {"settings": inline("http://127.0.0.1:1/v1", **wrong)}
        refused = clone.prefect("deployment", "run", "generate/generate", "--params", json.dumps(given))
        said = " ".join((refused.out + refused.err).split())
        assert refused.code != 0
        assert message in said
        assert "planted-123" not in said
    assert len(clone.flow_runs()) == known


def test_whatever_becomes_of_a_worker_its_run_is_shown_so_and_resumed(
    clone: Clone, served_model: Model
) -> None:
    """It is told to stop, killed alone, and killed with all that it started, as on a machine that dies."""
    file = lanterns(clone, served_model, "Lanterns")
    keys: list[str] = []
    worker = clone.worker
    session = ""
    for number in (signal.SIGTERM, signal.SIGKILL):
        served_model.start(latency_ms=SLOW_MS)
        run = clone.start_run("generate/generate", config=file, resume=session)
        until(lambda: served_model.stats()["requests"] >= LANTERN_CALLS // 6, "calls of a worker's run")
        worker.send_signal(number)
        assert "stopped by SIGTERM" in clone.until_state(run, "CANCELLED")
        worker.wait()
        until(partial(is_gone, clone.user, run), "the end of the run's processes")
        requests = served_model.requests()
        assert all(request["finished"] for request in requests), "a call was given up"
        keys += [request["key"] for request in requests]
        session = clone.user.sessions()[-1].name
        worker = clone.start_worker()

    shorten_patience(clone.url)
    served_model.start(latency_ms=SLOW_MS)
    run = clone.start_run("generate/generate", config=file, resume=session)
    until(lambda: served_model.stats()["requests"] >= LANTERN_CALLS // 6, "calls of a worker's run")
    for pid in (worker.pid, *processes_of(clone.user, run)):
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    assert "has not said for 90 seconds that it is alive" in clone.until_state(run, "CRASHED")
    requests = served_model.requests()
    keys += [request["key"] for request in requests if request["finished"]]
    in_flight = len(requests) - sum(request["finished"] for request in requests)

    served_model.start()
    ended = clone.user.run("checkpoint", "resume", session, "--config", file, program=PROGRAM)
    assert ended.code == 0, ended.err
    keys += [request["key"] for request in served_model.requests()]
    assert len(set(keys)) == LANTERN_CALLS
    assert len(keys) - len(set(keys)) <= in_flight <= 8
    assert len(rows_of(clone.user.sessions()[-1])) == 40


def processes_of(user: User, run: str) -> list[int]:
    """The processes that a worker started for a flow run."""
    mark = f"PREFECT__FLOW_RUN_ID={run}".encode()
    found = []
    for pid in user.processes():
        with suppress(OSError):  # it ended meanwhile
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def is_gone(user: User, run: str) -> bool:
    """Whether there is no process of a flow run any more."""
    return not processes_of(user, run)


def shorten_patience(url: str) -> None:
    """Have the deployed automation wait for 15 seconds, and not for 90."""
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        (made,) = client.post("/automations/filter", json={}).raise_for_status().json()
        assert (made["name"], made["enabled"], made["trigger"]["within"]) == (
            "vellumforge-lost-runs",
            True,
            90,
        )
        wanted = {key: made[key] for key in ("name", "description", "actions")}
        trigger = {**made["trigger"], "within": 15}
        # A server that is busy says 503, and Prefect's own client asks again as well.
        changed = {**wanted, "trigger": trigger}
        until(lambda: client.put(f"/automations/{made['id']}", json=changed).is_success, "a short patience")


def test_what_is_served_leaves_the_pools_runs_alone_and_ends_its_own_in_order(
    clone: Clone, served_model: Model
) -> None:
    def pool_of(name: str) -> str | None:
        reply = httpx.get(f"{clone.url}/deployments/name/{name}", timeout=TIMEOUT, trust_env=False)
        return reply.raise_for_status().json()["work_pool_name"] if reply.is_success else ""

    served_model.start(latency_ms=SLOW_MS)
    with (clone.user.folder.parent / "served.log").open("w") as output:
        serving = stays(clone.user, SERVE, [], output)
    try:
        until(lambda: pool_of("clean/clean-served") is None, "the served deployments")
        assert [pool_of(name) for name in ("generate/generate", "clean/clean")] == ["vellumforge"] * 2
        file = lanterns(clone, served_model, "Lamps")
        run = clone.start_run("generate/generate-served", config=file)
        until(lambda: served_model.stats()["requests"] >= LANTERN_CALLS // 6, "calls of a served run")
        serving.send_signal(signal.SIGTERM)
        assert serving.wait() == 0, (clone.user.folder.parent / "served.log").read_text()
        clone.until_state(run, "CANCELLED")
        assert all(request["finished"] for request in served_model.requests()), "a call was given up"
    finally:
        served_model.start()


def test_serving_needs_a_server_and_says_so(lone_user: User) -> None:
    shutil.copy(ROOT / "prefect.yaml", lone_user.folder)
    ended = lone_user.run(program=SERVE)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "set PREFECT_API_URL" in line


def form_of(module: str, name: str) -> dict[str, Any]:
    """The schema of the parameters of a flow."""
    # Every worker reads this file, and one of them runs it: Prefect is not imported before.
    from prefect.utilities.callables import parameter_schema  # noqa: PLC0415

    return parameter_schema(getattr(import_module(module), name)).model_dump()


def test_the_form_shows_what_matters_first_and_selects_for_the_modes() -> None:
    form = form_of("flows.generate", "generate")
    names = sorted(form["properties"], key=lambda name: int(form["properties"][name]["position"]))
    assert names == [
        "config",
        "settings",
        "prompts",
        "skip_bad",
        "resume",
        "accept_changes",
        "trust_session",
        "only",
        "further",
        "fresh",
        "output",
        "env_file",
        "overrides",
    ]
    assert all(field["description"] for field in form["properties"].values())
    assert [kind.get("$ref") for kind in form["properties"]["settings"]["anyOf"]] == [
        "#/definitions/Config",
        None,
    ]
    sections = {name: section["properties"] for name, section in form["definitions"].items()}
    assert sections["Generation"]["dataset_mode"]["enum"] == ["sft", "dpo", "kto", "mo-dpo"]
    in_order = sorted(sections["Generation"], key=lambda name: int(sections["Generation"][name]["position"]))
    assert in_order[:4] == ["main_topic", "num_subtopics", "num_prompts_per_subtopic", "dataset_mode"]
    assert sections["Judge"]["enabled"]["position"] == 0
    assert sections["ModelConfig"]["use_json_mode"]["title"] == "Use JSON mode"
    assert list(Config.model_fields)[:2] == ["generation", "models"]
    for key in settings():
        # What a setting means is said in the form too.
        assert settings()[key].description, key
    assert set(form_of("flows.clean", "clean")["properties"]) >= {"older_than", "keep_last", "dry_run"}


def test_a_form_that_sends_every_default_is_like_one_that_sends_none() -> None:
    from prefect.utilities.schema_tools.validation import ValidationError, validate  # noqa: PLC0415 - as above

    given = inline("http://127.0.0.1:1/v1")
    short = load_config(None, table=given, environ={}).config
    full = json.loads(short.model_dump_json())
    validate({"settings": full}, form_of("flows.generate", "generate"), raise_on_error=True)
    again = load_config(None, table=full, environ={}).config
    assert again == short
    assert again.model_dump(exclude_unset=True)["models"] == short.model_dump(exclude_unset=True)["models"]
    with pytest.raises(ValidationError, match="'main_topic' is a required property"):
        validate(
            {"settings": {**given, "generation": {"num_subtopics": 2, "num_prompts_per_subtopic": 1}}},
            form_of("flows.generate", "generate"),
            raise_on_error=True,
        )

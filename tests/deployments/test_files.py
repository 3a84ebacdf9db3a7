"""The files of deployments/: settings that Prefect knows, and files that linters pass."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from deployments.make_secrets import NAMES
from flows.process.settings import DEFAULTS, variable_of
from tests.deployments.compose import FILE, FOLDER, RefusedError, document, parts
from tests.flows.command import ROOT

SECRETS = {name: f"secret-of-{name.lower()}" for name in NAMES}
OURS = {"migrate", "api", "services", "deploy", "worker"}
OTHERS = {"postgres", "redis"}

# A process of its own: settings are read once, when Prefect is imported.
PARSED = """
import json, os, sys
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields
from prefect_redis.client import RedisMessagingSettings
plain, known = dict(os.environ), _get_settings_fields(Settings)
def read(part, variables):
    os.environ.clear()
    os.environ.update(plain | variables)
    settings, redis, found = Settings(), RedisMessagingSettings(), {}
    for name in variables:
        own = name.removeprefix("PREFECT_REDIS_MESSAGING_").lower()
        if own != name.lower():
            assert hasattr(redis, own), f"{part}: {name} is no setting of prefect-redis"
            continue
        assert name in known, f"{part}: {name} is no setting of Prefect"
        value = settings
        for step in known[name].accessor.split("."):
            value = getattr(value, step)
        found[name] = str(value)
    return found
json.dump({part: read(part, variables) for part, variables in json.load(sys.stdin).items()}, sys.stdout)
"""


def as_prefect_reads(variables: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """What becomes of each part's variables, by name, or an error that says which one is wrong."""
    own = {
        part: {name: value for name, value in declared.items() if name.startswith("PREFECT_")}
        for part, declared in variables.items()
    }
    ended = subprocess.run(
        [sys.executable, "-c", PARSED],
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        input=json.dumps(own),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, dict[str, str]] = json.loads(ended.stdout)
    return found


def run(tool: str, *arguments: str) -> str:
    """What a linter says: of this environment when it is installed there, else of the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [tool, *arguments],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


def test_every_variable_of_every_part_is_a_setting_with_a_value_that_it_takes() -> None:
    of_server = {name: value or "" for name, value in dotenv_values(FOLDER / "server.env").items()}
    of_parts = {name: parts(SECRETS)[name].environment for name in sorted(OURS)}
    found = as_prefect_reads({"server.env": of_server, **of_parts})
    assert all(found[name] for name in OURS)
    read = found["server.env"]
    assert read["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE"] == "200"
    assert read["PREFECT_SERVER_EVENTS_RETENTION_PERIOD"] == "2 days, 0:00:00"
    assert read["PREFECT_SERVER_ANALYTICS_ENABLED"] == "False"


def test_each_setting_says_why_it_is_there() -> None:
    before = ""
    for line in (FOLDER / "server.env").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert before, f"{line} has neither a comment above it nor a neighbour that has"
        before = line


def test_a_server_for_many_records_as_the_embedded_one_does() -> None:
    variables = dotenv_values(FOLDER / "server.env")
    for name, value in DEFAULTS.items():
        if name.startswith(("server.", "cloud.", "telemetry.")):
            assert variables[variable_of(name)] == value


def test_the_parts_are_those_that_docker_needs() -> None:
    assert set(parts(SECRETS)) == OURS | OTHERS


@pytest.mark.parametrize("missing", NAMES)
def test_nothing_starts_without_its_secrets(missing: str) -> None:
    with pytest.raises(RefusedError, match=f"{missing}: run python3 -m deployments.make_secrets"):
        document(SECRETS | {missing: ""})


def test_nothing_is_published_but_the_api_on_loopback() -> None:
    published = {name: part.declared.get("ports") for name, part in parts(SECRETS).items()}
    assert {name: ports for name, ports in published.items() if ports} == {"api": ["127.0.0.1:4200:4200"]}
    found = document(SECRETS)
    assert found["networks"]["inside"] == {"internal": True}
    for name in OTHERS:
        assert found["services"][name]["networks"] == ["inside"]


def test_every_part_is_held_within_bounds() -> None:
    for name, part in parts(SECRETS).items():
        declared = part.declared
        assert set(declared["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert declared["cap_drop"] == ["ALL"], name
        assert declared["restart"] == ("no" if name in {"migrate", "deploy"} else "unless-stopped")
        if name in OTHERS:
            assert re.search(r":\d+\.\d+(\.\d+)?-bookworm$", declared["image"]), "a pinned tag"
        else:
            assert declared["read_only"] is True


def test_what_answers_is_asked_whether_it_is_well() -> None:
    assert {name for name, part in parts(SECRETS).items() if "healthcheck" in part.declared} == {
        "postgres",
        "redis",
        "api",
        "worker",
    }


def test_no_password_is_an_argument() -> None:
    for part in parts(SECRETS).values():
        assert not [word for word in part.command for secret in SECRETS.values() if secret in word]


def test_a_worker_knows_the_ledgers_password_alone_and_no_other_database() -> None:
    worker = parts(SECRETS)["worker"].environment
    known = {name for name, secret in SECRETS.items() if any(secret in value for value in worker.values())}
    assert known == {"LEDGER_DATABASE_PASSWORD", "API_PASSWORD"}


def test_compose_follows_its_specification() -> None:
    assert run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)) == ""


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run("hadolint", str(FOLDER / "Dockerfile")) == ""


def test_the_image_holds_the_versions_of_the_lock() -> None:
    image, whole = pinned(FOLDER / "requirements.lock"), pinned(ROOT / "requirements.lock")
    assert {"prefect", "asyncpg", "prefect-redis"} <= set(image)
    assert {name: version for name, version in image.items() if whole.get(name) != version} == {}
    assert not {"pytest", "mypy", "ruff", "datasets"} & set(image)


def pinned(lock: Path) -> dict[str, str]:
    """Name to version, of every package in a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def test_everything_that_the_dockerfile_copies_is_let_in_and_nothing_else() -> None:
    rules = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"
    ]
    assert rules[0] == "*"
    copied = re.findall(
        r"^COPY (?!--from)(\S+)", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {f"!{name}" for name in copied} <= set(rules)
    assert not [rule for rule in rules if re.search(r"^!.*(\.env|output|\.git)", rule)]


def make(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the script, with nothing but the standard library."""
    command = [sys.executable, "-S", "-m", "deployments.make_secrets", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_secrets_are_long_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    ended = make(path)
    assert ended.returncode == 0, ended.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = dotenv_values(path)
    assert set(first) == set(NAMES)
    assert len({*first.values()}) == len(NAMES)
    assert all(len(value or "") >= 48 for value in first.values())
    assert not [value for value in first.values() if (value or "") in ended.stdout]

    again = make(path)
    assert again.returncode == 2
    assert again.stderr.startswith(f"{path} is there already and was left as it is")
    assert dotenv_values(path) == first


def test_secrets_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    ended = make(tmp_path / "nowhere" / ".env")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{tmp_path}/nowhere/.env cannot be written: No such file or directory\n"


def test_git_never_takes_the_secrets() -> None:
    ended = subprocess.run(["git", "check-ignore", "--quiet", "deployments/.env"], cwd=ROOT, check=False)
    assert ended.returncode == 0

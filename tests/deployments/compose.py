"""`compose.yaml` as docker compose reads it: variables put in, env files merged under the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values
from ruamel.yaml import YAML

from tests.flows.command import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = ROOT / "deployments"
FILE = FOLDER / "compose.yaml"

# `$$`, `$NAME`, `${NAME}`, and `${NAME:-default}` or `${NAME:?message}` with or without the colon.
_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<bare>\w+)|\{(?P<name>\w+)(?:(?P<rule>:?[-?])(?P<word>[^}]*))?\})"
)


class RefusedError(Exception):
    """Compose would not start: a variable is missing that the file requires."""


@dataclass(frozen=True)
class Part:
    """One service: what runs, and with which environment."""

    name: str
    command: list[str]
    environment: dict[str, str]
    declared: dict[str, Any]


def put_in(value: Any, variables: Mapping[str, str]) -> Any:
    """The value with its variables put in, and `$$` as a dollar, however deep they stand.

    Raises:
        RefusedError: One is required and missing.
    """
    if isinstance(value, dict):
        return {key: put_in(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [put_in(item, variables) for item in value]
    return _VARIABLE.sub(lambda found: _value(found, variables), value) if isinstance(value, str) else value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["dollar"]:
        return "$"
    value = variables.get(found["bare"] or found["name"], "")
    if value:
        return value
    if (found["rule"] or "").endswith("?"):
        raise RefusedError(f"{found['name']}: {found['word']}")
    return found["word"] or ""


def document(variables: Mapping[str, str]) -> dict[str, Any]:
    """The whole file, for a shell or an `.env` with these variables."""
    read: dict[str, Any] = put_in(YAML(typ="safe").load(FILE.read_text(encoding="utf-8")), variables)
    return read


def parts(variables: Mapping[str, str]) -> dict[str, Part]:
    """The services by name; of env files, those that are required."""
    found = {}
    for name, declared in document(variables)["services"].items():
        environment: dict[str, str] = {}
        for file in declared.get("env_file", []):
            if isinstance(file, str):
                environment |= {key: value or "" for key, value in dotenv_values(FOLDER / file).items()}
        environment |= declared.get("environment", {})
        found[name] = Part(name, declared["command"], environment, declared)
    return found

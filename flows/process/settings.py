"""Prefect's settings for this process, made before Prefect is imported: it reads them once, at import.

What the user configured wins, wherever Prefect would find it: environment, `.env`, `prefect.toml`,
`pyproject.toml`, active profile. Importing `prefect.settings` to ask would cost a second and settle them.
"""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from tasks.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Setting to value. The variable is the name in capitals after PREFECT_, with `_` for the dots.
DEFAULTS: Mapping[str, str] = {
    # Nothing is sent to the makers of Prefect: not by a server started here nor by its pages ...
    "server.analytics_enabled": "false",
    "server.ui.show_promotional_content": "false",
    # ... nor as spans and machine figures that only their cloud collects.
    "cloud.enable_orchestration_telemetry": "false",
    "telemetry.enable_resource_metrics": "false",
    # One transaction for many task runs: by default a server writes each event on its own, records about
    # 30 runs a second on SQLite and drops what queues up behind them.
    "server.services.task_run_recorder.batch_size": "200",
    # With batches, the last task runs of a flow wait for this: whole seconds, and never 0 (a busy loop).
    "server.services.task_run_recorder.flush_interval": "1",
    # A run is alive as long as it says so: what is silent for a while is marked as crashed by the automation
    # of deployments/automations.yaml. Seconds; Prefect takes no fewer.
    "flows.heartbeat_frequency": "30",
    # Library code logs outside of flows too; that is no mistake to warn about.
    "logging.to_api.when_missing_flow": "ignore",
    # A result is stored only by a task that says so, and never pickled: reading a pickle runs what it holds.
    "results.persist_by_default": "false",
    "results.default_serializer": "json",
}

# The same, unless the user asks for a level of logging.
QUIET: Mapping[str, str] = {
    # The terminal belongs to the program's own reports: a Ctrl+C alone would print two errors for each task
    # run in flight. The logs of runs still reach the server.
    "logging.handlers.console.level": "CRITICAL",
    "internal.logging_level": "CRITICAL",
    # "Finished in state Completed()", sent once for every task run, is what the task run itself records.
    "logging.loggers.prefect_task_runs.level": "WARNING",
}


def set_defaults(home: Path) -> Path:
    """Set the settings that the user left open, as environment variables of this process.

    Without a configured server and without a PREFECT_HOME of the user's, PREFECT_HOME becomes `home`, so
    that the database, results and logs of the embedded server stay there and `~/.prefect` is not made.

    Args:
        home: The folder for the embedded server's data; need not exist.

    Returns:
        Prefect's home: the user's own, else `home`.

    Raises:
        UsageError: A file with Prefect settings cannot be read, or is not valid TOML.
    """
    sources = _Sources.read()
    defaults = DEFAULTS if sources.get("logging.level") else {**DEFAULTS, **QUIET}
    for name, value in defaults.items():
        if sources.get(name) is None:
            os.environ[variable_of(name)] = value
    # The client's own switch, honoured by other tools as well; it is no setting of Prefect's.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    own = sources.get("home")
    if not own and not sources.get("api.url"):
        os.environ["PREFECT_HOME"] = str(home.absolute())
    read_anew()
    return Path(own).expanduser() if own else home


def read_anew() -> None:
    """Have Prefect read its settings once more, where it is imported already and has read them."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - it is there, or not at all

        refresh_global_settings_context()


def configured_api_url() -> str | None:
    """The URL of the Prefect API that the user configured, or None when there is none.

    Raises:
        UsageError: A file with Prefect settings cannot be read, or is not valid TOML.
    """
    url = _Sources.read().get("api.url")
    return str(url) if url else None


@dataclass(frozen=True, slots=True)
class _Sources:
    """What the user configured, in Prefect's order: the variables, the tables, the active profile."""

    environment: Mapping[str, str | None]
    dotenv: Mapping[str, str | None]
    tables: tuple[Mapping[str, Any], ...]
    profile: Mapping[str, Any]

    @classmethod
    def read(cls) -> _Sources:
        environment = {name.upper(): value for name, value in os.environ.items()}
        dotenv = {name.upper(): value for name, value in dotenv_values(".env").items()}
        tables = (_toml(Path("prefect.toml")), _at(_toml(Path("pyproject.toml")), "tool.prefect") or {})
        return cls(environment, dotenv, tables, _active_profile(environment, dotenv, tables))

    def get(self, name: str) -> Any:
        """The value of a setting as the first source gives it, or None."""
        variable = variable_of(name)
        candidates = (
            self.environment.get(variable),
            self.dotenv.get(variable),
            *(_at(table, name) for table in self.tables),
            self.profile.get(variable),
        )
        return next((value for value in candidates if value is not None), None)


def _active_profile(
    environment: Mapping[str, str | None],
    dotenv: Mapping[str, str | None],
    tables: tuple[Mapping[str, Any], ...],
) -> Mapping[str, Any]:
    """The active profile, empty when the user made none: Prefect's own default names no server."""
    paths = (
        environment.get("PREFECT_PROFILES_PATH"),
        dotenv.get("PREFECT_PROFILES_PATH"),
        *(table.get("profiles_path") for table in tables),
    )
    home = Path(environment.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = _toml(Path(next(filter(None, paths), home / "profiles.toml")))
    active = environment.get("PREFECT_PROFILE") or profiles.get("active", "")
    profile: Mapping[str, Any] = profiles.get("profiles", {}).get(active, {})
    return profile


def variable_of(name: str) -> str:
    """The environment variable of a setting of Prefect's, which is named with dots."""
    return f"PREFECT_{name.upper().replace('.', '_')}"


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: Prefect's settings cannot be read there: {error}") from error


def _at(table: Mapping[str, Any], name: str) -> Any:
    """What stands at a dotted name in nested tables, or None."""
    value: Any = table
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value

"""What a run is given, read and checked before anything is created for it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.values import MOST
from tasks.core.secrets import Keys, read_env_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.config.models import Config

DEFAULT_ENV_FILE = ".env"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be generated, checked, with the secrets that it needs; nothing was created for it yet.

    Attributes:
        config: The configuration.
        keys: The API keys.
        text: The configuration file as read, "" when the settings did not come from one.
        overridden: Settings that the file does not hold, by dotted key.
        warnings: Accepted settings that have no effect.
    """

    config: Config
    keys: Keys
    text: str
    overridden: Mapping[str, Any]
    warnings: tuple[str, ...]


def take_order(
    config_file: str,
    settings: Config | None = None,
    *,
    env_file: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> Order:
    """Read and check everything that a run is given.

    Args:
        config_file: Path of the configuration file.
        settings: The configuration itself; then no file is read.
        env_file: Path of the file with API keys; None for `.env`, which may be missing.
        overrides: Settings by dotted key that win over the file and the environment.
        fresh: Whether a new seed is drawn.

    Raises:
        ConfigError: The configuration or the env file cannot be used.
    """
    text, overridden = "", dict(overrides or {})
    if settings is None:
        loaded = load_config(Path(config_file), overrides=overridden)
        settings, text, overridden = loaded.config, loaded.text, dict(loaded.overridden)
    if fresh:
        seed = 1 + secrets.randbelow(MOST)
        generation = settings.generation.model_copy(update={"seed": seed})
        settings = settings.model_copy(update={"generation": generation})
        overridden["generation.seed"] = seed
    keys = Keys(os.environ, read_env_file(Path(env_file or DEFAULT_ENV_FILE), required=env_file is not None))
    for model in (settings.models.main, settings.models.rejected, settings.models.judge):
        if model is not None:
            keys.for_model(model)
    return Order(settings, keys, text, overridden, rules.warnings(settings))

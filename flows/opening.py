"""What a run opens before its first stage and closes after its last: ledger, session, HTTP client."""

from __future__ import annotations

import os
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.values import MOST
from tasks.core.llm.database import ledger_url
from tasks.core.llm.ledger import Ledger
from tasks.core.run import open_run
from tasks.core.secrets import Keys, read_env_file
from tasks.core.session.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flows.console import Console
    from tasks.core.config.models import Config
    from tasks.core.run import Run
    from tasks.core.session.session import Session

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


@asynccontextmanager
async def opened(order: Order, console: Console) -> AsyncIterator[tuple[Run, Session]]:
    """Open the ledger, a new session folder and the HTTP client, and close them on leaving.

    Raises:
        LedgerError: The ledger cannot be opened.
        SessionError: The folder cannot be made.
    """
    config, progress = order.config, console.progress
    async with await Ledger.open(ledger_url(config)) as ledger:
        with open_session(config, progress, text=order.text, overridden=order.overridden) as session:
            settings = orjson.dumps(config.model_dump(mode="json")).decode()
            await ledger.add_session(session.name, session.id, settings)
            async with open_run(
                config, order.keys, session=session.name, ledger=ledger, stop=console.stop, progress=progress
            ) as run:
                yield run, session

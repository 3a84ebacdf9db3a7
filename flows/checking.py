"""What a run is given, read and checked before anything is created for it."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flows.request import OUTPUT_FOLDER
from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.settings import Config, Output
from tasks.core.config.values import MOST
from tasks.core.errors import UsageError
from tasks.core.files import check_folder
from tasks.core.ledger.schema import ledger_url, usual_url
from tasks.core.portable.fetching import fetch_session
from tasks.core.portable.store import check_store
from tasks.core.questions import models_of
from tasks.core.rows.transformed import find_mode
from tasks.core.secrets import Keys, read_env_file
from tasks.core.session.dataset import DATASET
from tasks.core.session.folder import check_name, find_session
from tasks.core.session.ledger import open_ledger
from tasks.core.session.record import read_record, restore_record
from tasks.core.session.resuming import find_resumption, with_seed_of
from tasks.core.session.retrying import read_only
from tasks.core.transform.reading import Source, check_input
from tasks.core.transform.session import REASONING, check_outputs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from pydantic import SecretStr
    from sqlalchemy import URL

    from flows.request import ConfigRequest, FlowRequest, TransformRequest
    from tasks.core.session.resuming import Resumption
    from tasks.core.session.retrying import Only
    from tasks.core.transform.reading import FirstPass

    Blocks = Callable[[Collection[str]], Awaitable[Mapping[str, SecretStr]]]

DEFAULT_CONFIG = "config.toml"
DEFAULT_ENV_FILE = ".env"


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """What is to be generated, checked, with the secrets that it needs; nothing was created for it yet.

    Attributes:
        config: The configuration.
        keys: The API keys.
        text: The configuration file as read, "" when the settings did not come from one.
        overridden: Settings that the file does not hold, by dotted key.
        warnings: Accepted settings that have no effect.
        resumption: The session to resume; None for a new one.
        accept_changes: Whether it is resumed although settings differ.
        only: Which failures of the session are asked again; None for all that is missing.
        further: Whether further samples are asked for in place of answers that cannot be used, where only
            those are missing.
    """

    config: Config
    keys: Keys
    text: str
    overridden: Mapping[str, Any]
    warnings: tuple[str, ...]
    resumption: Resumption | None = None
    accept_changes: bool = False
    only: Only | None = None
    further: bool = False


@dataclass(frozen=True, slots=True)
class CheckedTransform:
    """What is to be transformed, checked, with the secrets that it needs.

    Attributes:
        config: The configuration, with the settings of the mode.
        keys: The API keys.
        source: The input.
        first_pass: What a first pass over it found.
        outputs: The session's files that are handed out in the end, and where.
    """

    config: Config
    keys: Keys
    source: Source
    first_pass: FirstPass
    outputs: list[tuple[str, Path]]


Checked = TypeVar("Checked", CheckedRequest, CheckedTransform)


async def check_run(
    request: FlowRequest,
    settings: Config | Mapping[str, Any] | None = None,
    blocks: Blocks | None = None,
) -> CheckedRequest:
    """Read and check everything that a run is given.

    Args:
        request: What is asked for. Its `resume` stands above `generation.resume_from_session`.
        settings: The configuration itself; then no file is read. A table is checked like a file, under
            environment and overrides; a configuration is taken as it is.
        blocks: Reads Prefect's Secret blocks by their names; None where Prefect cannot be asked yet, and the
            keys that they hold are left out.

    Raises:
        ConfigError: The configuration or the env file cannot be used.
        UsageError: A key, or a variable that a header needs, is missing; there is no such session, or it was
            asked for together with a new seed; `only` cannot be read, or there is no session to resume.
        SessionError: The session cannot be read.
        LedgerError: The ledger, which knows a session without a record, cannot be opened.
    """
    resume, config_file = request.resume, request.config
    text, overridden, named = "", request.settings, read_only(request.only)
    if settings is None and resume and not config_file and not _has_default():
        settings = await _recorded(resume, overridden)
    elif settings is None and not config_file and not _has_default():
        raise UsageError(
            f"there is no {DEFAULT_CONFIG}; to begin: cp config.example.toml {DEFAULT_CONFIG}, or try --demo"
        )
    elif not isinstance(settings, Config):
        path = Path(config_file or DEFAULT_CONFIG) if settings is None else None
        loaded = load_config(path, overrides=overridden, table=settings)
        settings, text, overridden = loaded.config, loaded.text, dict(loaded.overridden)
    output = Path(settings.output.folder)
    check_folder(output, writes=False)
    check_store(settings.output.mirror, output)
    resumption = None
    if name := resume or settings.generation.resume_from_session:
        if request.fresh:
            raise UsageError("a session is either resumed or made with a fresh seed, not both")
        resumption = await _find(output, name, ledger_url(settings), settings.output.mirror)
        settings = with_seed_of(resumption, settings)
    elif named:
        raise UsageError("only what a session failed at can be named; say which session, with resume")
    if request.fresh:
        seed = 1 + secrets.randbelow(MOST)
        generation = settings.generation.model_copy(update={"seed": seed})
        settings = settings.model_copy(update={"generation": generation})
        overridden["generation.seed"] = seed
    keys = await take_keys(settings, request.env_file, blocks)
    return CheckedRequest(
        settings,
        keys,
        text,
        overridden,
        rules.warnings(settings),
        resumption,
        accept_changes=request.accept_changes,
        only=named,
        further=request.further,
    )


async def check_transform(request: TransformRequest, blocks: Blocks | None = None) -> CheckedTransform:
    """Read and check everything that a transform is given; the input is read once for that.

    Args:
        request: What is asked for.
        blocks: As for `check_run`.

    Raises:
        UsageError: Something given cannot be used, or lines of the input are bad.
    """
    mode = find_mode(request.mode)
    if not request.input_file and not request.input_reasoning:
        raise UsageError("give the rows with --input, or rows with reasoning with --input-reasoning")
    if not request.config and not _has_default():
        raise UsageError(f"there is no {DEFAULT_CONFIG}; to begin: cp config.example.toml {DEFAULT_CONFIG}")
    settings = {**request.settings, **mode.settings}
    config = load_config(Path(request.config or DEFAULT_CONFIG), overrides=settings).config
    keys = await take_keys(config, request.env_file, blocks)
    plain, reasoning = (
        Path(name) if name else None for name in (request.input_file, request.input_reasoning)
    )
    source = Source(mode, plain, reasoning)
    # Rows without it would be those that were given.
    reasoned = request.mode == "add-reasoning" and not request.output_reasoning
    outputs = [(REASONING if reasoned else DATASET, Path(request.output))]
    if request.output_reasoning:
        outputs.append((REASONING, Path(request.output_reasoning)))
    check_outputs([path for _, path in outputs], source.files)
    first_pass = await asyncio.to_thread(check_input, source, skip_bad=request.skip_bad)
    return CheckedTransform(config, keys, source, first_pass, outputs)


async def with_blocks(checked: Checked, request: ConfigRequest, blocks: Blocks) -> Checked:
    """The same, with the keys that are in Prefect's Secret blocks, which can be asked only now.

    Raises:
        UsageError: A block, or what it should hold, is missing.
    """
    if not any(model.api_key_block for model in models_of(checked.config)):
        return checked
    return replace(checked, keys=await take_keys(checked.config, request.env_file, blocks))


async def take_keys(config: Config, env_file: str, blocks: Blocks | None) -> Keys:
    """The keys of the models that are asked, each of them looked at before anything is created."""
    path = Path(env_file or DEFAULT_ENV_FILE)
    variables = read_env_file(path, required=bool(env_file))
    models = models_of(config)
    in_blocks = {model.api_key_block: None for model in models if model.api_key_block}
    keys = Keys(os.environ, variables, await blocks(in_blocks) if blocks and in_blocks else {})
    for model in models:
        keys.headers_for(model)
        if blocks or not model.api_key_block:
            keys.for_model(model)
    return keys


def _has_default() -> bool:
    return Path(DEFAULT_CONFIG).exists()


async def _find(output: Path, name: str, ledger_at: URL, mirror: str = "") -> Resumption:
    """The session of this name; the mirror stands in for a lost folder, the ledger for a lost record."""
    missing = not (output / check_name(name)).exists()
    if mirror and missing and await fetch_session(mirror, name, output, ledger_at) is None:
        raise UsageError(f"there is no session {name} in {output}, and none in the mirror {mirror}")
    folder = find_session(output, name)
    if read_record(folder) is None:
        async with await open_ledger(ledger_at, output) as ledger:
            await restore_record(folder, ledger)
    return find_resumption(folder)


async def _recorded(session: str, overrides: Mapping[str, Any]) -> Config:
    """The settings that a session began with, where there is no configuration file.

    Raises:
        UsageError: They are not known, or there are overrides, which need a file to lie over.
    """
    others = set(overrides) - {OUTPUT_FOLDER}
    output = str(overrides.get(OUTPUT_FOLDER, Output().folder))
    # Where the ledger is, is not known either: in its usual place, if anywhere.
    settings = (await _find(Path(output), session, usual_url(Path(output)))).before
    if settings is None or others:
        reason = "cannot be overridden" if others else "are not known"
        raise UsageError(
            f"there is no {DEFAULT_CONFIG}, and the settings that session {session} began with {reason}; "
            "give a configuration with --config"
        )
    return settings.model_copy(update={"output": settings.output.model_copy(update={"folder": output})})

"""What a run is given, read and checked before anything is created for it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from flows.request import OUTPUT_FOLDER
from tasks.core.config import rules
from tasks.core.config.load import given_settings, load_config
from tasks.core.config.settings import Config, Output
from tasks.core.config.values import MOST
from tasks.core.errors import UsageError
from tasks.core.files import check_folder
from tasks.core.keys import value_of
from tasks.core.ledger.schema import ledger_url, usual_url
from tasks.core.portable.mirror import fetch_session
from tasks.core.portable.store import check_store
from tasks.core.questions import models_of
from tasks.core.rows.given import digest_of, read_prompts
from tasks.core.rows.transformed import find_mode
from tasks.core.secrets import Keys, may_be_read, read_env_file, variables_named
from tasks.core.session.dataset import DATASET, REASONING
from tasks.core.session.folder import check_name, find_session
from tasks.core.session.ledger import is_missing, open_ledger
from tasks.core.session.record import (
    is_from_elsewhere,
    orders_of,
    read_record,
    restore_record,
    settings_without,
)
from tasks.core.session.resuming import find_resumption, with_seed_of
from tasks.core.session.retrying import read_only
from tasks.core.transform.reading import Source, check_input
from tasks.core.transform.session import check_outputs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from pydantic import SecretStr
    from sqlalchemy import URL

    from flows.request import ConfigRequest, FlowRequest, TransformRequest
    from tasks.core.config.load import Loaded
    from tasks.core.rows.given import GivenPrompts
    from tasks.core.session.record import Order
    from tasks.core.session.resuming import Resumption
    from tasks.core.session.retrying import Only
    from tasks.core.transform.reading import FirstPass

    Blocks = Callable[[Collection[str]], Awaitable[Mapping[str, SecretStr]]]

log = logging.getLogger("vellumforge.checking")

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
        warnings: Accepted settings that have no effect, and what is not followed of a session's own.
        resumption: The session to resume; None for a new one.
        accept_changes: Whether it is resumed although settings differ.
        only: Which failures of the session are asked again; None for all that is missing.
        further: Whether further samples are asked for in place of answers that cannot be used, where only
            those are missing.
        prompts: What stands in the file of prompts; None where there is none, and where a session is
            resumed that has them.
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
    prompts: GivenPrompts | None = None


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
    *,
    by_parameters: bool = False,
) -> CheckedRequest:
    """Read and check everything that a run is given.

    Args:
        request: What is asked for. Its `resume` stands above `generation.resume_from_session`.
        settings: The configuration itself; then no file is read. A table is checked like a file, under
            environment and overrides; a configuration is taken as it is.
        blocks: Reads Prefect's Secret blocks by their names; None where Prefect cannot be asked yet, and the
            keys that they hold are left out.
        by_parameters: Whether it is all given by a flow run's parameters, as to a worker: see `take_keys`.

    Raises:
        ConfigError: The configuration or the env file cannot be used.
        UsageError: A key, or a variable that a header needs, is missing; there is no such session, or it was
            asked for together with a new seed; `only` cannot be read, or there is no session to resume; or
            the session came from elsewhere, and nobody here says what its settings say.
        SessionError: The session cannot be read.
        LedgerError: The ledger, which knows a session without a record, cannot be opened.
    """
    resume, config_file = request.resume, request.config
    text, overridden, named = "", request.settings, read_only(request.only)
    not_followed: Sequence[str] = ()
    as_recorded = False
    if settings is None and resume and not config_file and not _has_default():
        settings, not_followed = await _recorded(request)
        as_recorded = True
    elif settings is None and not config_file and not _has_default():
        raise UsageError(
            f"there is no {DEFAULT_CONFIG}; to begin: cp config.example.toml {DEFAULT_CONFIG}, or try --demo"
        )
    elif not isinstance(settings, Config):
        path = Path(config_file or DEFAULT_CONFIG) if settings is None else None
        loaded = load_here(path, overridden, table=settings)
        settings, text, overridden = loaded.config, loaded.text, dict(loaded.overridden)
        not_followed = loaded.hints
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
    config, prompts = await asyncio.to_thread(take_prompts, settings, resumption, as_recorded=as_recorded)
    keys = await take_keys(config, request.env_file, blocks, by_parameters=by_parameters)
    return CheckedRequest(
        config,
        keys,
        text,
        overridden,
        (*not_followed, *([prompts.skipped] if prompts and prompts.skipped else ()), *rules.warnings(config)),
        resumption,
        accept_changes=request.accept_changes,
        only=named,
        further=request.further,
        prompts=prompts,
    )


def take_prompts(
    config: Config, resumption: Resumption | None, *, as_recorded: bool = False
) -> tuple[Config, GivenPrompts | None]:
    """The prompts of the file that is named, and the configuration with their number and its digest.

    Args:
        config: The configuration.
        resumption: The session that it is for, if there is one yet.
        as_recorded: Whether the configuration is the session's own.

    Returns:
        None for the prompts where none are given, and where the session goes on with those that it has: by
        its own settings, where the file is gone, and where it is the same.

    Raises:
        UsageError: The file cannot be used.
    """
    if not config.input.prompts:
        return config, None
    before = resumption.before if resumption is not None and resumption.record.adopted else None
    prompts = None
    if before is not None and (as_recorded or _is_gone(before, config) or _has_those_of(before, config)):
        count, digest = before.generation.num_prompts_per_subtopic, before.input.sha256
    else:
        prompts = read_prompts(config.input, config.generation.main_topic, threshold=_threshold(config))
        count, digest = len(prompts.jobs), prompts.digest
    generation = config.generation.model_copy(update={"num_prompts_per_subtopic": count})
    given = config.input.model_copy(update={"sha256": digest})
    return config.model_copy(update={"generation": generation, "input": given}), prompts


def _is_gone(before: Config, config: Config) -> bool:
    """Whether the file that a session had its prompts of is not there any more; it goes on without it."""
    same = {"skip_bad": before.input.skip_bad, "sha256": config.input.sha256 or before.input.sha256}
    gone = config.input.model_copy(update=same) == before.input and not _is_there(config.input.prompts)
    if gone:
        log.warning("%s is not there; the session goes on with the prompts that it has", config.input.prompts)
    return gone


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        return True  # Of no use, which reading it will say.


def _threshold(config: Config) -> float | None:
    """Likeness from which prompts of a file are left out; None where it is not set."""
    generation = config.generation
    return generation.similarity_threshold if "similarity_threshold" in generation.model_fields_set else None


def _has_those_of(before: Config, config: Config) -> bool:
    """Whether a session has the prompts that a configuration takes: of the same file, read alike."""
    digest = digest_of(Path(config.input.prompts))
    same = {"prompts": before.input.prompts, "skip_bad": before.input.skip_bad, "sha256": digest}
    return (
        config.input.model_copy(update=same) == before.input
        and config.input.sha256 in {"", digest}
        and _threshold(before) == _threshold(config)
        and before.generation.main_topic == config.generation.main_topic
    )


async def check_transform(
    request: TransformRequest, blocks: Blocks | None = None, *, by_parameters: bool = False
) -> CheckedTransform:
    """Read and check everything that a transform is given; the input is read once for that.

    Args:
        request: What is asked for.
        blocks: As for `check_run`.
        by_parameters: As for `check_run`.

    Raises:
        UsageError: Something given cannot be used, or lines of the input are bad.
    """
    mode = find_mode(request.mode)
    if not request.input_file and not request.input_reasoning:
        raise UsageError("give the rows with --input, or rows with reasoning with --input-reasoning")
    if not request.config and not _has_default():
        raise UsageError(f"there is no {DEFAULT_CONFIG}; to begin: cp config.example.toml {DEFAULT_CONFIG}")
    settings = {**request.settings, **mode.settings}
    config = load_here(Path(request.config or DEFAULT_CONFIG), settings).config
    keys = await take_keys(config, request.env_file, blocks, by_parameters=by_parameters)
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
    if not any(model.api_key_block for model in models_of(checked.config).values()):
        return checked
    return replace(checked, keys=await take_keys(checked.config, request.env_file, blocks))


async def take_keys(
    config: Config, env_file: str, blocks: Blocks | None, *, by_parameters: bool = False
) -> Keys:
    """The keys of the models that are asked, each of them looked at before anything is created.

    Args:
        config: The configuration.
        env_file: The env file; "" for .env, where there is one.
        blocks: As for `check_run`.
        by_parameters: Whether the settings came with a flow run's parameters. Whoever may give them decides
            nothing about this machine's variables: read are those which config.toml here names for the same
            endpoint, and those which `may_be_read` allows.

    Raises:
        ConfigError: The env file cannot be used.
        UsageError: A key, or a variable that a header needs, is missing, or may not be read.
    """
    path = Path(env_file or DEFAULT_ENV_FILE)
    variables = read_env_file(path, required=bool(env_file))
    models = models_of(config).values()
    in_blocks = {model.api_key_block: None for model in models if model.api_key_block}
    named = _named_here() if by_parameters else set()

    def may_read(name: str, base_url: str) -> bool:
        return not by_parameters or (base_url, name) in named or may_be_read(name, os.environ)

    held = await blocks(in_blocks) if blocks and in_blocks else {}
    keys = Keys(os.environ, variables, held, may_read=may_read)
    for model in models:
        keys.headers_for(model)
        if blocks or not model.api_key_block:
            keys.for_model(model)
    return keys


def _has_default() -> bool:
    return Path(DEFAULT_CONFIG).exists()


def _named_here() -> set[tuple[str, str]]:
    """The variables that config.toml and the environment here name, each with its endpoint."""
    try:
        config = load_here(Path(DEFAULT_CONFIG), for_run=False).config
    except UsageError:
        return set()  # There is none; or it is of no use to the runs that it is for either.
    return {(model.base_url, name) for model in models_of(config).values() for name in variables_named(model)}


def load_here(
    path: Path | None,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    *,
    table: Mapping[str, Any] | None = None,
    for_run: bool = True,
) -> Loaded:
    """A configuration of the user's own, as `load_config` reads it.

    Raises:
        ConfigError: It cannot be used.
        UsageError: It is a file of a session that came from elsewhere: its orders are not the user's.
    """
    if path is not None and path.exists() and is_from_elsewhere(path.resolve().parent):
        raise UsageError(
            f"{path} is a file of a session that came from elsewhere, and no configuration of yours: look at "
            "it, and give a copy that lies in another folder"
        )
    return load_config(path, overrides=overrides, table=table, for_run=for_run)


def refusal_of(session: str, orders: Sequence[Order], command: str, *, unmarked: bool = False) -> UsageError:
    """What is wrong with going on by the settings of a session from elsewhere: what they say, line by line.

    Args:
        session: The session's name.
        orders: What its settings say and nobody here does.
        command: The command that goes on all the same.
        unmarked: Whether nothing says where the session came from; see `orders_of`.
    """
    whose = "has no record, and nobody knows whose its settings are" if unmarked else ""
    first = (
        f"session {session} {whose or 'came from elsewhere, and its settings are not yours'}: nothing is "
        "asked, sent or written as they say until a configuration here says the same, or you trust them:"
    )
    last = "to go on as they say, if you trust whoever made them (or give your own with --config):"
    return UsageError(first, *(f"  {order}" for order in orders), last, command)


async def _find(output: Path, name: str, ledger_at: URL, mirror: str = "") -> Resumption:
    """The session of this name; the mirror stands in for a lost folder, the ledger for a lost record."""
    missing = not (output / check_name(name)).exists()
    if mirror and missing and await fetch_session(mirror, name, output, ledger_at) is None:
        raise UsageError(f"there is no session {name} in {output}, and none in the mirror {mirror}")
    folder = find_session(output, name)
    if read_record(folder) is None and not is_missing(ledger_at):
        async with await open_ledger(ledger_at, output) as ledger:
            await restore_record(folder, ledger)
    return find_resumption(folder)


async def _recorded(request: FlowRequest) -> tuple[Config, Sequence[str]]:
    """The settings that a session began with, where there is no configuration file.

    Of a session that came from elsewhere, what they say about where something goes is followed only as far as
    it was given here too, or the user trusts the session. Its folder and its ledger are always those here.

    Returns:
        The settings, and what is not followed of the session's own, each in a line.

    Raises:
        UsageError: They are not known, or there are overrides, which need a file to lie over; or the session
            came from elsewhere, and nobody here says what its settings say.
    """
    session, overrides = request.resume, request.settings
    output = str(overrides.get(OUTPUT_FOLDER, Output().folder))
    # Where the ledger is, is not known either: in its usual place, if anywhere.
    found = await _find(Path(output), session, usual_url(Path(output)))
    settings, given = found.before, given_settings(overrides)
    others = settings is not None and any(
        key not in given or given[key] != value_of(settings, key) for key in overrides if key != OUTPUT_FOLDER
    )
    if settings is None or others:
        reason = "cannot be overridden" if others else "are not known"
        raise UsageError(
            f"there is no {DEFAULT_CONFIG}, and the settings that session {session} began with {reason}; "
            "give a configuration with --config"
        )
    left_out: list[Order] = []
    if found.foreign or found.record.from_elsewhere:
        unmarked = not found.record.from_elsewhere
        orders = orders_of(settings, given_settings(overrides, os.environ), output, unmarked=unmarked)
        left_out = [order for order in orders if not order.followed]
        # What nobody follows in any case needs no trust; a key or a header that would be missing does.
        if not request.trust_session and any(order.needs_trust for order in orders):
            raise refusal_of(session, orders, request.trusting(), unmarked=unmarked)
        settings = settings_without(found.record, left_out)
    place = settings.output.model_copy(update={"folder": output})
    lines = [f"of the settings of session {session}: {order}" for order in left_out]
    return settings.model_copy(update={"output": place}), lines

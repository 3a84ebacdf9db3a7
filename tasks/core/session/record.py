"""`session.json`: what a session is and which settings it began with.

It is written whole and in one step. Where it is missing or damaged, the ledger's own entry of the session
stands in, and below that the checkpoint and the backup of the configuration.

Without it our own session would look like one of VellumForge2, whose seed and settings nobody knows: its
answers would be asked for anew, and be paid for again.

A session that came from elsewhere brings answers, never orders: what its settings say about where requests,
keys and files go is followed only once a configuration here says the same, or the user trusts it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from tasks.core import files
from tasks.core.config.settings import Config, further_models
from tasks.core.config.values import PLACEHOLDER
from tasks.core.errors import SessionError, UsageError
from tasks.core.keys import value_of
from tasks.core.ledger.sessions import SessionRow, find_session_row, put_session, session_rows_named
from tasks.core.printable import printable_line
from tasks.core.progress import pairs_in_words
from tasks.core.secrets import is_key_of, may_be_read, variables_of
from tasks.core.session.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tasks.core.config.settings import ModelConfig
    from tasks.core.ledger.ledger import Ledger


FILE_NAME = "session.json"
BACKUP = "config.toml.bak"
MARK = ".from-elsewhere"
"""A file in the folder of a session that came from elsewhere, for when its record is lost or an older version
writes it."""
LARGEST_RECORD = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a session's prompts, as far as its runs came.

    Attributes:
        wanted: Pairs that the session is to have.
        kept: Those that it has.
        tried: Prompts of which all was asked, whatever came of them.
        lost: Prompts that yielded no usable pair and are replaced, or were kept out, by cause.
        failed: What failed and may come about when it is asked again, by cause.
    """

    wanted: int
    kept: int
    tried: int
    lost: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the pairs that there are, 0 to 1."""
        return min(1.0, self.kept / self.wanted) if self.wanted else 0.0

    def in_words(self) -> str:
        """The numbers on one line, as `pairs_in_words` gives them."""
        causes = Counter(self.lost) + Counter(self.failed)
        return pairs_in_words(self.kept, self.wanted, self.tried, causes)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is recorded, in its folder and in the ledger.

    Attributes:
        id: Its UUID.
        created: Seconds since the epoch.
        settings: The whole configuration as plain data, seed included, secrets never.
        ledger: Id of the ledger that holds its answers.
        complete: Whether every job was done when it was last written.
        seconds: Wall time that its runs took so far, all together.
        flow_run: Id of the Prefect flow run that began it, "" when unknown: a retry finds it by this.
        adopted: Whether its subtopics and jobs were taken over from elsewhere, and stand in the ledger.
        spent: What its runs paid for so far as `Bill.document` gives it; for people, the ledger knows better.
        transform: The command of a transform; "" for a session that was generated.
        missing: Pairs that are wanted and for which there was no prompt when it last came to its end.
        counts: What became of its prompts; None before they are answered, and in records of older versions.
        from_elsewhere: Whether it was imported, fetched from a mirror or merged from such a session: its
            settings are those of somebody else. It stays so.
    """

    id: str
    created: float
    settings: dict[str, Any]
    ledger: str = ""
    complete: bool = False
    seconds: float = 0.0
    flow_run: str = ""
    adopted: bool = False
    spent: dict[str, Any] = field(default_factory=dict)
    transform: str = ""
    missing: int = 0
    counts: Counts | None = None
    from_elsewhere: bool = False


SESSION_RECORD = TypeAdapter(SessionRecord)
"""Validates a record that came from a file."""


def document_of(record: SessionRecord) -> dict[str, Any]:
    """The record as plain data; the mark of a session from elsewhere is there only where it is set."""
    document = asdict(record)
    if not record.from_elsewhere:
        del document["from_elsewhere"]
    return document


def write_record(folder: Path, record: SessionRecord) -> None:
    """Write the record into the session's folder, durably; first the mark, where it came from elsewhere.

    Raises:
        SessionError: The folder cannot be written to.
    """
    try:
        if record.from_elsewhere:
            (folder / MARK).touch()
        files.write(folder / FILE_NAME, orjson.dumps(document_of(record), option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise SessionError(f"{folder / FILE_NAME} cannot be written: {error.strerror}") from error


def read_record(folder: Path) -> SessionRecord | None:
    """The record in a session's folder; None when it is missing or damaged."""
    path = folder / FILE_NAME
    try:
        with files.opened(path) as file:
            content = file.read(LARGEST_RECORD + 1)
        if len(content) > LARGEST_RECORD:
            return None
        record = SESSION_RECORD.validate_json(content)
        return replace(record, from_elsewhere=record.from_elsewhere or (folder / MARK).exists())
    except (OSError, ValidationError):
        return None


def settings_of(record: SessionRecord) -> Config | None:
    """The configuration that a session began with; None when this version cannot read it."""
    try:
        return Config.model_validate(record.settings)
    except ValidationError:
        return None


async def record_session(ledger: Ledger, name: str, record: SessionRecord, jobs: bytes | None = None) -> None:
    """Put a session's record into the ledger too, with the jobs that it took over, if it did.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    packed = orjson.dumps(document_of(record)).decode()
    await put_session(ledger, SessionRow(record.id, name, record.flow_run, packed, jobs))


async def restore_record(folder: Path, ledger: Ledger) -> None:
    """Write `session.json` as the ledger knows it, when it cannot be read and the ledger knows the session.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The record cannot be written.
    """
    if read_record(folder) is not None:
        return
    row = await _row(folder, ledger)
    # Another version's is none: what is left of the folder has to do.
    if row is not None and (record := record_of(row)) is not None:
        write_record(folder, record)


def record_of(row: SessionRow) -> SessionRecord | None:
    """The record of a session as the ledger has it; None when this version cannot read it."""
    try:
        return SESSION_RECORD.validate_json(row.record)
    except ValidationError:
        return None


async def _row(folder: Path, ledger: Ledger) -> SessionRow | None:
    """The ledger's entry of the session: by the checkpoint's id, else by a name that only one session has."""
    try:
        checkpoint = read_checkpoint(folder)
    except SessionError:
        checkpoint = None
    if checkpoint is not None and checkpoint.session_id:
        return await find_session_row(ledger, checkpoint.session_id)
    rows = await session_rows_named(ledger, folder.name)
    return rows[0] if len(rows) == 1 else None


ROLES: Final = ("main", "rejected", "judge")
_OF_MODELS: Final = ("base_url", "api_key_env", "api_key_block", "headers")
ORDERS: Final = (
    *(f"models.{role}.{name}" for role in ROLES for name in _OF_MODELS),
    "input.prompts",
    "provider_rate_limits",
    "provider_token_limits",
    "execution.shards",
    "execution.work_pool",
    "output.folder",
    "output.ledger",
    "output.mirror",
    "huggingface.repo_id",
)
"""Settings that say which file is read, where requests, keys and files go, who works, and how fast a provider
is asked. Those of further models are beside them: see `orders_in`."""
_OF_SHARDS: Final = ("execution.shards", "execution.work_pool")
_OF_VELLUMFORGE2: Final = ("base_url", "provider_rate_limits", "repo_id")
_MOST_SHOWN: Final = 2000
"""Characters of an order; a longer one is shown with its length."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the settings of a session from elsewhere say about where something goes.

    Attributes:
        path: The names that lead to it among the settings; one more than those of a setting within a table.
        value: What it says.
        note: What should be known of it; of one that is not followed, why.
        followed: Whether it is followed by whoever trusts the session.
    """

    path: tuple[str, ...]
    value: Any
    note: str = ""
    followed: bool = True

    @property
    def needs_trust(self) -> bool:
        """Whether going on needs the user's word: it is followed then, or a key or a header is left out."""
        return self.followed or self.path[0] == "models"

    def __str__(self) -> str:
        # As JSON in ASCII: neither a mark of direction nor a letter that looks like another one deceives.
        value = json.dumps(self.value)
        cut = f"... ({len(value):,} characters)" if len(value) > _MOST_SHOWN else ""
        text = printable_line(f"{'.'.join(self.path)} = {value[:_MOST_SHOWN]}{cut}", 2 * _MOST_SHOWN)
        return f"{text} ({self.note})" if self.note else text


def is_from_elsewhere(folder: Path) -> bool:
    """Whether a folder is that of a session which came from elsewhere."""
    record = read_record(folder)
    return (folder / MARK).exists() or (record is not None and record.from_elsewhere)


def orders_in(config: Config) -> tuple[str, ...]:
    """The settings of a configuration that are orders, those of its further models too."""
    further = (f"models.{role}.{name}" for role in further_models(config) for name in _OF_MODELS)
    return (*ORDERS, *further)


def orders_of(
    config: Config, local: Mapping[str, Any], output: str, *, unmarked: bool = False
) -> list[Order]:
    """What the settings of a session from elsewhere say that a configuration here does not say too.

    Args:
        config: The settings of the session.
        local: Settings that are given here, by dotted key.
        output: The output folder here.
        unmarked: Whether it has no record, and nothing says that it came from elsewhere: VellumForge2 made it
            here, or what said so is lost. Then what VellumForge2 has settings for is the user's own.
    """
    found: list[Order] = []
    for key in orders_in(config):
        if unmarked and (key == "output.folder" or key.endswith(_OF_VELLUMFORGE2)):
            continue
        value = value_of(config, key)
        # What stands there as it would without being said decides nothing.
        if value in (None, "", 0, {}) or (key == "execution.work_pool" and not config.execution.shards):
            continue
        # Shards are of no use without their ledger, whoever asks for them.
        said = {key: output} if key == "output.folder" else local
        needs = {key, "output.ledger"} if key in _OF_SHARDS else {key}
        if all(each in said and said[each] == value_of(config, each) for each in needs):
            continue
        entries = value.items() if isinstance(value, dict) else [("", value)]
        for name, entry in entries:
            path = (*key.split("."), *((name,) if name else ()))
            found.append(Order(path, entry, *_fate(config, path, entry, local, unmarked=unmarked)))
    return found


def settings_without(record: SessionRecord, left_out: Sequence[Order]) -> Config:
    """The settings of a session without some of what they say.

    Raises:
        UsageError: Without it they are none.
    """
    document = deepcopy(record.settings)
    for order in left_out:
        *sections, name = order.path
        table: Any = document
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(name, None)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise UsageError(
            "the session's settings are of no use without what is not followed; give your own with --config"
        ) from error


def _fate(
    config: Config, path: tuple[str, ...], value: Any, local: Mapping[str, Any], *, unmarked: bool
) -> tuple[str, bool]:
    """What should be known of an order, and whether it is followed by whoever trusts the session."""
    key = ".".join(path)
    if path[0] == "models":
        return _fate_at_model(value_of(config, ".".join(path[:2])), path[2], value)
    if unmarked:
        return "", True
    if key == "output.folder":
        return "not followed: the session stays where it is", False
    if key == "output.ledger":
        return "not followed: its answers are in the ledger here", False
    if key in _OF_SHARDS and local.get("output.ledger") != config.output.ledger:
        return "not followed: its pairs are made by one process, with the ledger here", False
    return "", True


def _fate_at_model(model: ModelConfig, setting: str, value: str) -> tuple[str, bool]:
    """The same for a setting of a model."""
    if setting == "base_url":
        return _addressed(model), True
    named = [value] if setting == "api_key_env" else PLACEHOLDER.findall(value)
    strangers = [name for name in named if setting != "api_key_block" and not _is_safe(name, model)]
    if strangers:
        return f"not followed: {', '.join(strangers)} is no key of that endpoint's provider", False
    return "", True


def _is_safe(name: str, model: ModelConfig) -> bool:
    return is_key_of(name, model.base_url) and may_be_read(name, os.environ)


def _addressed(model: ModelConfig) -> str:
    """Which model is asked there, and where its key is looked for when nothing is said of that."""
    named = f"model {json.dumps(model.model_name)}"
    if model.api_key_block or (model.api_key_env and _is_safe(model.api_key_env, model)):
        return named
    usual = variables_of(model.model_copy(update={"api_key_env": ""}))
    return f"{named}, its key from {' or '.join(usual)}"

"""`session.json`: read back as it was written, and nothing at all when it is damaged."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.core.config.settings import Input, ModelConfig
from tasks.core.config.settings import settings as every_setting
from tasks.core.errors import SessionError
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.sessions import find_session_row
from tasks.core.session import record as module
from tasks.core.session.record import (
    FILE_NAME,
    SessionRecord,
    read_record,
    record_session,
    settings_of,
    write_record,
)
from tests.core.running import configured

if TYPE_CHECKING:
    from collections.abc import Callable

texts = st.text(st.characters(exclude_categories=["Cs"]))
seconds = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | seconds | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.builds(
    SessionRecord,
    id=texts,
    created=seconds,
    settings=st.dictionaries(texts, values, max_size=4),
    ledger=texts,
    complete=st.booleans(),
    seconds=seconds,
    flow_run=texts,
    adopted=st.booleans(),
)
RECORD = SessionRecord("an id", 1_795_407_867.25, {"generation": {"seed": 7}}, "a ledger", seconds=1.5)


@settings(max_examples=50)
@given(records)
def test_a_record_is_read_as_it_was_written(record: SessionRecord) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_record(Path(folder), record)
        assert read_record(Path(folder)) == record
        assert [path.name for path in Path(folder).iterdir()] == [FILE_NAME]


def test_a_new_record_replaces_the_old_one(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    shorter = SessionRecord("x", 0.0, {})
    write_record(tmp_path, shorter)
    assert read_record(tmp_path) == shorter


def test_a_record_that_was_cut_anywhere_is_none(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert read_record(tmp_path) is None, size
    path.write_bytes(whole)
    assert read_record(tmp_path) == RECORD


@given(st.binary() | values.map(orjson.dumps))
@example(b"\xff\xfe{}")
@example(b"[" * 100_000)
@example(b"{}")
def test_what_is_no_record_is_none(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_bytes(content)
        assert read_record(Path(folder)) is None


@pytest.mark.parametrize("name", [field.name for field in fields(SessionRecord)])
def test_a_field_of_another_type_makes_it_none(tmp_path: Path, name: str) -> None:
    document: dict[str, Any] = orjson.loads(orjson.dumps(RECORD))
    (tmp_path / FILE_NAME).write_bytes(orjson.dumps(document | {name: [[]]}))
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, lambda path: path.symlink_to(path)])
def test_a_missing_file_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / FILE_NAME)
    assert read_record(tmp_path) is None


def test_an_enormous_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path, RECORD)
    size = (tmp_path / FILE_NAME).stat().st_size
    monkeypatch.setattr(module, "LARGEST_RECORD", size)
    assert read_record(tmp_path) == RECORD
    monkeypatch.setattr(module, "LARGEST_RECORD", size - 1)
    assert read_record(tmp_path) is None


def test_a_record_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SessionError) as raised:
        write_record(tmp_path / "gone", RECORD)
    assert str(raised.value).endswith("session.json cannot be written: No such file or directory")


def test_the_settings_are_the_configuration_again(tmp_path: Path) -> None:
    config = configured(generation__seed=7, generation__dataset_mode="mo-dpo", output__folder="elsewhere")
    settings = config.model_dump(mode="json", exclude_unset=True)
    write_record(tmp_path, SessionRecord("an id", 0.0, settings))
    record = read_record(tmp_path)
    assert record is not None
    assert settings_of(record) == config


@given(st.dictionaries(texts, values, max_size=4))
def test_settings_that_are_none_of_ours_are_unknown(settings: dict[str, Any]) -> None:
    assert settings_of(SessionRecord("an id", 0.0, settings)) is None


async def test_the_ledger_has_the_record_too(tmp_path: Path) -> None:
    record = SessionRecord("an id", 5.0, {"a": "é\0"}, "a ledger", flow_run="a flow run")
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        await record_session(ledger, "session_1", record, b"jobs")
        row = await find_session_row(ledger, flow_run="a flow run")
    assert row is not None
    assert (row.id, row.name, row.jobs) == ("an id", "session_1", b"jobs")
    assert module.SESSION_RECORD.validate_json(row.record) == record


def test_the_mark_of_a_session_from_elsewhere_is_there_only_where_it_is_set(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    ours = (tmp_path / FILE_NAME).read_bytes()
    # To the byte what older versions wrote.
    older = {key: value for key, value in asdict(RECORD).items() if key != "from_elsewhere"}
    assert ours == orjson.dumps(older, option=orjson.OPT_INDENT_2)
    write_record(tmp_path, replace(RECORD, from_elsewhere=True))
    marked = read_record(tmp_path)
    assert marked is not None
    assert marked.from_elsewhere


async def test_a_record_that_is_put_back_from_the_ledger_has_its_mark(tmp_path: Path) -> None:
    folder = tmp_path / "session_1"
    folder.mkdir()
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        await record_session(ledger, folder.name, replace(RECORD, from_elsewhere=True))
        await module.restore_record(folder, ledger)
    assert module.is_from_elsewhere(folder)


HARMLESS = {
    *(
        "generation",
        "candidates",
        "judging",
        "length",
        "judge_filtering",
        "lint",
        "prompt_templates",
        "pricing",
        "budget",
    ),
    *("output.mirror_minutes", "output.formats", "output.file_type", "output.reasoning"),
    *("output.test_share", "output.split_seed", "huggingface.license", "provider_burst_percent"),
    *("execution.grace_seconds", "execution.patience_minutes", "execution.stop_at_loss"),
    *(f"input.{key}" for key in Input.model_fields if key != "prompts"),
    *("execution.adaptive_concurrency", "execution.max_answer_megabytes", "execution.preflight"),
}
"""Settings, and sections of settings, that decide what is asked and made, and not where anything goes."""


def test_every_setting_is_an_order_or_harmless() -> None:
    of_models = set(ModelConfig.model_fields) - {"base_url", "api_key_env", "api_key_block", "headers"}
    harmless = HARMLESS | {f"models.{role}.{name}" for role in module.ROLES for name in of_models}
    harmless.add("models.judge.enabled")
    for key in every_setting():
        either = key in module.ORDERS, key in harmless or key.partition(".")[0] in harmless
        assert sum(either) == 1, f"{key}: does it say where something goes? Then it belongs into ORDERS"

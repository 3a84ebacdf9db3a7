"""Which database the ledger is kept in, and how it is shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from tasks.core.config.settings import Config
from tasks.core.errors import LedgerError
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import connect, ledger_url, reason, shown
from tests.core.chat.scripted import closed_port

if TYPE_CHECKING:
    from pathlib import Path


def config(**output: str) -> Config:
    return Config.model_validate(
        {
            "generation": {"main_topic": "Tea", "num_subtopics": 1, "num_prompts_per_subtopic": 1},
            "models": {"main": {"base_url": "http://127.0.0.1:1/v1", "model_name": "m"}},
            "output": output,
        }
    )


def test_by_default_it_is_a_file_in_the_output_folder() -> None:
    assert str(ledger_url(config())) == "sqlite:///output/ledger.db"
    assert ledger_url(config(folder="/data/out")).database == "/data/out/ledger.db"


@pytest.mark.parametrize("name", ["what? now", "50%", "a#b", "a&b=c", "user:pass@host", "ä ü", "%2e%2e"])
async def test_any_folder_name_will_do(name: str, tmp_path: Path) -> None:
    async with await Ledger.open(ledger_url(config(folder=str(tmp_path / name)))):
        assert (tmp_path / name / "ledger.db").is_file()


def test_a_configured_database_is_taken() -> None:
    url = ledger_url(config(folder="elsewhere", ledger="sqlite:////data/calls.db"))
    assert (url.get_backend_name(), url.database) == ("sqlite", "/data/calls.db")
    url = ledger_url(config(ledger="postgresql+asyncpg://user@db.example.org:5433/calls"))
    assert (url.drivername, url.host, url.port) == ("postgresql+asyncpg", "db.example.org", 5433)


def test_a_url_that_cannot_be_read_is_refused_without_showing_it() -> None:
    with pytest.raises(LedgerError) as caught:
        ledger_url(config(ledger="postgresql+asyncpg://user@host:hidden-word/calls"))
    assert "hidden-word" not in str(caught.value)
    assert "output.ledger" in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=4).map(lambda text: f"<{text}>"))
def test_a_password_is_never_shown(password: str) -> None:
    url = URL.create("postgresql+asyncpg", "user", password, "db.example.org", 5432, "calls")
    for form in (url, url.render_as_string(hide_password=False)):
        assert shown(form) == "postgresql+asyncpg://user:***@db.example.org:5432/calls"


def test_a_password_in_the_query_is_not_shown_either() -> None:
    assert (
        shown("postgresql+asyncpg://host/calls?user=me&password=hidden") == "postgresql+asyncpg://host/calls"
    )


def test_what_has_no_password_is_shown_as_it_is() -> None:
    assert shown("sqlite:////data/out/ledger.db") == "sqlite:////data/out/ledger.db"


def test_a_reason_is_one_line_without_the_statement() -> None:
    error = OperationalError("SELECT secret", {"key": "value"}, ValueError("disk\n  full"))
    assert reason(error) == "disk full"


async def test_a_file_and_its_folder_are_made(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/a/b/calls.db")
    await engine.dispose()
    assert (tmp_path / "a" / "b" / "calls.db").is_file()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(LedgerError, match="taken"):
        connect(f"sqlite:///{tmp_path}/taken/calls.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
async def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(LedgerError, match="locked"):
        connect(f"sqlite:///{tmp_path}/locked/inside/calls.db")
    with pytest.raises(LedgerError, match="cannot be opened"):
        await Ledger.open(f"sqlite:///{tmp_path}/locked/calls.db")


async def test_a_file_is_kept_so_that_a_commit_is_durable(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/calls.db")
    async with engine.connect() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        }
    await engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 60_000}


@pytest.mark.parametrize("query", ["", "?sslmode=require"])
async def test_a_server_that_is_not_there_is_one_line(query: str) -> None:
    url = f"postgresql+asyncpg://user:hidden@127.0.0.1:{closed_port()}/calls{query}"
    with pytest.raises(LedgerError, match="cannot be opened") as caught:
        await Ledger.open(url)
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)

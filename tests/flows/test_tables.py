"""The tables that a new home is given: those that Prefect's migrations make, and no others."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from flows.process.server import DATABASE
from flows.process.server_main import TABLES, give_tables
from tests.flows.command import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_they_are_those_that_migrations_make_of_an_empty_file() -> None:
    command = [sys.executable, "-m", "tests.flows.tables"]
    made = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    # Whole tables are copied by migrations, with their constraints in no set order.
    assert _lines(made.stdout) == _lines(TABLES.read_text(encoding="utf-8")), "make tables makes them anew"


def test_a_home_is_given_them_once_and_whole(tmp_path: Path) -> None:
    home = tmp_path / DATABASE
    (tmp_path / f"{DATABASE}.part").write_bytes(b"half of one, of a process that was killed")
    assert give_tables(home)
    with closing(sqlite3.connect(home)) as made:
        assert _lines("\n".join(made.iterdump())) == _lines(TABLES.read_text(encoding="utf-8"))
        made.execute("INSERT INTO variable (name, tags, value) VALUES ('mine', '[]', '1')")
        made.commit()
    before = home.read_bytes()
    assert not give_tables(home)
    assert home.read_bytes() == before
    assert [*tmp_path.iterdir()] == [home]


def test_a_prefect_that_does_not_know_them_makes_its_own(tmp_path: Path) -> None:
    other = tmp_path / "other.sql"
    other.write_text(TABLES.read_text(encoding="utf-8").replace("VALUES('", "VALUES('0"), encoding="utf-8")
    assert not give_tables(tmp_path / DATABASE, other)
    assert [*tmp_path.iterdir()] == [other]


def _lines(statements: str) -> list[str]:
    return sorted(line.strip(" \t,") for line in statements.splitlines() if line.strip())

"""Care for an SQLite ledger: is it whole, and what can be saved of it."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, create_engine, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from tasks.core import files
from tasks.core.errors import LedgerError
from tasks.core.ledger.schema import calls, metadata, reason, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Table

ROWS_AT_ONCE = 500
CLOSE_STEPS = 10_000
"""Places behind a damaged one that are tried one by one: more calls than hang below two levels of pages."""

FAR_STEPS = 40
"""Places that are tried after those, each twice as far as the one before; then a table is given up."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found.

    Attributes:
        calls: Answers that can be read.
        damaged: Answers that are there, or were, and cannot be read.
        problems: What SQLite itself found, a line each; empty for a sound file.
    """

    calls: int
    damaged: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.problems


def check_ledger(path: Path) -> Health:
    """Read the whole file and every answer in it; nothing is changed.

    Raises:
        LedgerError: There is no such file, or it cannot be opened.
    """
    with _reading(path) as database:
        if not path.stat().st_size:
            # To SQLite that is a new database, and sound.
            return Health(0, 0, ("it is empty, which no ledger is",))
        problems = [line for line in _integrity(database) if line != "ok"]
        sound = damaged = 0
        try:
            for row in _rows(database, calls):
                sound, damaged = (sound + 1, damaged) if _is_sound(row, calls) else (sound, damaged + 1)
        except sqlite3.DatabaseError as error:
            problems.append(f"the calls cannot be read: {error}")
        damaged = max(damaged, _listed(database, calls) - sound)
    return Health(sound, damaged, tuple(dict.fromkeys(problems)))


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved.

    Attributes:
        saved: Rows by table; a table of which nothing can be read has none.
        damaged: Answers that are lost.
    """

    saved: dict[str, int]
    damaged: int


def salvage_ledger(source: Path, target: Path) -> Salvage:
    """Copy every row that can still be read into a new ledger; the damaged one stays as it is.

    The new one is written beside its place and put there when it is whole: one that was cut off is simply
    done again.

    Args:
        source: The damaged ledger.
        target: The new one.

    Raises:
        LedgerError: The target is there already or cannot be written, the source is not there, or nothing
            in it can be read.
    """
    _refuse_there(target)
    try:
        # A folder, for SQLite has a file of its own beside the one that it writes.
        with (
            _reading(source) as database,
            files.folder_beside(target.parent, f".{target.name}.", files.SUFFIX) as room,
        ):
            made = room / target.name
            saved = _salvaged(source, database, made)
            # Not looked at again, another one that was made meanwhile would be written over.
            _refuse_there(target)
            files.put_in_place(made, target)
            return saved
    except OSError as error:
        raise LedgerError(f"{source} cannot be salvaged into {target}: {error.strerror}") from error
    except SQLAlchemyError as error:
        raise LedgerError(f"{source} cannot be salvaged into {target}: {reason(error)}") from error


def _refuse_there(target: Path) -> None:
    if target.exists():
        raise LedgerError(f"{target} is there already; name a file that is not")


def _salvaged(source: Path, database: sqlite3.Connection, target: Path) -> Salvage:
    engine = create_engine(URL.create("sqlite", database=str(target)))
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            return _copy_all(source, database, connection)
    finally:
        engine.dispose()


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, opened so that nothing in it can be changed.

    Raises:
        LedgerError: There is no such file, or it cannot be opened.
    """
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}")
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be opened: {error}") from error
    database.row_factory = sqlite3.Row
    # A name that is no text any more must not end the reading.
    database.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        # As it is now: what a run adds meanwhile would look as if it could not be read.
        database.execute("BEGIN")
        yield database
    finally:
        database.close()


def _integrity(database: sqlite3.Connection) -> list[str]:
    """What SQLite says of its file: "ok", or a line for each of the first problems."""
    try:
        found = database.execute("PRAGMA integrity_check(20)").fetchall()
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for row in found for line in str(row[0]).splitlines()]


def _copy_all(source: Path, database: sqlite3.Connection, connection: Connection) -> Salvage:
    read = {table.name: _copy(database, connection, table) for table in metadata.sorted_tables}
    if not any(read.values()):
        raise LedgerError(f"nothing in {source} can be read as a ledger")
    # Counted at the end: where damage links a page twice, its rows come twice.
    saved = {table.name: _count(connection, table) for table in metadata.sorted_tables}
    there = max(read[calls.name], _listed(database, calls))
    return Salvage(saved, there - saved[calls.name])


def _copy(database: sqlite3.Connection, connection: Connection, table: Table) -> int:
    """Copy the rows of a table that are whole; returns how many could be read, whole or not."""
    read = 0
    insert = sqlite.insert(table).on_conflict_do_nothing()
    rows = _rows(database, table)
    try:
        while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
            read += len(batch)
            if whole := [row for row in batch if _is_sound(row, table)]:
                connection.execute(insert, whole)
    except sqlite3.DatabaseError:
        # The table is lost; the others need not be, and the number of its rows says it.
        return read
    return read


def _rows(database: sqlite3.Connection, table: Table) -> Iterator[dict[str, Any]]:
    """The rows of a table that can be read; where a page is damaged, those behind it are looked for.

    Raises:
        sqlite3.DatabaseError: The table cannot be found.
    """
    database.execute(f"SELECT 1 FROM {table.name} LIMIT 0")  # noqa: S608 - one of our names
    there = {row["name"] for row in database.execute(f"PRAGMA table_info({table.name})")}
    # What an older version's table does not have yet is empty.
    names = ", ".join(
        column.name if column.name in there else f"NULL AS {column.name}" for column in table.columns
    )
    # With >=, whose search does not pass through the page before, which may be the damaged one.
    query = f"SELECT rowid AS place, {names} FROM {table.name} WHERE rowid >= ? ORDER BY rowid LIMIT ?"  # noqa: S608 - ours
    start, failed, limit = 0, 0, ROWS_AT_ONCE
    while failed < CLOSE_STEPS + FAR_STEPS:
        try:
            rows = database.execute(query, (start, limit)).fetchall()
        except sqlite3.DatabaseError:
            # Of several rows, those before the damage are to be had one by one.
            if limit == 1:
                start += 2 ** max(0, failed - CLOSE_STEPS)
                failed += 1
            limit = 1
            continue
        if not rows:
            return
        for row in rows:
            found = dict(row)
            start = found.pop("place") + 1
            yield found
        failed, limit = 0, min(2 * limit, ROWS_AT_ONCE)


def _listed(database: sqlite3.Connection, table: Table) -> int:
    """How many rows a table has by its index, which may be whole where the table is not; 0 if it is not."""
    try:
        return int(database.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])  # noqa: S608 - ours
    except sqlite3.DatabaseError:
        return 0


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _is_sound(row: dict[str, Any], table: Table) -> bool:
    """Whether every value is one that its column takes, and an answer can be read."""
    for column in table.columns:
        value = row[column.key]
        if not (column.nullable and value is None) and not isinstance(value, column.type.python_type):
            return False
    if table is not calls:
        return True
    try:
        unpack(row["answer"])
    except ValueError:
        return False
    return True

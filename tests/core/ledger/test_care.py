"""A damaged ledger: what is damaged is said, what can be read is saved, and the file itself is left alone."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from tasks.core.errors import LedgerError
from tasks.core.ledger.care import Health, check_ledger, salvage_ledger
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tasks.core.ledger.sessions import SessionRow, find_session_row, put_session
from tasks.core.models import Failure, Phase, Purpose
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql

CALLS = 160
FAILURES = 60
PAGE = 4096
NOISE = random.Random(1)
HINTS = ("vellumforge2 ledger check", "ledger salvage")


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def said(number: int) -> str:
    """Answers of many lengths; some take several pages, also when they are compressed."""
    draw = random.Random(number)
    return draw.randbytes(draw.choice((10, 150, 450, 9000))).hex()


ANSWERS = {question(str(number)).key: answer(said(number)) for number in range(CALLS)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound ledger, made once; tests take copies."""
    path = tmp_path_factory.mktemp("whole") / "ledger.db"

    async def make() -> None:
        async with await Ledger.open(url_of(path)) as ledger:
            await ledger.put_all(
                [LedgerEntry(question(str(n)), answer(said(n)), "session_1") for n in range(CALLS)]
            )
            await put_session(ledger, SessionRow("id", "session_1", "", "{}", b"jobs"))
            await ledger.add_reached(question().key, 7)
            failed = [
                Failure(Phase.PAIRS, f"job {n}", Purpose.CHOSEN, "timeout", "no") for n in range(FAILURES)
            ]
            await ledger.add_failures("session_1", failed)

    asyncio.run(make())
    return path


@pytest.fixture
def path(tmp_path: Path, whole: Path) -> Path:
    (tmp_path / "damaged").mkdir()
    return Path(shutil.copy(whole, tmp_path / "damaged" / "ledger.db"))


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def overwrite(path: Path, page: int, content: bytes) -> None:
    """Write over a page, counted from 1."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


def leaves(path: Path, name: str = "calls") -> dict[int, int]:
    """Of a table: its leaf pages and how many rows each holds, found by walking the file itself."""
    content = read(path)
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    connection.close()
    found: dict[int, int] = {}

    def walk(page: int) -> None:
        start = (page - 1) * PAGE
        kind, cells = content[start], int.from_bytes(content[start + 3 : start + 5], "big")
        if kind == 13:
            found[page] = cells
            return
        assert kind == 5
        for cell in range(cells):
            place = start + int.from_bytes(content[start + 12 + 2 * cell : start + 14 + 2 * cell], "big")
            walk(int.from_bytes(content[place : place + 4], "big"))
        walk(int.from_bytes(content[start + 8 : start + 12], "big"))

    walk(root)
    return found


async def survivors(path: Path) -> int:
    """How many answers a ledger holds; all of them must be the right ones."""
    async with await Ledger.open(url_of(path)) as ledger:
        found = await ledger.get_many(list(ANSWERS))
    assert found == {key: ANSWERS[key] for key in found}
    return len(found)


async def id_of(path: Path) -> str:
    async with await Ledger.open(url_of(path)) as ledger:
        return ledger.id


def line_of(caught: pytest.ExceptionInfo[LedgerError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_ledger_is_sound_and_stays_as_it_is(path: Path) -> None:
    before = read(path)
    assert check_ledger(path) == Health(CALLS, 0, ())
    assert check_ledger(path).sound
    assert read(path) == before


async def test_a_ledger_in_use_can_be_checked(path: Path) -> None:
    async with await Ledger.open(url_of(path)) as ledger:
        await ledger.put(LedgerEntry(question("new"), answer("new"), "session_1"))
        assert check_ledger(path) == Health(CALLS + 1, 0, ())


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"x\x9c\x01", b"[1]", b"\xff" * 50])
async def test_damaged_answers_are_counted_and_left_out(tmp_path: Path, path: Path, damage: bytes) -> None:
    await sql(url_of(path), "UPDATE calls SET answer = :damage WHERE rowid IN (1, 77, 160)", damage=damage)
    before = read(path)
    health = check_ledger(path)
    assert (health, health.sound) == (Health(CALLS - 3, 3, ()), False)
    saved = salvage_ledger(path, tmp_path / "new.db")
    assert (saved.saved["calls"], saved.damaged) == (CALLS - 3, 3)
    assert read(path) == before
    assert check_ledger(tmp_path / "new.db") == Health(CALLS - 3, 0, ())
    assert await survivors(tmp_path / "new.db") == CALLS - 3


async def test_values_of_another_kind_do_not_end_the_salvage(tmp_path: Path, path: Path) -> None:
    await sql(url_of(path), "UPDATE calls SET finished = 'soon' WHERE rowid = 3")
    await sql(url_of(path), "UPDATE calls SET key = 'text' WHERE rowid = 4")
    await sql(url_of(path), "UPDATE calls SET session = x'ff' WHERE rowid = 5")
    await sql(url_of(path), "UPDATE calls SET answer = 5 WHERE rowid = 6")
    saved = salvage_ledger(path, tmp_path / "new.db")
    assert (saved.saved["calls"], saved.damaged) == (CALLS - 4, 4)
    assert check_ledger(path).damaged == 4


@pytest.mark.parametrize("content", [b"\0" * PAGE, b"\xff" * PAGE, NOISE.randbytes(PAGE)])
@pytest.mark.parametrize("seed", range(3))
async def test_with_overwritten_pages_every_other_row_is_saved(
    tmp_path: Path, path: Path, content: bytes, seed: int
) -> None:
    rows = leaves(path)
    damaged = random.Random(seed).sample(sorted(rows), seed + 1)
    lost = sum(rows[page] for page in damaged)
    expected = await id_of(path)
    for page in damaged:
        overwrite(path, page, content)
    before = read(path)
    health = check_ledger(path)
    assert (health.calls, health.damaged, health.sound) == (CALLS - lost, lost, False)
    saved = salvage_ledger(path, tmp_path / "new.db")
    assert saved.saved == {
        "about": 2,
        "calls": CALLS - lost,
        "failures": FAILURES,
        "milestones": 1,
        "sessions": 1,
    }
    assert saved.damaged == lost
    assert read(path) == before
    assert check_ledger(tmp_path / "new.db") == Health(CALLS - lost, 0, ())
    assert await survivors(tmp_path / "new.db") == CALLS - lost
    async with await Ledger.open(url_of(tmp_path / "new.db")) as ledger:
        assert ledger.id == expected
        assert await ledger.reached(question().key) == [7]
        assert await find_session_row(ledger, "id") == SessionRow("id", "session_1", "", "{}", b"jobs")


@pytest.mark.parametrize("end", [0, -1])
def test_the_first_and_the_last_page_of_the_calls_may_be_the_damaged_one(
    tmp_path: Path, path: Path, end: int
) -> None:
    page, lost = list(leaves(path).items())[end]
    overwrite(path, page, b"\0" * PAGE)
    assert salvage_ledger(path, tmp_path / "new.db").saved["calls"] == CALLS - lost


async def test_any_page_may_be_damaged(tmp_path: Path, path: Path) -> None:
    """Whatever the page holds: nothing crashes, nothing wrong is saved, and the source stays as it is."""
    whole = read(path)
    pages = len(whole) // PAGE
    for page in random.Random(3).sample(range(2, pages + 1), 6):
        write(path, whole)
        overwrite(path, page, NOISE.randbytes(PAGE))
        before = read(path)
        health = check_ledger(path)
        target = tmp_path / f"{page}.db"
        saved = salvage_ledger(path, target)
        assert read(path) == before
        assert saved.saved["calls"] == health.calls == await survivors(target)
        assert not health.sound
        assert check_ledger(target).sound


@pytest.mark.parametrize("lost", ["about", "failures", "milestones", "sessions", "calls"])
async def test_a_lost_table_does_not_take_the_others_along(tmp_path: Path, path: Path, lost: str) -> None:
    await sql(url_of(path), f"DROP TABLE {lost}")
    saved = salvage_ledger(path, tmp_path / "new.db").saved
    expected = {"about": 2, "calls": CALLS, "failures": FAILURES, "milestones": 1, "sessions": 1}
    assert saved == expected | {lost: 0}
    assert await survivors(tmp_path / "new.db") == expected["calls"] * (lost != "calls")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
async def test_a_truncated_ledger_is_refused_checked_and_salvaged(
    tmp_path: Path, path: Path, part: float
) -> None:
    content = read(path)
    write(path, content[: int(len(content) * part)])
    before = read(path)
    with pytest.raises(LedgerError) as caught:
        await Ledger.open(url_of(path))
    assert all(hint in line_of(caught) for hint in HINTS)
    health = check_ledger(path)
    assert not health.sound
    assert health.problems
    try:
        saved = salvage_ledger(path, tmp_path / "new.db").saved["calls"]
    except LedgerError as error:
        assert "nothing in" in str(error)  # noqa: PT017 - SQLite may refuse the whole file
        assert names_in(tmp_path) == ["damaged"]
    else:
        assert saved == health.calls == await survivors(tmp_path / "new.db")
    assert read(path) == before


@pytest.mark.parametrize("page", [1, 2])
async def test_a_ledger_with_a_damaged_beginning_is_never_started_afresh(path: Path, page: int) -> None:
    overwrite(path, page, NOISE.randbytes(PAGE))
    before = read(path)
    with pytest.raises(LedgerError) as caught:
        await Ledger.open(url_of(path))
    assert all(hint in line_of(caught) for hint in HINTS)
    assert read(path) == before


async def test_damage_that_is_found_later_says_what_helps_too(path: Path) -> None:
    for page in leaves(path):
        overwrite(path, page, b"\0" * PAGE)
    async with await Ledger.open(url_of(path)) as ledger:
        with pytest.raises(LedgerError) as caught:
            await ledger.get(question("1").key)
    assert all(hint in line_of(caught) for hint in HINTS)


async def test_what_is_no_database_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    write(path, b"my notes\n" * 1000)
    health = check_ledger(path)
    assert not health.sound
    assert any("not a database" in problem for problem in health.problems)
    with pytest.raises(LedgerError) as caught:
        salvage_ledger(path, tmp_path / "new.db")
    assert "nothing in" in line_of(caught)
    with pytest.raises(LedgerError) as caught:
        await Ledger.open(url_of(path))
    assert all(hint in line_of(caught) for hint in HINTS)
    assert names_in(tmp_path) == ["notes.db"]
    assert read(path) == b"my notes\n" * 1000


def test_an_empty_file_is_not_sound(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    assert not check_ledger(tmp_path / "ledger.db").sound
    with pytest.raises(LedgerError, match="nothing in"):
        salvage_ledger(tmp_path / "ledger.db", tmp_path / "new.db")


def test_a_missing_ledger_is_said_and_not_made(tmp_path: Path) -> None:
    for work in (check_ledger, lambda path: salvage_ledger(path, tmp_path / "new.db")):
        with pytest.raises(LedgerError) as caught:
            work(tmp_path / "ledger.db")
        assert "there is no ledger at" in line_of(caught)
    assert list(tmp_path.iterdir()) == []


def test_salvage_never_writes_over_a_file(tmp_path: Path, path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for target in (tmp_path / "mine", path):
        before = target.read_bytes()
        with pytest.raises(LedgerError) as caught:
            salvage_ledger(path, target)
        assert "is there already" in line_of(caught)
        assert target.read_bytes() == before


def test_a_target_that_cannot_be_made_is_said(tmp_path: Path, path: Path) -> None:
    with pytest.raises(LedgerError) as caught:
        salvage_ledger(path, tmp_path / "missing" / "new.db")
    assert "cannot be salvaged into" in line_of(caught)


def test_a_target_may_have_any_name(tmp_path: Path, path: Path) -> None:
    target = tmp_path / "new?mode=memory#1 %41.db"
    assert salvage_ledger(path, target).saved["calls"] == CALLS
    assert check_ledger(target).sound


def test_what_a_killed_salvage_left_is_no_ledger_and_goes_with_the_next(tmp_path: Path, path: Path) -> None:
    target = tmp_path / "new.db"
    left = tmp_path / ".new.db.abc.vellumforge.part"
    left.mkdir()
    (left / "new.db").write_bytes(b"half")
    (left / "new.db-journal").write_bytes(b"half")
    assert salvage_ledger(path, target).damaged == 0
    assert [found.name for found in tmp_path.iterdir() if "new.db" in found.name] == ["new.db"]
    assert check_ledger(target).sound

"""Export and import: a session goes on elsewhere and pays for nothing twice; a hostile archive fails."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from tasks.core.errors import SessionError, UsageError
from tasks.core.forecast.survey import survey
from tasks.core.ledger.failures import failures_by_request, failures_of, refused_questions
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import failures as failures_table
from tasks.core.ledger.schema import pack
from tasks.core.ledger.sessions import call_rows, count_calls, find_session_row
from tasks.core.models import QUESTION_REFUSED, Failure, Phase, Purpose
from tasks.core.portable import archive as archived
from tasks.core.portable import archive as refusals
from tasks.core.portable.archive import export_session, import_session
from tasks.core.session.adoption import pack_jobs
from tasks.core.session.record import read_record, record_session, settings_of
from tests.core.chat.scripted import answer
from tests.core.running import some_jobs
from tests.core.session.exported import export, ledger_at, make_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.session.exported import Made

NAME = "session_of_somebody"


def failed(byte: str, status: int | None, message: str = "no") -> Failure:
    """A failure of the request whose key is this byte, in hex, over and over."""
    cause = f"http_{status}" if status else "timeout"
    return Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, cause, message, status, 2, byte * 32)


REFUSED = failed("aa", 400, "the content\nis not “allowed”")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    """A session and its archive, which no test changes."""
    folder = tmp_path_factory.mktemp("shared")

    async def make() -> Made:
        made = await make_session(folder / "here")
        await list_failures(made, REFUSED)
        assert await export(made, folder / "session.zip") == made.calls
        return made

    return asyncio.run(make()), folder / "session.zip"


@pytest.fixture
def made(tmp_path: Path, shared: tuple[Made, Path]) -> Made:
    """A copy of the session and its ledger, under `here`."""
    folder = shared[0].folder
    shutil.copytree(folder.parent, tmp_path / "here")
    return replace(shared[0], folder=tmp_path / "here" / folder.name)


@pytest.fixture
def archive(tmp_path: Path, shared: tuple[Made, Path]) -> Path:
    return Path(shutil.copy(shared[1], tmp_path / "session.zip"))


async def list_failures(made: Made, *failures: Failure) -> None:
    """List failures of the session, at one time."""
    async with await Ledger.open(ledger_at(made.folder.parent)) as ledger:
        await ledger.add_failures(made.record.id, failures)


async def take(source: Path, output: Path, name: str | None = None) -> Path:
    async with await Ledger.open(ledger_at(output)) as ledger:
        return await import_session(source, output, ledger, name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def entries(source: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(target: Path, held: dict[str, bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, content)


async def refused(source: Path, tmp_path: Path, *words: str) -> str:
    """The one line with which an archive is refused; nothing was taken, and nothing lies about."""
    output = tmp_path / "elsewhere" / "output"
    before = names_in(tmp_path)
    async with await Ledger.open(ledger_at(output)) as ledger:
        with pytest.raises(UsageError) as caught:
            await import_session(source, output, ledger)
        assert await count_calls(ledger) == 0
        async with ledger.transaction("read") as connection:
            assert (await connection.execute(select(failures_table))).all() == []
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert names_in(output) == ["ledger.db"]
    assert names_in(output.parent) == ["output"]
    assert sorted({*before, "elsewhere"}) == names_in(tmp_path)
    return message


@pytest.mark.parametrize("half", [False, True])
async def test_a_session_goes_on_elsewhere_and_pays_for_nothing_again(tmp_path: Path, *, half: bool) -> None:
    made = await make_session(tmp_path / "here", half=half)
    assert await export(made, tmp_path / "a.zip") == made.calls
    async with await Ledger.open(ledger_at(tmp_path / "here")) as ledger:
        before = await survey(made.config, ledger)
        assert bool(before.to_pay.total()) is half
    output = tmp_path / "there"
    async with await Ledger.open(ledger_at(output)) as ledger:
        folder = await import_session(tmp_path / "a.zip", output, ledger)
        assert folder == output / made.folder.name
        record = read_record(folder)
        assert record == replace(made.record, ledger=ledger.id, from_elsewhere=True)
        row = await find_session_row(ledger, made.record.id)
        assert row is not None
        assert '"from_elsewhere":true' in row.record
        assert settings_of(record) == made.config
        assert await survey(made.config, ledger) == before
        row = await find_session_row(ledger, made.record.id)
        assert row is not None
        assert row.name == folder.name
    was, now = contents(made.folder), contents(folder)
    assert was.pop("session.json") != now.pop("session.json")
    assert was == now
    assert {"checkpoint.json", "dataset.jsonl", "config.toml.bak", "session.log"} <= set(now)


async def test_the_calls_are_the_same_rows(tmp_path: Path, made: Made, archive: Path) -> None:
    await take(archive, tmp_path / "there")
    rows = []
    for output in (tmp_path / "here", tmp_path / "there"):
        async with await Ledger.open(ledger_at(output)) as ledger:
            keys = sorted((await survey(made.config, ledger)).keys)
            rows.append(await call_rows(ledger, keys))
    assert rows[0] == rows[1]
    assert len(rows[0]) == made.calls


async def test_an_archive_of_the_format_before_is_imported(tmp_path: Path, made: Made, archive: Path) -> None:
    held = entries(archive)
    held["manifest.json"] = changed(format=1)(held["manifest.json"])
    lines = [json.loads(line) for line in held["calls.jsonl"].splitlines()]
    for line in lines:
        del line["cached_tokens"], line["estimated_tokens"]
    held["calls.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    del held["refused.json"]
    write_entries(archive, held)
    await take(archive, tmp_path / "there")
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        keys = [bytes.fromhex(line["key"]) for line in lines]
        assert len(await ledger.get_many(keys)) == made.calls
        assert await failures_of(ledger, made.record.id) == {}


async def test_a_second_import_needs_another_name_and_adds_no_calls(
    tmp_path: Path, made: Made, archive: Path
) -> None:
    output = tmp_path / "there"
    first = await take(archive, output)
    before = contents(first)
    with pytest.raises(UsageError, match=f"there is a session {first.name} .*--name"):
        await take(archive, output)
    second = await take(archive, output, NAME)
    assert second == output / NAME
    assert contents(first) == before == contents(second)
    async with await Ledger.open(ledger_at(output)) as ledger:
        assert await count_calls(ledger) == made.calls


async def test_an_import_that_was_cut_off_is_done_again(tmp_path: Path, made: Made, archive: Path) -> None:
    folder = await take(archive, tmp_path / "there")
    before = contents(folder)
    # As a kill before the last step leaves it: the calls and the ledger's own entry are there.
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert contents(await take(archive, tmp_path / "there")) == before
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        assert await count_calls(ledger) == made.calls


async def test_jobs_that_were_taken_over_go_along_and_those_that_are_there_stay(
    tmp_path: Path, made: Made
) -> None:
    mine, theirs = (pack_jobs(["Tides"], some_jobs(number)) for number in (2, 3))
    for place, jobs in (("a", mine), ("b", theirs)):
        async with await Ledger.open(ledger_at(tmp_path / "here")) as ledger:
            await export_session(
                tmp_path / place, made.folder, made.record, ledger, keys=[], questions=[], jobs=jobs
            )
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        await import_session(tmp_path / "a", tmp_path / "there", ledger)
        await import_session(tmp_path / "b", tmp_path / "there", ledger, NAME)
        row = await find_session_row(ledger, made.record.id)
    assert row is not None
    assert (row.jobs, row.name) == (mine, made.folder.name)


async def test_a_retry_of_the_first_run_does_not_find_the_copy(tmp_path: Path, made: Made) -> None:
    begun = replace(made.record, flow_run="f" * 36)
    async with await Ledger.open(ledger_at(tmp_path / "here")) as ledger:
        await record_session(ledger, made.folder.name, begun)
        await export_session(tmp_path / "a", made.folder, begun, ledger, keys=[], questions=[], jobs=None)
        await import_session(tmp_path / "a", tmp_path / "here", ledger, NAME)
        row = await find_session_row(ledger, flow_run="f" * 36)
    assert row is not None
    assert row.name == made.folder.name


async def test_links_and_hidden_files_do_not_go_along(tmp_path: Path, made: Made) -> None:
    expected = {"manifest.json", "calls.jsonl", "milestones.json", "refused.json"}
    expected |= {f"files/{name}" for name in contents(made.folder)}
    (tmp_path / "secret").write_text("mine")
    (made.folder / "link.txt").symlink_to(tmp_path / "secret")
    (made.folder / ".hidden").write_text("mine")
    (made.folder / "below").mkdir()
    await export(made, tmp_path / "a.zip")
    assert set(entries(tmp_path / "a.zip")) == expected


async def test_of_what_failed_only_what_was_refused_goes_along(tmp_path: Path, made: Made) -> None:
    mended, worse = failed("bb", 400), failed("cc", 500)
    await list_failures(made, mended, worse, failed("dd", None), replace(failed("ee", 400), request=""))
    await list_failures(made, failed("bb", 500), failed("cc", 451))
    async with await Ledger.open(ledger_at(tmp_path / "here")) as ledger:
        await ledger.add_failures("another session", [failed("ff", 403)])
    await export(made, tmp_path / "a.zip")
    await take(tmp_path / "a.zip", tmp_path / "there")
    expected = {b"\xaa" * 32: REFUSED, b"\xcc" * 32: failed("cc", 451)}
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        assert await failures_by_request(ledger, made.record.id) == expected
        refused = await refused_questions(ledger, made.record.id)
        assert refused == {key: replace(failure, cause=QUESTION_REFUSED) for key, failure in expected.items()}
        assert await failures_of(ledger, "another session") == {}
    # What was made of them there goes on to the next as it came.
    again = replace(made, folder=tmp_path / "there" / made.folder.name)
    await export(again, tmp_path / "b.zip")
    assert entries(tmp_path / "b.zip")["refused.json"] == entries(tmp_path / "a.zip")["refused.json"]


async def test_where_nothing_was_refused_the_archive_says_nothing_of_it(tmp_path: Path) -> None:
    made = await make_session(tmp_path / "here", half=True)
    await list_failures(made, failed("aa", 500))
    await export(made, tmp_path / "a.zip")
    assert "refused.json" not in entries(tmp_path / "a.zip")


async def test_a_refusal_is_listed_once_however_often_it_is_brought_in(
    tmp_path: Path, made: Made, archive: Path
) -> None:
    # Elsewhere twice, and where it is listed already.
    for output, name in (("there", None), ("there", NAME), ("here", NAME)):
        await take(archive, tmp_path / output, name)
        async with await Ledger.open(ledger_at(tmp_path / output)) as ledger:
            assert await failures_of(ledger, made.record.id) == {"http_400": 1}
            refused = replace(REFUSED, cause=QUESTION_REFUSED)
            assert await refused_questions(ledger, made.record.id) == {b"\xaa" * 32: refused}


@pytest.mark.parametrize("later", [False, True])
async def test_what_was_listed_later_counts(
    tmp_path: Path, made: Made, archive: Path, *, later: bool
) -> None:
    """A question that was asked again after the export is not refused any more, and the other way round."""
    timeout = failed("aa", None)
    if later:
        await take(archive, tmp_path / "there")
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        await ledger.add_failures(made.record.id, [timeout])
    if not later:
        await list_failures(made, REFUSED)
        await export(made, archive)
    await take(archive, tmp_path / "there", NAME)
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        last = await failures_by_request(ledger, made.record.id)
        assert last == {b"\xaa" * 32: timeout if later else REFUSED}
        assert await failures_of(ledger, made.record.id) == {"http_400": 1, "timeout": 1}


async def test_of_a_server_that_says_back_all_that_it_was_asked_the_beginning_goes_along(
    tmp_path: Path, made: Made
) -> None:
    long = replace(REFUSED, item="é\0" * 5_000, message="é\0\ud800" * 100_000)
    await list_failures(made, long)
    await export(made, tmp_path / "a.zip")
    await take(tmp_path / "a.zip", tmp_path / "there")
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        (there,) = (await refused_questions(ledger, made.record.id)).values()
    async with await Ledger.open(ledger_at(tmp_path / "here")) as ledger:
        (here,) = (await refused_questions(ledger, made.record.id)).values()
    assert there == replace(
        here, item=here.item[: refusals.LONGEST], message=here.message[: refusals.LONGEST]
    )


@pytest.mark.parametrize("place", ["missing", "file", "locked"])
async def test_an_export_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, made: Made, place: str
) -> None:
    folder = tmp_path / place
    if place == "file":
        folder.write_text("no folder")
    elif place == "locked":
        # A folder where the file should be cannot be replaced, whoever runs the test.
        (folder / "a.zip").mkdir(parents=True)
    with pytest.raises(SessionError) as caught:
        await export(made, folder / "a.zip")
    assert "\n" not in str(caught.value)
    assert "a.zip cannot be written" in str(caught.value)
    if place == "locked":
        assert [path.name for path in folder.iterdir()] == ["a.zip"]
    else:
        assert not (folder / "a.zip").exists()


async def test_an_export_that_fails_keeps_the_one_before(tmp_path: Path, made: Made, archive: Path) -> None:
    before = read(archive)
    async with await Ledger.open(ledger_at(tmp_path / "here")) as ledger:
        with pytest.raises(SessionError):
            await export_session(
                archive, tmp_path / "gone", made.record, ledger, keys=[], questions=[], jobs=None
            )
    assert read(archive) == before
    assert not [name for name in names_in(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "files/../x",
        "files/../../x",
        "files/a/b",
        "files//x",
        "files/",
        "files/.lock",
        "files/..",
        "..\\x",
        "files\\x",
        "files/..\\..\\x",
        "C:\\x",
        "x",
        "FILES/x",
        "files/a\nb",
        "files/" + "a" * 101,
        "manifest.json/x",
    ],
)
async def test_hostile_names_are_refused(tmp_path: Path, archive: Path, name: str) -> None:
    write_entries(archive, entries(archive) | {name: b"evil"})
    await refused(archive, tmp_path, "is no archive of a session", "it holds")


async def test_a_name_with_a_nul_is_refused(tmp_path: Path, archive: Path) -> None:
    write_entries(archive, entries(archive) | {"files/aXb": b"evil"})
    write(archive, read(archive).replace(b"files/aXb", b"files/a\0b"))
    await refused(archive, tmp_path, "it holds")


@pytest.mark.parametrize("name", ["files/dataset.jsonl", "manifest.json", "calls.jsonl"])
async def test_names_that_are_there_twice_are_refused(tmp_path: Path, archive: Path, name: str) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "a") as opened:
        warnings.simplefilter("ignore")
        opened.writestr(name, b"another")
    await refused(archive, tmp_path, "not those of an export")


async def test_links_are_refused(tmp_path: Path, archive: Path) -> None:
    link = zipfile.ZipInfo("files/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    await refused(archive, tmp_path, "files/link")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_other_compressions_are_refused(tmp_path: Path, archive: Path, method: int) -> None:
    with zipfile.ZipFile(archive, "a", method) as opened:
        opened.writestr("files/x", b"x" * 1000)
    await refused(archive, tmp_path, "files/x")


@pytest.mark.parametrize("missing", ["manifest.json", "calls.jsonl", "milestones.json"])
async def test_what_is_missing_is_refused(tmp_path: Path, archive: Path, missing: str) -> None:
    held = entries(archive)
    del held[missing]
    write_entries(archive, held)
    await refused(archive, tmp_path, "not those of an export")


async def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n" * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    write_entries(tmp_path / "other.zip", {"a.txt": b"a"})
    for name in ("notes.txt", "empty", "folder", "missing", "other.zip"):
        await refused(tmp_path / name, tmp_path, name, "is no archive of a session")


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | fields).encode()


def record_with(**fields: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        document = json.loads(content)
        return json.dumps(document | {"record": document["record"] | fields}).encode()

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (changed(format=3), "format 3"),
        (changed(format=0), "format 0"),
        (changed(format="1"), "manifest cannot be read"),
        (changed(calls=-1), "manifest cannot be read"),
        (changed(calls=10**30), "names"),
        (changed(calls=1), "calls of the 1 "),
        (changed(more=1), "manifest cannot be read"),
        (changed(record=[]), "manifest cannot be read"),
        (changed(record={}), "manifest cannot be read"),
        (changed(session="../session_x"), "no session's name"),
        (changed(session="session_/../../x"), "no session's name"),
        (changed(session="session_a..b"), "no session's name"),
        (changed(session="/session_x"), "no session's name"),
        (changed(session="session_x\0"), "no session's name"),
        (changed(session="session_x\n"), "no session's name"),
        (changed(session=""), "no session's name"),
        (changed(session=7), "manifest cannot be read"),
        (record_with(id=""), "session's id"),
        (record_with(id="a" * 65), "session's id"),
        (record_with(id="a\0b"), "session's id"),
        (record_with(created=float("inf")), "manifest cannot be read"),
        (record_with(seconds=float("nan")), "manifest cannot be read"),
        (record_with(settings=[]), "manifest cannot be read"),
        (lambda _: b"", "manifest cannot be read"),
        (lambda _: b"[" * 100_000, "manifest cannot be read"),
        (lambda _: b"\xff\xfe", "manifest cannot be read"),
    ],
)
async def test_bad_manifests_are_refused(
    tmp_path: Path, archive: Path, change: Callable[[bytes], bytes], word: str
) -> None:
    held = entries(archive)
    held["manifest.json"] = change(held["manifest.json"])
    write_entries(archive, held)
    await refused(archive, tmp_path, word)


BOMB = base64.b64encode(pack(answer(" " * 300_000))).decode()
"""A sound answer, but for its length."""


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "00"},
        {"key": "zz" * 32},
        {"key": "00" * 33},
        {"key": 7},
        {"key": None},
        {"purpose": "evil"},
        {"purpose": 1},
        {"model": 5},
        {"model": "a\0b"},
        {"session": "s" * 65},
        {"session": "\0"},
        {"answer": "***"},
        {"answer": ""},
        {"answer": base64.b64encode(b"no answer").decode()},
        {"answer": base64.b64encode(b"{}").decode()},
        {"answer": base64.b64encode(b'{"__class__": 1}').decode()},
        {"answer": base64.b64encode(zlib.compress(b"[1, 2]")).decode()},
        {"answer": BOMB},
        {"answer": None},
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**63},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": "1"},
        {"completion_tokens": True},
        {"finished": float("nan")},
        {"finished": float("inf")},
        {"cached_tokens": -1},
        {"estimated_tokens": 2**63},
        {"finished": None},
        {"finished": "1"},
        {"more": 1},
    ],
)
async def test_bad_calls_are_refused_and_the_good_ones_before_them_not_taken(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(archived, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(archived, "LARGEST_LINE", 100_000)
    held = entries(archive)
    *lines, last = held["calls.jsonl"].splitlines()
    bad = json.dumps(json.loads(last) | fields).encode()
    held["calls.jsonl"] = b"\n".join([*lines, bad])
    write_entries(archive, held)
    message = await refused(archive, tmp_path, "the archive is damaged")
    assert "a call cannot be read" in message or "a key is none" in message


@pytest.mark.parametrize(
    "milestones",
    [
        b"",
        b"[]",
        b'{"00": [1]}',
        b'{"KEY": 1}',
        b'{"KEY": [0]}',
        b'{"KEY": [true]}',
        b'{"KEY": ["1"]}',
        b'{"KEY": [2147483648]}',
        b'{"KEY": [1e99]}',
        b'{"KEY": [18446744073709551615]}',
        b'{"KEY": null}',
    ],
)
async def test_bad_milestones_are_refused(tmp_path: Path, archive: Path, milestones: bytes) -> None:
    content = milestones.replace(b"KEY", b"00" * 32)
    write_entries(archive, entries(archive) | {"milestones.json": content})
    await refused(archive, tmp_path, "the archive is damaged")


@pytest.mark.parametrize(
    "jobs", [b"", b"x", zlib.compress(b"[]"), zlib.compress(b'{"subtopics": [], "jobs": [{"evil": 1}]}')]
)
async def test_bad_jobs_are_refused(tmp_path: Path, archive: Path, jobs: bytes) -> None:
    write_entries(archive, entries(archive) | {"jobs.json": jobs})
    await refused(archive, tmp_path, "its jobs cannot be read")


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"[]", b"null", b'{"KEY": null}', b'{"KEY": {}}', b'{"KEY": [1]}', b"[" * 100_000, b"{}{}"],
)
async def test_a_list_of_refusals_that_is_none_is_refused(
    tmp_path: Path, archive: Path, content: bytes
) -> None:
    document = content.replace(b"KEY", b"aa" * 32)
    write_entries(archive, entries(archive) | {"refused.json": document})
    await refused(archive, tmp_path, "the archive is damaged: its refused questions cannot be read")


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": "no phase"},
        {"purpose": "no purpose"},
        {"item": None},
        {"item": "a\0b"},
        {"item": "a" * 501},
        {"cause": "a\0b"},
        {"cause": "a" * 65},
        {"message": 1},
        {"message": "a\0b"},
        {"message": "a" * 501},
        {"message": "\ud800"},
        {"status": None},
        {"status": "400"},
        {"status": 400.5},
        {"status": True},
        {"status": 99},
        {"status": 600},
        {"status": 10**30},
        {"attempts": 0},
        {"attempts": 2**31},
        {"attempts": "1"},
        {"at": None},
        {"at": "1"},
        {"at": float("nan")},
        {"at": float("inf")},
        {"session": "another"},
        {"id": 1},
        {"request": "bb" * 32},
    ],
)
async def test_bad_refusals_are_refused(tmp_path: Path, archive: Path, fields: dict[str, Any]) -> None:
    document = json.loads(entries(archive)["refused.json"])
    (refusal,) = document.values()
    content = json.dumps(document | {"bb" * 32: refusal | fields}).encode()
    write_entries(archive, entries(archive) | {"refused.json": content})
    await refused(archive, tmp_path, "the archive is damaged: its refused questions cannot be read")


@pytest.mark.parametrize(
    "request_key", ["", "aa", "AA" * 32, "aa " * 32, "aa" * 33, "zz" * 32, "aa" * 32 + "\n", "\0" * 64]
)
async def test_refusals_of_what_is_no_request_are_refused(
    tmp_path: Path, archive: Path, request_key: str
) -> None:
    (refusal,) = json.loads(entries(archive)["refused.json"]).values()
    content = json.dumps({request_key: refusal}).encode()
    write_entries(archive, entries(archive) | {"refused.json": content})
    await refused(archive, tmp_path, "its refused questions cannot be read")


async def test_more_refusals_than_anybody_has_are_not_read(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(entries(archive)["refused.json"])
    monkeypatch.setattr(refusals, "SMALL", size - 1)
    await refused(archive, tmp_path, "its refused questions cannot be read")
    monkeypatch.setattr(refusals, "SMALL", size)
    await take(archive, tmp_path / "there")


async def test_jobs_that_inflate_without_end_are_refused(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archived, "SMALL", 100_000)
    write_entries(archive, entries(archive) | {"jobs.json": pack_jobs([" " * 300_000], None)})
    await refused(archive, tmp_path, "its jobs cannot be read")


async def test_a_bomb_is_refused_by_what_it_claims(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archived, "SMALL", 100_000)
    write_entries(archive, entries(archive) | {"files/bomb": b"\0" * 6_000_000})
    await refused(archive, tmp_path, "far more than text compresses to")


async def test_a_bomb_that_claims_little_is_not_inflated(tmp_path: Path, archive: Path) -> None:
    write_entries(archive, entries(archive) | {"files/bomb": b"\0" * 6_000_000})
    real, small = struct.pack("<L", 6_000_000), struct.pack("<L", 100)
    content = read(archive)
    assert content.count(real) == 2
    write(archive, content.replace(real, small))
    await refused(archive, tmp_path, "damaged")


async def test_a_truncated_archive_is_refused(tmp_path: Path, archive: Path) -> None:
    content = read(archive)
    output = tmp_path / "there"
    async with await Ledger.open(ledger_at(output)) as ledger:
        for length in [*range(0, len(content), 64), len(content) - 1]:
            write(archive, content[:length])
            with pytest.raises(UsageError) as caught:
                await import_session(archive, output, ledger)
            assert "\n" not in str(caught.value)
        assert await count_calls(ledger) == 0
    assert names_in(output) == ["ledger.db"]


async def test_flipped_bytes_are_refused_or_do_no_harm(tmp_path: Path, made: Made, archive: Path) -> None:
    content = read(archive)
    draw = random.Random(2)
    # All of the directory at the end, which the checksums do not cover, and some of the rest.
    directory = content.rindex(b"PK\x05\x06") - 600
    places = [*draw.sample(range(directory), 60), *range(directory, len(content), 7)]
    output = tmp_path / "there"
    taken = 0
    async with await Ledger.open(ledger_at(output)) as ledger:
        for place in places:
            flipped = bytearray(content)
            flipped[place] ^= draw.randrange(1, 256)
            write(archive, bytes(flipped))
            name = f"session_{place}"
            try:
                folder = await import_session(archive, output, ledger, name)
            except UsageError as error:
                assert "\n" not in str(error)  # noqa: PT017 - others pass
                assert not (output / name).exists()
                continue
            taken += 1
            was, now = contents(made.folder), contents(folder)
            del was["session.json"], now["session.json"]
            assert was == now
        assert await count_calls(ledger) in {0, made.calls}
        assert 0 < taken < len(places) / 2
    assert not list(output.glob(".import-*"))


async def test_entries_that_one_wrong_byte_hides_are_missed(tmp_path: Path, archive: Path) -> None:
    content = bytearray(read(archive))
    hidden = content.rindex(b"files/checkpoint.json") - 46
    before = content.rindex(b"PK\x01\x02", 0, hidden)
    # All behind that entry of the directory is now its comment.
    struct.pack_into("<H", content, before + 32, len(content) - 22 - hidden)
    write(archive, bytes(content))
    await refused(archive, tmp_path, "not those of an export")


async def test_encrypted_archives_are_refused(tmp_path: Path, archive: Path) -> None:
    content = bytearray(read(archive))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 1)
    write(archive, bytes(content))
    await refused(archive, tmp_path, "damaged")


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    async with await Ledger.open(ledger_at(tmp_path / "there")) as ledger:
        with pytest.raises(SessionError, match="cannot be written"):
            await import_session(archive, tmp_path / "file", ledger)

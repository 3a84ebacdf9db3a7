"""One writer for a session, between processes, however the writer ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import SessionError
from tasks.core.session.folder import FILE_NAME, SessionLockedError, locked
from tests.core.session.full_disk import no_file_larger_than

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[3]

HOLD = """
import sys
from pathlib import Path
from tasks.core.session.folder import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

TRY = """
import sys
from pathlib import Path
from tasks.core.session.folder import locked

sys.stdin.readline()
try:
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except Exception as error:
    print(type(error).__name__, flush=True)
"""


async def started(code: str, folder: Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(folder), stdin=pipe, stdout=pipe, cwd=ROOT
    )


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def held_by_another(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await started(HOLD, folder)
    try:
        assert await said(process) == "held"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    async with held_by_another(tmp_path) as holder:
        for _ in range(2):
            with pytest.raises(SessionLockedError) as raised, locked(tmp_path):
                raise AssertionError("locked twice")
        message = str(raised.value)
        assert f"session {tmp_path.name} is being written by process {holder.pid} on " in message
        assert ", since 20" in message
        assert "\n" not in message


async def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    async with held_by_another(tmp_path) as holder:
        holder.kill()
        await holder.communicate()
        assert holder.returncode == -9
        with locked(tmp_path):
            signed = json.loads((tmp_path / FILE_NAME).read_bytes())
            assert signed["pid"] == os.getpid()


async def test_of_several_at_once_one_holds_it(tmp_path: Path) -> None:
    processes = [await started(TRY, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    answers = await asyncio.gather(*map(said, processes))
    await asyncio.gather(*(process.communicate(b"") for process in processes))
    assert sorted(answers) == ["SessionLockedError"] * 3 + ["held"]


def test_the_lock_is_given_back_and_its_file_stays(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    file = (tmp_path / FILE_NAME).stat().st_ino
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path), pytest.raises(SessionLockedError), locked(tmp_path):
        raise AssertionError("locked twice")
    assert (tmp_path / FILE_NAME).stat().st_ino == file


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path, *, there: bool) -> None:
    folder, elsewhere = tmp_path / "session_1", tmp_path / "elsewhere"
    folder.mkdir()
    if there:
        elsewhere.write_text("precious")
    (folder / FILE_NAME).symlink_to(elsewhere)
    with pytest.raises(SessionError, match=r"\.lock cannot be opened") as raised, locked(folder):
        raise AssertionError("locked")
    assert not isinstance(raised.value, SessionLockedError)
    assert elsewhere.exists() == there
    assert not there or elsewhere.read_text() == "precious"


def test_a_folder_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with (
        pytest.raises(SessionError, match=r"\.lock cannot be opened: No such file or directory$"),
        locked(tmp_path / "gone"),
    ):
        raise AssertionError("locked")


def test_a_full_disk_is_one_error_and_the_lock_is_given_back(tmp_path: Path) -> None:
    with (
        no_file_larger_than(0),
        pytest.raises(SessionError, match=r"\.lock cannot be locked: File too large$"),
        locked(tmp_path),
    ):
        raise AssertionError("locked")
    with locked(tmp_path):
        assert json.loads((tmp_path / FILE_NAME).read_bytes())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"pid": 1}', b'"text"'])
def test_a_holder_that_has_not_signed_is_another_process(tmp_path: Path, content: bytes) -> None:
    with locked(tmp_path):
        (tmp_path / FILE_NAME).write_bytes(content)
        with (
            pytest.raises(SessionLockedError, match=r"is being written by another process$"),
            locked(tmp_path),
        ):
            raise AssertionError("locked twice")

"""The atomic writer: the old file or the new one, never a part."""

from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core import files
from tasks.core.errors import UsageError
from tests.core.programs import Program
from tests.core.session.full_disk import no_file_larger_than


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")
    with files.replaced(path) as file:
        file.write(b"n" * 100_000)
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"n" * 100_000
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o000])
def test_the_umask_says_who_may_read_and_write(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write(tmp_path / "file", b"")
        with files.folder_replaced(tmp_path / "folder") as folder:
            files.write(folder / "inside", b"")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder", "folder/inside")]
    assert modes == [0o666 & ~umask, 0o777 & ~umask, 0o666 & ~umask]


def test_a_path_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, words in (
        ("file", "it is a file"),
        ("file/below/it", "file is a file"),
        ("link", "link that leads nowhere"),
        ("link/below", "link that leads nowhere"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            files.check_folder(tmp_path / name, writes=False)
        assert len(refused.value.lines) == 1
    files.check_folder(tmp_path / "not" / "there" / "yet", writes=True)
    files.check_folder(tmp_path, writes=True)


def test_a_path_to_which_no_file_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, words in (("", "is a folder"), ("file/x", "is a file"), ("nowhere/x", "there is no folder")):
        with pytest.raises(UsageError, match=words):
            files.check_file(tmp_path / name)
    files.check_file(tmp_path / "file")
    files.check_file(tmp_path / "new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_closed_to_this_user_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="closed to this user"):
        files.check_folder(closed / "output", writes=True)
    files.check_folder(closed / "output", writes=False)


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with files.replaced(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with no_file_larger_than(1000), pytest.raises(OSError, match="File too large"):
        files.write(path, b"x" * 1001)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "gone" / "file", b"")


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".dataset.jsonl.abc123.part", "notes.part", ".lock", "dataset.jsonl"):
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "dataset.jsonl", "notes.part"]


WORK = """
import sys
from pathlib import Path
from tasks.core import files

folder = Path(sys.argv[1])
with (
    files.replaced(folder / "export.zip") as file,
    files.folder_replaced(folder / "trl"),
    files.folder_beside(folder, ".import-"),
    files.folder_beside(folder, ".merge-"),
):
    file.write(b"half")
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("foreign", [True, False])
def test_what_another_process_is_writing_stays_and_goes_once_it_is_dead(
    tmp_path: Path,
    foreign: bool,  # noqa: FBT001 - parametrized
) -> None:
    (tmp_path / "trl").mkdir()
    with Program(WORK, str(tmp_path)) as writer:
        assert writer.stdout.readline() == "ready\n"
        there = names(tmp_path)
        assert len(there) == 5
        files.sweep(tmp_path, foreign=foreign)
        assert names(tmp_path) == there
        writer.kill()
        files.sweep(tmp_path, foreign=foreign)
        kept = [name for name in there if name.startswith((".import-", ".merge-"))] if foreign else []
        assert names(tmp_path) == [*kept, "trl"]


def test_the_next_writer_sweeps_what_a_killed_one_left_in_anybodys_folder(tmp_path: Path) -> None:
    with Program(WORK, str(tmp_path)) as writer:
        assert writer.stdout.readline() == "ready\n"
        writer.kill()
    (tmp_path / ".film.mkv.part").touch()
    files.write(tmp_path / "another.zip", b"whole")
    left = [name for name in names(tmp_path) if not name.startswith((".import-", ".merge-"))]
    assert left == [".film.mkv.part", "another.zip"]


def test_a_writer_is_swept_by_nobody_until_its_file_is_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.replaced(path) as file:
        file.write(b"new")
        files.sweep(tmp_path)
    with files.folder_replaced(tmp_path / "trl") as folder:
        (folder / "row").touch()
        files.sweep(tmp_path)
    assert (path.read_bytes(), names(tmp_path / "trl")) == (b"new", ["row"])


def test_what_was_being_removed_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".import-1", ".a.part", ".removed-session_1", ".merge-2"):
        (tmp_path / name).mkdir()
    order: list[str] = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: order.append(path.name))
    files.sweep(tmp_path)
    assert order[0] == ".removed-session_1"
    assert len(order) == 4


def test_a_link_with_such_a_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / ".import-1").symlink_to(tmp_path / "precious")
    files.sweep(tmp_path)
    assert names(tmp_path / "precious") == ["file"]


def test_a_pipe_or_a_device_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is a pipe or a device, and no file"):
            files.read(path)
    with pytest.raises(OSError, match="it is a pipe or a device, and no file"):
        files.begun(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        files.read(tmp_path)


def test_a_pipe_in_a_files_place_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(files.read_stream, path, 200_000)
        path.write_bytes(b"x" * 150_000)
        assert read.result() == b"x" * 150_000
    with pytest.raises(OSError, match=r"nothing came through this pipe for 0\.01 s"):
        files.read_stream(path, 10, 0.01)

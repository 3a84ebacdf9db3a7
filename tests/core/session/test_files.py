"""The atomic writer: the old file or the new one, never a part."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import UsageError
from tasks.core.session import files
from tests.core.session.full_disk import no_file_larger_than

if TYPE_CHECKING:
    from pathlib import Path


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

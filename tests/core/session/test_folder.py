"""The session folder: one name for one session, whoever else starts at the same time."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import SessionError
from tasks.core.session.folder import create_folder
from tests.core.programs import Program, together

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 3, 9, 8, 7, 6, 999_999, tzinfo=UTC)
NAME = "session_2026-03-09T08-07-06"

MANY = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tasks.core.session.folder import create_folder

now = datetime(2026, 3, 9, 8, 7, 6, tzinfo=UTC)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
for _ in range(200):
    print(create_folder(Path(sys.argv[1]), now, lambda folder: (folder / "first").touch()).name)
"""


def fill(folder: Path) -> None:
    (folder / "first").touch()


def test_a_folder_is_found_with_its_first_file_or_not_at_all(tmp_path: Path) -> None:
    def look(made: Path) -> None:
        assert [found.name for found in tmp_path.glob("session_*")] == []
        fill(made)

    assert [found.name for found in create_folder(tmp_path, NOW, look).iterdir()] == ["first"]


def test_a_folder_that_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def fail(made: Path) -> None:
        fill(made)
        raise SessionError("no room")

    with pytest.raises(SessionError, match="no room"):
        create_folder(tmp_path, NOW, fail)
    assert list(tmp_path.iterdir()) == []


def test_sessions_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "output"
    folders = [create_folder(output, NOW, fill) for _ in range(3)]
    assert folders == [output / NAME, output / f"{NAME}-2", output / f"{NAME}-3"]
    assert all(folder.is_dir() for folder in folders)


def test_two_processes_at_once_never_share_a_folder(tmp_path: Path) -> None:
    with ExitStack() as running:
        ended = together([running.enter_context(Program(MANY, str(tmp_path / "output"))) for _ in range(2)])
    names = [name for said, _ in ended for name in said.split()]
    assert len(names) == len(set(names)) == 400
    assert set(names) == {folder.name for folder in (tmp_path / "output").iterdir()}


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("kept")
    with pytest.raises(SessionError, match=f"{output} cannot be made: File exists"):
        create_folder(output, NOW, fill)
    with pytest.raises(SessionError, match=r"cannot be made: Not a directory"):
        create_folder(output / "inner", NOW, fill)
    assert output.read_text() == "kept"


def test_an_output_folder_that_is_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SessionError, match=f"{output} cannot be made"):
        create_folder(output, NOW, fill)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"cannot be made: File name too long") as raised:
        create_folder(tmp_path / ("x" * 300), NOW, fill)
    assert "\n" not in str(raised.value)

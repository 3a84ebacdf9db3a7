"""Sessions by name: whatever the name, nothing outside of the output folder is found by it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.errors import UsageError
from tasks.core.session.folder import all_sessions, check_name, find_session

if TYPE_CHECKING:
    from pathlib import Path

NAME = "session_2026-01-31T12-00-00"
LONGEST = "session_" + "x" * 100

# Pieces that attackers put names together of, so that the law is tried on more than noise.
pieces = st.sampled_from(
    [NAME, "session_", "..", "/", "\\", "\0", "\n", "~", "-", ".", "a", "%2e", "é", "$HOME"]
)
names = st.text() | st.lists(pieces, max_size=6).map("".join)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with sessions, among much that is none, beside a session outside."""
    base = tmp_path_factory.mktemp("find")
    (base / NAME).mkdir()
    folder = base / "output"
    for name in (NAME, f"{NAME}-2", LONGEST, "session_1/deeper", "notes", "session_", "session_a..b"):
        (folder / name).mkdir(parents=True)
    (folder / "session_file").write_text("a file")
    (folder / "session_out").symlink_to(base / NAME)
    (folder / "session_up").symlink_to("..")
    (folder / "session_self").symlink_to(folder)
    (folder / "session_deeper").symlink_to(folder / "session_1" / "deeper")
    (folder / "session_nowhere").symlink_to(base / "nowhere")
    (folder / "session_loop").symlink_to(folder / "session_loop")
    (folder / "session_alias").symlink_to(NAME)
    return folder


@pytest.mark.parametrize("name", [NAME, f"{NAME}-2", LONGEST, "session_1"])
def test_a_session_is_found_by_its_name(output: Path, name: str) -> None:
    assert find_session(output, name) == output / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "notes",
        "session_",
        "session_..",
        "session_a..b",
        "session_1/",
        "session_1/deeper",
        "session_1/..",
        "session_1/../../" + NAME,
        "../" + NAME,
        "./" + NAME,
        "session_1\\deeper",
        "/",
        "/etc",
        NAME + "\0",
        "\0",
        NAME + "\n",
        "\n" + NAME,
        " " + NAME,
        "SESSION_1",
        "session_é",
        "session_\N{DIVISION SLASH}",
        "session_\N{ARABIC-INDIC DIGIT ONE}",
        "session_-rf",
        "session_*",
        "~",
        LONGEST + "x",
        "session_" + "x" * 10_000,
    ],
)
def test_what_is_no_name_is_refused(output: Path, name: str) -> None:
    for refuse in (lambda: check_name(name), lambda: find_session(output, name)):
        with pytest.raises(UsageError, match="is no session's name") as raised:
            refuse()
        # Whatever is in it is shown so that it does nothing to a terminal.
        assert str(raised.value).isprintable()


def test_an_absolute_path_is_refused(output: Path) -> None:
    for path in (output / NAME, output.parent / NAME):
        with pytest.raises(UsageError, match="is no session's name"):
            find_session(output, str(path))


@pytest.mark.parametrize("name", ["session_out", "session_up", "session_self", "session_deeper"])
def test_a_link_that_leads_out_is_refused(output: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"session {name} is a link that leads out of"):
        find_session(output, name)


@pytest.mark.parametrize("name", ["session_none", "session_file", "session_nowhere", "session_loop"])
def test_what_is_not_there_is_said_to_be_not_there(output: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no session {name} in .*checkpoint list"):
        find_session(output, name)


@given(names)
@example(NAME)
@example("session_alias")
def test_no_text_leads_out_of_the_folder(output: Path, name: str) -> None:
    try:
        found = find_session(output, name)
    except UsageError:
        return
    assert found.name == name
    assert found.parent == output
    assert os.path.realpath(found.parent) == os.path.dirname(os.path.realpath(found))  # noqa: PTH120 - another way than the code's


@given(names)
def test_no_text_is_found_where_nothing_is(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    with pytest.raises(UsageError):
        find_session(tmp_path_factory.getbasetemp() / "nothing", name)


def test_all_sessions_are_those_that_can_be_found(output: Path) -> None:
    assert [folder.name for folder in all_sessions(output)] == [
        LONGEST,
        "session_alias",
        f"{NAME}-2",
        NAME,
        "session_1",
    ]
    assert all_sessions(output / "nothing") == []


def test_an_output_folder_may_be_a_link_itself(output: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(output)
    assert find_session(link, NAME) == link / NAME
    assert [folder.name for folder in all_sessions(link)] == [folder.name for folder in all_sessions(output)]

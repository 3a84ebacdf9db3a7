"""Cleaning up: what goes, what stays and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import SessionError, UsageError
from tasks.core.session.folder import locked
from tasks.core.session.listing import (
    UNITS,
    Removal,
    is_finished,
    judge_sessions,
    parse_age,
    remove_sessions,
)
from tasks.core.session.record import SessionRecord, write_record

if TYPE_CHECKING:
    from pathlib import Path

NOW = 2_000_000_000.0
DAY = 86400
HOLD = """
import sys
from pathlib import Path
from tasks.core.session.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def make(output: Path, number: int, *, complete: bool = True, days: float = 0) -> Path:
    """A session of ours; a larger number is a newer name."""
    folder = output / f"session_2026-01-{number:02}T00-00-00"
    folder.mkdir(parents=True)
    write_record(folder, SessionRecord(f"id-{number}", 0.0, {}, complete=complete))
    (folder / "dataset.jsonl").write_text("{}\n")
    age(folder, days)
    return folder


def foreign(output: Path, number: int, phase: str, days: float = 0) -> Path:
    """A session as VellumForge2 leaves it."""
    folder = output / f"session_2026-02-{number:02}T00-00-00"
    folder.mkdir(parents=True)
    document: dict[str, Any] = {"session_id": folder.name, "current_phase": phase, "prompts": None}
    (folder / "checkpoint.json").write_text(json.dumps(document))
    age(folder, days)
    return folder


def age(folder: Path, days: float) -> None:
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (NOW - days * DAY,) * 2)


def judged(
    output: Path, *, older_than: int | None = None, keep_last: int = 0, force: bool = False
) -> list[Removal]:
    return judge_sessions(output, now=NOW, older_than=older_than, keep_last=keep_last, force=force)


def files_of(output: Path) -> list[str]:
    return sorted(str(path.relative_to(output)) for path in output.rglob("*"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("older_than", "keep_last", "candidates"),
    [
        (None, 0, {1, 2, 3, 4}),
        (None, 1, {1, 2, 3}),
        (None, 2, {1, 2}),
        (None, 4, set()),
        (None, 9, set()),
        (5 * DAY, 0, {1, 2, 3}),
        (15 * DAY, 0, {1, 2}),
        (10 * DAY, 3, {1}),
        (99 * DAY, 0, set()),
        (0, 0, {1, 2, 3, 4}),
    ],
)
def test_what_goes_by_age_number_and_force(
    tmp_path: Path,
    older_than: int | None,
    keep_last: int,
    candidates: set[int],
    force: bool,  # noqa: FBT001 - parametrized
) -> None:
    # By number: 40, 30, 10 and 0 days old; 2 and 4 are not finished.
    days = {1: 40, 2: 30, 3: 10, 4: 0}
    folders = {
        number: make(tmp_path, number, complete=number % 2 == 1, days=old) for number, old in days.items()
    }
    before = files_of(tmp_path)
    verdicts = judged(tmp_path, older_than=older_than, keep_last=keep_last, force=force)
    assert [verdict.folder for verdict in verdicts] == [folders[number] for number in (4, 3, 2, 1)]
    expected = {number for number in candidates if force or number % 2 == 1}
    assert {verdict.folder for verdict in verdicts if verdict.remove} == {folders[n] for n in expected}
    # That was the dry run.
    assert files_of(tmp_path) == before
    assert remove_sessions(verdicts) == verdicts
    left = [folders[number].name for number in days if number not in expected]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_the_reasons_are_given(tmp_path: Path) -> None:
    make(tmp_path, 5, days=50)
    make(tmp_path, 4, days=1)
    make(tmp_path, 3, complete=False, days=50)
    make(tmp_path, 2, days=50)
    verdicts = judged(tmp_path, older_than=2 * DAY, keep_last=1)
    assert [(verdict.remove, verdict.reason) for verdict in verdicts] == [
        (False, "one of the last 1"),
        (False, "too young"),
        (False, "not finished; needs --force"),
        (True, "finished"),
    ]
    forced = judged(tmp_path, older_than=2 * DAY, keep_last=1, force=True)
    assert (forced[2].remove, forced[2].reason) == (True, "not finished, and --force was given")


def test_the_youngest_file_is_the_sessions_age(tmp_path: Path) -> None:
    folder = make(tmp_path, 1, days=50)
    os.utime(folder / "dataset.jsonl", (NOW - 10,) * 2)
    assert not judged(tmp_path, older_than=11)[0].remove
    assert judged(tmp_path, older_than=10)[0].remove


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}', "[]"])
def test_what_cannot_be_read_is_not_finished(tmp_path: Path, text: str) -> None:
    folder = make(tmp_path, 1)
    (folder / "session.json").write_text(text)
    assert not is_finished(folder)
    (folder / "checkpoint.json").write_text(text)
    assert not is_finished(folder)
    assert not judged(tmp_path)[0].remove


def test_complete_sessions_of_vellumforge2_are_finished_and_others_are_not(tmp_path: Path) -> None:
    done = foreign(tmp_path, 1, "complete")
    half = foreign(tmp_path, 2, "preference_pairs")
    assert is_finished(done)
    assert not is_finished(half)
    remove_sessions(judged(tmp_path))
    assert list(tmp_path.iterdir()) == [half]


def test_our_record_counts_more_than_the_checkpoint(tmp_path: Path) -> None:
    folder = foreign(tmp_path, 1, "complete")
    write_record(folder, SessionRecord("id", 0.0, {}, complete=False))
    assert not is_finished(folder)


def test_a_session_that_another_process_writes_to_stays_and_it_says_so(tmp_path: Path) -> None:
    held, free = make(tmp_path, 2), make(tmp_path, 1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        first, second = remove_sessions(judged(tmp_path, force=True))
        assert (first.folder, first.remove) == (held, False)
        assert f"session {held.name} is being written by process {holder.pid}" in first.reason
        assert (second.folder, second.remove) == (free, True)
        assert (held / "dataset.jsonl").read_text() == "{}\n"
        assert not free.exists()
        assert holder.stdin is not None
        holder.stdin.close()
    assert remove_sessions(judged(tmp_path)) == [Removal(held, remove=True, reason="finished")]
    assert list(tmp_path.iterdir()) == []


def test_a_session_of_this_process_stays_too(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    with locked(folder):
        assert not remove_sessions(judged(tmp_path))[0].remove
    assert (folder / "dataset.jsonl").exists()


def test_a_removal_that_was_cut_off_is_in_nobodys_way(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    left = tmp_path / f".removed-{folder.name}"
    (left / "below").mkdir(parents=True)
    (left / "dataset.jsonl").write_text("old")
    assert [verdict.folder for verdict in judged(tmp_path)] == [folder]
    remove_sessions(judged(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_only_sessions_are_touched(tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere", 1)
    output = tmp_path / "output"
    (output / "notes").mkdir(parents=True)
    (output / "ledger.db").write_text("ledger")
    (output / "session_file").write_text("a file")
    (output / "session_link").symlink_to(elsewhere)
    before = files_of(tmp_path)
    assert judged(output, force=True) == []
    assert remove_sessions([]) == []
    assert files_of(tmp_path) == before


def test_links_in_a_session_go_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    folder = make(tmp_path / "output", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "mine")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    remove_sessions(judged(tmp_path / "output"))
    assert not folder.exists()
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_an_empty_folder_is_a_session_that_is_not_finished(tmp_path: Path) -> None:
    folder = tmp_path / "session_1"
    folder.mkdir()
    age(folder, 3)
    assert judged(tmp_path, older_than=4 * DAY)[0].reason == "too young"
    assert judged(tmp_path, older_than=2 * DAY)[0].reason == "not finished; needs --force"


def test_a_session_that_is_gone_meanwhile_is_said(tmp_path: Path) -> None:
    with pytest.raises(SessionError) as caught:
        remove_sessions([Removal(tmp_path / "session_1", remove=True, reason="finished")])
    assert "\n" not in str(caught.value)


def test_no_folder_holds_no_sessions(tmp_path: Path) -> None:
    assert judged(tmp_path / "missing") == []


def test_fewer_than_none_cannot_be_kept(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    with pytest.raises(UsageError):
        judged(tmp_path, keep_last=-1)
    assert folder.exists()


@given(st.integers(0, 10**9 - 1), st.sampled_from(sorted(UNITS)))
def test_ages_are_numbers_with_a_unit(number: int, unit: str) -> None:
    assert parse_age(f"{number}{unit}") == number * UNITS[unit]


def test_units_are_what_they_are_called() -> None:
    assert [parse_age(text) for text in ("90s", "45m", "12h", "30d", "2w")] == [
        90,
        45 * 60,
        12 * 3600,
        30 * DAY,
        14 * DAY,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "30",
        "30 d",
        "-1d",
        "1.5d",
        "1y",
        "30D",
        "30d\n",
        "1e3d",
        "30days",
        " 30d",
        "1" * 10 + "d",
        "²d",
    ],
)
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no age") as caught:
        parse_age(text)
    assert "\n" not in str(caught.value)

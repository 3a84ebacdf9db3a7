"""Sessions as people see them, in VellumForge2's own forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.core.session.checkpoint import Checkpoint, read_checkpoint
from tasks.core.session.listing import (
    go_duration,
    list_sessions,
    render_checkpoint,
    render_ending,
    render_list,
)
from tasks.core.session.record import Counts, SessionRecord, write_record
from tests.core.session.vellumforge2 import checkpoint, go_jobs, write_session

if TYPE_CHECKING:
    from pathlib import Path

JOBS = go_jobs()

LIST = """\
Available sessions:

SESSION                             CHECKPOINT   PHASE        PROGRESS
--------------------------------------------------------------------------------
session_2025-10-28T14-30-00         Yes          pairs        60.5%
session_2025-10-28T13-15-22         Yes          complete     100.0%
session_2025-10-27T18-26-03         No           N/A          0.0%"""

INTERRUPTED = """\
Checkpoint Information for: session_2026-11-23T04-24-33
================================================================================
Session ID:          b076af13-fb46-4f5c-81e6-6bfab68c8775
Created At:          2026-11-23 04:24:33
Last Saved At:       2026-11-23 04:24:59
Current Phase:       pairs
Config Hash:         87c06cb5f6a749c5

Phase Progress:
  Subtopics:         Complete (8 items)
  Prompts:           Complete (40 items)
  Preference Pairs:  20 / 40 completed (50.0%)

Statistics:
  Total Prompts:     40
  Successful:        20
  Failed:            0
  Total Duration:    0s
  Average Duration:  0s

To resume this session, run:
  Set resume_from_session = "session_2026-11-23T04-24-33" in config.toml
  OR use: vellumforge2 checkpoint resume session_2026-11-23T04-24-33"""

COMPLETE = """\
Checkpoint Information for: session_2026-11-23T04-24-33
================================================================================
Session ID:          b076af13-fb46-4f5c-81e6-6bfab68c8775
Created At:          2026-11-23 04:24:33
Last Saved At:       2026-11-23 04:24:59
Current Phase:       complete
Config Hash:         87c06cb5f6a749c5

Phase Progress:
  Subtopics:         Complete (8 items)
  Prompts:           Complete (40 items)
  Preference Pairs:  40 / 40 completed (100.0%)

Statistics:
  Total Prompts:     40
  Successful:        40
  Failed:            0
  Total Duration:    9.924624ms
  Average Duration:  827.052µs

This session is complete."""

SPECIFIED = """\
Checkpoint Information for: session_2025-10-28T14-30-00
================================================================================
Session ID:          a3f4e2d1-9c8b-4a5f-8e7d-1a2b3c4d5e6f
Created At:          2025-10-28 14:30:00
Last Saved At:       2025-10-28 14:45:32
Current Phase:       pairs
Config Hash:         a1b2c3d4

Phase Progress:
  Subtopics:         Complete (100 items)
  Prompts:           Complete (500 items)
  Preference Pairs:  302 / 500 completed (60.4%)

Statistics:
  Total Prompts:     500
  Successful:        302
  Failed:            0
  Total Duration:    15m32s
  Average Duration:  3.09s"""

STARTED = """\
Phase Progress:
  Subtopics:         Complete (8 items)
  Prompts:           Incomplete
  Preference Pairs:  0 / 0 completed
"""


def test_the_list_has_the_form_of_the_specification(tmp_path: Path) -> None:
    jobs = go_jobs(40, 5)
    write_session(tmp_path, checkpoint(jobs, range(121)), name="session_2025-10-28T14-30-00")
    write_session(
        tmp_path, checkpoint(jobs, range(200), phase="complete"), name="session_2025-10-28T13-15-22"
    )
    (tmp_path / "session_2025-10-27T18-26-03").mkdir()
    (tmp_path / "notes").mkdir()
    assert "\n".join(render_list(list_sessions(tmp_path))) == LIST


def test_what_became_of_the_prompts_stands_behind_the_progress(tmp_path: Path) -> None:
    """Jobs that yielded no usable pair are done, and are not what there is."""
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)))
    counts = Counts(40, 5, 20, {"bad_scores": 12, "fil\x1btered": 1}, {"timeout": 2})
    write_record(folder, SessionRecord("id", 0.0, {}, counts=counts))
    *_, line = render_list(list_sessions(tmp_path))
    assert line == (
        f"{folder.name:<35} Yes          pairs        12.5%    "
        "kept 5 of 40 · tried 20 · 12 bad_scores · 2 timeout · 1 fil tered"
    )
    (folder / "checkpoint.json").unlink()
    [listed] = list_sessions(tmp_path)
    assert (listed.checkpoint, listed.phase, listed.progress) == ("No", "pairs", 0.125)
    write_record(folder, SessionRecord("id", 0.0, {}, complete=True, counts=Counts(40, 40, 40)))
    [listed] = list_sessions(tmp_path)
    assert (listed.phase, listed.progress) == ("complete", 1.0)
    assert render_list([listed])[-1].endswith("100.0%   kept 40 of 40 · tried 40")


def test_no_sessions_are_said_to_be_none(tmp_path: Path) -> None:
    assert render_list(list_sessions(tmp_path / "nowhere")) == ["No sessions found."]


def test_a_damaged_checkpoint_does_not_spoil_the_list(tmp_path: Path) -> None:
    (write_session(tmp_path, checkpoint(JOBS, [])) / "checkpoint.json").write_bytes(b'{"session_id": "b0')
    [listed] = list_sessions(tmp_path)
    assert (listed.checkpoint, listed.phase, listed.progress) == ("Damaged", "N/A", 0.0)


def test_a_finished_session_of_ours_without_a_checkpoint_is_listed_as_complete(tmp_path: Path) -> None:
    folder = tmp_path / "session_2025-10-27T18-26-03"
    folder.mkdir()
    write_record(folder, SessionRecord("id", 0.0, {}, complete=True))
    [listed] = list_sessions(tmp_path)
    assert (listed.checkpoint, listed.phase, listed.progress) == ("No", "complete", 1.0)


@pytest.mark.parametrize(
    ("phase", "done", "expected"), [("pairs", 20, INTERRUPTED), ("complete", 40, COMPLETE)]
)
def test_an_inspection_is_what_vellumforge2_prints(
    tmp_path: Path, phase: str, done: int, expected: str
) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, range(done), phase=phase))
    found = read_checkpoint(folder)
    assert found is not None
    ending = render_ending(folder.name, complete=phase == "complete")
    assert "\n".join([*render_checkpoint(folder.name, found), "", *ending]) == expected


def test_an_inspection_has_the_form_of_the_specification() -> None:
    document = checkpoint(go_jobs(100, 5), range(302)) | {
        "session_id": "a3f4e2d1-9c8b-4a5f-8e7d-1a2b3c4d5e6f",
        "created_at": "2025-10-28T14:30:00.123456789Z",
        "last_saved_at": "2025-10-28T14:45:32Z",
        "config_hash": "a1b2c3d4",
    }
    document["stats"] |= {"TotalDuration": 932 * 10**9, "AverageDuration": 3_090_000_000}
    found = Checkpoint.model_validate(document)
    assert "\n".join(render_checkpoint("session_2025-10-28T14-30-00", found)) == SPECIFIED


def test_a_session_without_prompts_has_no_share_of_them() -> None:
    document = checkpoint(JOBS, [], phase="prompts", prompts_complete=False)
    assert STARTED in "\n".join(render_checkpoint("session_1", Checkpoint.model_validate(document)))


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (999, "999ns"),
        (1_000, "1µs"),
        (1_100, "1.1µs"),
        (827_052, "827.052µs"),
        (999_999, "999.999µs"),
        (1_000_000, "1ms"),
        (9_924_624, "9.924624ms"),
        (2_200_000, "2.2ms"),
        (999_999_999, "999.999999ms"),
        (1_000_000_000, "1s"),
        (3_090_000_000, "3.09s"),
        (3_300_000_001, "3.300000001s"),
        (59_999_999_999, "59.999999999s"),
        (60_000_000_000, "1m0s"),
        (245_000_000_000, "4m5s"),
        (245_001_000_000, "4m5.001s"),
        (932_000_000_000, "15m32s"),
        (3_600_000_000_000, "1h0m0s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (100 * 3_600_000_000_000 + 1, "100h0m0.000000001s"),
        (-1_500_000_000, "-1.5s"),
        (-1, "-1ns"),
    ],
)
def test_a_duration_is_printed_as_go_prints_it(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text

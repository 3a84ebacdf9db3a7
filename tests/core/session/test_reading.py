"""Checkpoints read: VellumForge2's own, ours, and whatever else a file may hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import SessionError
from tasks.core.models import Phase
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.listing import render_checkpoint
from tests.core.session.vellumforge2 import UUID, checkpoint, go_jobs, subtopic_name, write_session

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.session.checkpoint import Checkpoint

JOBS = go_jobs()
FIELDS = sorted(checkpoint(JOBS, []))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(["ID", "Prompt", "TotalPrompts", "AverageDuration"])
            | st.integers().map(str),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), anything, max_size=5)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(folder: Path, content: bytes) -> Checkpoint | None:
    """A checkpoint that can be shown, or None with an error of one line."""
    (folder / "checkpoint.json").write_bytes(content)
    try:
        found = read_checkpoint(folder)
    except SessionError as error:
        refusal = str(error)
    else:
        assert found is not None
        return shown(found)
    assert refusal.isprintable()
    assert str(folder / "checkpoint.json") in refusal
    return None


def shown(found: Checkpoint) -> Checkpoint:
    """The same, which people can look at."""
    assert all(line.isprintable() for line in render_checkpoint("session_1", found))
    assert found.progress >= 0
    return found


def test_what_vellumforge2_wrote_is_read(tmp_path: Path) -> None:
    found = read_checkpoint(write_session(tmp_path, checkpoint(JOBS, range(20))))
    assert found is not None
    assert found.jobs == JOBS
    assert found.completed == set(range(20))
    assert found.subtopics == tuple(subtopic_name(index) for index in range(8))
    assert (found.session_id, found.current_phase, found.progress) == (UUID, Phase.PAIRS, 0.5)
    assert (found.subtopics_complete, found.prompts_complete, found.failed_subtopics) == (True, True, ())


def test_empty_lists_are_null_there(tmp_path: Path) -> None:
    document = checkpoint([], [], phase="prompts", prompts_complete=False)
    assert (document["subtopics"], document["prompts"]) == (None, None)
    found = read_checkpoint(write_session(tmp_path, document | {"completed_job_ids": None}))
    assert found is not None
    assert (found.subtopics, found.prompts, found.completed, found.progress) == ((), (), frozenset(), 0.0)


def test_a_complete_session_is_complete_whatever_failed(tmp_path: Path) -> None:
    found = read_checkpoint(write_session(tmp_path, checkpoint(JOBS, range(39), phase="complete")))
    assert found is not None
    assert found.progress == 1.0


def test_a_folder_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").mkdir()
    with pytest.raises(SessionError, match="cannot be read: Is a directory"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"current_phase": "elsewhere"}, "current_phase: "),
        ({"prompts": [{"ID": 0}]}, "prompts.0.Prompt: "),
        ({"prompts": [{"ID": -1, "Prompt": "p"}]}, "prompts.0.ID: "),
        ({"completed_job_ids": {"a\nb\x1b[2J": True}}, r"completed_job_ids.'a\nb\x1b[2J'"),
        ({"session_id": "a\x1b[2J"}, "session_id: "),
        ({"created_at": "2026-01-31\n"}, "created_at: "),
        ({"stats": {"FailureCount": "many"}}, "stats.FailureCount: "),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, []) | change)
    with pytest.raises(SessionError) as caught:
        read_checkpoint(folder)
    assert f"checkpoint.json is damaged: {message}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"7", b"{", b'"\xff"', b"\xef\xbb\xbf{}", b"[" * 5000]
)
def test_what_is_no_object_is_damage(tmp_path: Path, content: bytes) -> None:
    assert read_or_refuse(tmp_path, content) is None


def test_a_checkpoint_that_was_cut_off_anywhere_is_damage(tmp_path: Path) -> None:
    whole = (write_session(tmp_path, checkpoint(go_jobs(1, 2), [0])) / "checkpoint.json").read_bytes()
    assert read_or_refuse(tmp_path, whole) is not None
    for size in range(0, len(whole), 16):
        assert read_or_refuse(tmp_path, whole[:size]) is None


@same_folder
@given(st.binary(max_size=200))
def test_any_bytes_are_a_checkpoint_or_one_line_of_error(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path, content)


@same_folder
@given(documents)
def test_any_json_is_a_checkpoint_or_one_line_of_error(tmp_path: Path, document: dict[str, Any]) -> None:
    read_or_refuse(tmp_path, json.dumps(document).encode())

"""`dataset.jsonl`: rows come in any order, and stand in the order of ids."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import SessionError
from tasks.core.session.dataset import DatasetFile
from tests.core.session.full_disk import no_file_larger_than

ROWS_BEFORE = 3


def row(job_id: int, length: int = 5) -> bytes:
    return b'{"id":%d,"text":"%s"}\n' % (job_id, "é".encode() * length)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 300), st.integers(1, 2))))
def test_whatever_the_order_of_arrival_rows_stand_in_the_order_of_ids(
    arrived: list[tuple[int, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.jsonl"
        dataset = DatasetFile(path)
        first: dict[int, bytes] = {}
        for job_id, length, rows in arrived:
            lines = row(job_id, length) * rows
            dataset.add(job_id, lines)
            first.setdefault(job_id, lines)
        assert dataset.jobs == len(first)
        dataset.finish()
        assert path.read_bytes() == b"".join(lines for _, lines in sorted(first.items()))
        assert [entry.name for entry in path.parent.iterdir()] == ["dataset.jsonl"]
        # What people are shown is the first of them.
        assert dataset.first_row() == path.read_text().partition("\n")[0]


def test_the_growing_file_can_be_read_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    dataset = DatasetFile(path)
    assert path.read_bytes() == b""
    dataset.add(7, row(7))
    dataset.flush()
    assert path.read_bytes() == row(7)
    dataset.add(3, row(3))
    dataset.flush()
    assert path.read_bytes() == row(7) + row(3)
    with path.open("rb") as follower:
        dataset.finish()
        # Whoever reads still reads whole rows.
        assert follower.read() == row(7) + row(3)
    assert path.read_bytes() == row(3) + row(7)


def test_a_job_that_comes_twice_keeps_the_rows_it_has(tmp_path: Path) -> None:
    dataset = DatasetFile(tmp_path / "dataset.jsonl")
    dataset.add(1, row(1))
    dataset.add(1, row(1, 50))
    dataset.add(0, row(0))
    dataset.finish()
    assert dataset.path.read_bytes() == row(0) + row(1)


def test_a_file_without_rows_is_empty(tmp_path: Path) -> None:
    dataset = DatasetFile(tmp_path / "dataset.jsonl")
    dataset.finish()
    assert (dataset.path.read_bytes(), dataset.first_row()) == (b"", "")


def test_a_file_that_is_closed_as_it_is_keeps_the_order_of_arrival(tmp_path: Path) -> None:
    dataset = DatasetFile(tmp_path / "dataset.jsonl")
    dataset.add(2, row(2))
    dataset.add(1, row(1))
    dataset.close()
    dataset.close()
    assert dataset.path.read_bytes() == row(2) + row(1)


def assert_names_the_file(raised: pytest.ExceptionInfo[SessionError]) -> None:
    message = str(raised.value)
    assert "dataset.jsonl cannot be written: File too large" in message
    assert "\n" not in message


def test_a_full_disk_is_one_error_in_one_line(tmp_path: Path) -> None:
    dataset = DatasetFile(tmp_path / "dataset.jsonl")

    def add_many() -> None:
        for job_id in range(1000):
            dataset.add(job_id, row(job_id, 1000))

    with no_file_larger_than(100_000):
        with pytest.raises(SessionError) as raised:
            add_many()
        assert_names_the_file(raised)
        for end in (dataset.flush, dataset.finish, dataset.close):
            with pytest.raises(SessionError) as raised:
                end()
            assert_names_the_file(raised)
    dataset.close()


def test_an_ordered_file_that_does_not_fit_leaves_the_growing_one(tmp_path: Path) -> None:
    dataset = DatasetFile(tmp_path / "dataset.jsonl")
    for job_id in (2, 1):
        dataset.add(job_id, row(job_id, 1000))
    dataset.flush()
    with no_file_larger_than(1000), pytest.raises(SessionError) as raised:
        dataset.finish()
    assert_names_the_file(raised)
    assert dataset.path.read_bytes() == row(2, 1000) + row(1, 1000)
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset.jsonl"]
    dataset.finish()  # once there is room
    assert dataset.path.read_bytes() == row(1, 1000) + row(2, 1000)


def visible(path: Path) -> int:
    """Rows that a reader finds, the beginning of one included."""
    return len(path.read_bytes().splitlines())


@given(arrived=st.lists(st.integers(0, 12), unique=True), before=st.integers(0, 8), complete=st.booleans())
def test_a_resume_never_shows_fewer_rows_than_there_were(
    *, arrived: list[int], before: int, complete: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.jsonl"
        old = b"".join(row(100 + number) for number in range(before))
        path.write_bytes(old)
        dataset = DatasetFile(path)
        assert visible(path) == before
        for number, job_id in enumerate(arrived, 1):
            dataset.add(job_id, row(job_id))
            dataset.flush()
            assert visible(path) == max(before, number)
        dataset.finish(complete=complete)
        stays = not complete and len(arrived) < before
        assert path.read_bytes() == (old if stays else b"".join(map(row, sorted(arrived))))
        # Nothing is left beside it.
        assert [entry.name for entry in path.parent.iterdir()] == ["dataset.jsonl"]


@pytest.mark.parametrize("complete", [False, True])
def test_a_file_that_was_cut_anywhere_is_made_whole(tmp_path: Path, *, complete: bool) -> None:
    path = tmp_path / "dataset.jsonl"
    whole = b"".join(map(row, range(ROWS_BEFORE)))
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        before = visible(path)
        dataset = DatasetFile(path)
        for job_id in reversed(range(ROWS_BEFORE)):
            dataset.flush()
            assert visible(path) >= before
            dataset.add(job_id, row(job_id))
        dataset.finish(complete=complete)
        assert path.read_bytes() == whole


def test_a_resume_that_is_cut_off_leaves_the_rows_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    old = b"".join(map(row, range(ROWS_BEFORE)))
    path.write_bytes(old)
    cut_off = DatasetFile(path)
    cut_off.add(2, row(2))
    cut_off.add(9, row(9))
    cut_off.close()
    assert path.read_bytes() == old
    dataset = DatasetFile(path)
    for job_id in (0, 2, 1):
        dataset.add(job_id, row(job_id))
    dataset.finish(complete=False)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset.jsonl"]


def test_a_complete_run_with_fewer_rows_replaces_those_before(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    path.write_bytes(b"".join(map(row, range(ROWS_BEFORE))))
    dataset = DatasetFile(path)
    dataset.add(1, row(1))
    dataset.finish()
    assert path.read_bytes() == row(1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset.jsonl"]


def test_a_resume_without_room_leaves_the_rows_before(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    old = b"".join(row(job_id, 1000) for job_id in range(ROWS_BEFORE))
    path.write_bytes(old)
    dataset = DatasetFile(path)
    dataset.add(0, row(0, 1000))
    with no_file_larger_than(1000), pytest.raises(SessionError) as raised:
        dataset.finish()
    assert_names_the_file(raised)
    assert path.read_bytes() == old
    dataset.finish()  # once there is room
    assert path.read_bytes() == row(0, 1000)


def test_a_folder_in_place_of_the_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "dataset.jsonl").mkdir()
    with pytest.raises(SessionError, match=r"dataset\.jsonl cannot be created: Is a directory$"):
        DatasetFile(tmp_path / "dataset.jsonl")

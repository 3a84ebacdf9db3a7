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


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    path.write_bytes(b"kept")
    with pytest.raises(SessionError, match=r"dataset.jsonl cannot be created: File exists"):
        DatasetFile(path)
    assert path.read_bytes() == b"kept"


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

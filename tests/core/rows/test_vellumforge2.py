"""Dataset files that VellumForge2 wrote, with all the damage that it is known for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.rows.vellumforge2 import ForeignRow, read_rows
from tests.core.session.vellumforge2 import chosen_text, go_jobs, rejected_text, rows, rows_of_all

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.rows.vellumforge2 import ForeignRows

JOBS = go_jobs(2, 3)
MODES = ("dpo", "kto", "sharegpt", "alpaca", "mo-dpo")
KEYS = (
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "label",
    "instruction",
    "output",
    "conversations",
    "chosen_scores",
    "rejected_scores",
    "from",
    "value",
    "score",
)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["gpt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


def read(folder: Path, content: str | bytes) -> ForeignRows:
    path = folder / "dataset.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(path)


def joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("mode", MODES)
def test_the_rows_of_every_mode_are_read(tmp_path: Path, mode: str) -> None:
    found = read(tmp_path, joined(rows_of_all(mode, JOBS)))
    assert (found.duplicates, found.damaged) == (0, 0)
    assert list(found.rows) == [job.prompt for job in JOBS]
    for job in JOBS:
        row = found.rows[job.prompt]
        assert row.chosen == chosen_text(job)
        assert row.rejected == (None if mode in {"sharegpt", "alpaca"} else rejected_text(job))
        assert (row.chosen_scores is not None) == (mode == "mo-dpo") == (row.rejected_scores is not None)
        assert row.is_whole({"sharegpt": "sft", "alpaca": "sft"}.get(mode, mode))


def test_the_rows_of_a_kto_pair_come_together_in_any_order(tmp_path: Path) -> None:
    [good, bad], [other, _] = rows("kto", JOBS[0]), rows("kto", JOBS[1])
    found = read(tmp_path, joined([bad, other, good, bad]))
    whole = ForeignRow(JOBS[0].prompt, chosen_text(JOBS[0]), rejected_text(JOBS[0]))
    assert found.rows[JOBS[0].prompt] == whole
    assert not found.rows[JOBS[1].prompt].is_whole("kto")
    assert found.duplicates == 1


@pytest.mark.parametrize("mode", MODES)
def test_reading_the_rows_twice_is_reading_them_once(tmp_path: Path, mode: str) -> None:
    lines = rows_of_all(mode, JOBS)
    once, twice = read(tmp_path, joined(lines)), read(tmp_path, joined(lines * 2))
    assert (twice.rows, twice.duplicates) == (once.rows, len(lines))


@pytest.mark.parametrize("mode", MODES)
def test_a_row_cut_anywhere_costs_that_row_alone(tmp_path: Path, mode: str) -> None:
    [before, *_], [torn, *_], [after, *_] = (rows(mode, job) for job in JOBS[:3])
    for size in range(1, len(torn), 7):
        glued = read(tmp_path, f"{before}\n{torn[:size]}{after}\n")
        assert list(glued.rows) == [JOBS[0].prompt, JOBS[2].prompt]
        assert glued.damaged == 1
        ended = read(tmp_path, f"{before}\n{torn[:size]}")
        assert (list(ended.rows), ended.damaged) == ([JOBS[0].prompt], 1)


def test_rows_on_one_line_are_two_rows(tmp_path: Path) -> None:
    found = read(tmp_path, "".join(rows_of_all("dpo", JOBS[:2])))
    assert (list(found.rows), found.damaged) == ([job.prompt for job in JOBS[:2]], 1)


def test_an_answer_that_quotes_a_row_is_one_answer(tmp_path: Path) -> None:
    text = 'Write {"prompt":"x","chosen":"y","rejected":"z"} on a line of its own, said the keeper.'
    found = read(tmp_path, joined(rows("dpo", JOBS[0], chosen=text)))
    assert {prompt: row.chosen for prompt, row in found.rows.items()} == {JOBS[0].prompt: text}


def test_a_missing_file_holds_nothing(tmp_path: Path) -> None:
    found = read_rows(tmp_path / "dataset.jsonl")
    assert (found.rows, found.damaged) == ({}, 0)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": "p"},
        {"prompt": 1, "chosen": "a", "rejected": "b"},
        {"prompt": "p", "completion": "", "label": True},
        {"conversations": "talk"},
        {"conversations": [{"from": ["human"], "value": "p"}, {"from": {}, "value": "a"}]},
        {"instruction": None, "output": "a"},
        {"instruction": "p", "output": " \n"},
    ],
)
def test_an_object_that_is_no_row_is_damage(tmp_path: Path, document: dict[str, Any]) -> None:
    found = read(tmp_path, f"{json.dumps(document)}\n")
    assert (found.rows, found.damaged) == ({}, 1)


@same_folder
@given(st.lists(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode())))
def test_any_file_is_read_and_its_good_rows_are_found(tmp_path: Path, lines: list[bytes]) -> None:
    good = rows("dpo", JOBS[0])[0].encode()
    found = read(tmp_path, b"\n".join([*lines, good, b""]))
    assert found.rows[JOBS[0].prompt].chosen == chosen_text(JOBS[0])

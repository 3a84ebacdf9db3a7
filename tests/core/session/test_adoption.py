"""Rows as calls that were paid for, and jobs as the ledger keeps them."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers.parsing import parse_scores
from tasks.core.answers.usable import ADOPTED
from tasks.core.errors import SessionError
from tasks.core.models import Job, Purpose, Score, Scores
from tasks.core.questions import Questions
from tasks.core.rows.vellumforge2 import ForeignRow
from tasks.core.session.adoption import entries_of, pack_jobs, unpack_jobs
from tests.core.running import configured

JOB = Job(7, "The sea", "Tides", "Who lit the lamp?")
SCORES = Scores({"style": Score(5, "Fine."), "depth": Score(3.5, "")})
ROW = ForeignRow(JOB.prompt, " The keeper did.\n", "Nobody.", SCORES, SCORES)
texts = st.text(st.characters(codec="utf-8"), max_size=20)


@pytest.mark.parametrize(
    ("mode", "row", "purposes"),
    [
        ("dpo", ROW, ["chosen", "rejected"]),
        ("kto", ForeignRow(JOB.prompt, None, "Nobody."), ["rejected"]),
        ("sft", ROW, ["chosen"]),
        ("mo-dpo", ROW, ["chosen", "rejected", "judge", "judge"]),
        ("mo-dpo", ForeignRow(JOB.prompt, "The keeper.", "Nobody."), ["chosen", "rejected"]),
    ],
)
def test_a_row_is_the_calls_that_would_have_brought_it(
    mode: str, row: ForeignRow, purposes: list[str]
) -> None:
    config = configured(generation__dataset_mode=mode)
    entries = entries_of(config, Questions(config), JOB, row, "s")
    assert [entry.request.purpose for entry in entries] == purposes
    assert {(entry.session, entry.answer.finish_reason) for entry in entries} == {("s", ADOPTED)}
    assert all(entry.answer.prompt_tokens in {0, None} for entry in entries)


def test_scores_are_put_under_the_text_that_the_judge_would_see() -> None:
    config = configured(generation__dataset_mode="mo-dpo")
    questions = Questions(config)
    [*_, judge, _] = entries_of(config, questions, JOB, ROW, "s")
    assert judge.request.purpose is Purpose.JUDGE
    assert judge.request.key == questions.judge(JOB, "The keeper did.", 0, explain=True).key
    assert parse_scores(judge.answer.content, None) == SCORES


@pytest.mark.parametrize("cut", [True, False])
def test_that_text_is_without_marks_and_without_chatter_where_it_is_cut(*, cut: bool) -> None:
    config = configured(generation__dataset_mode="mo-dpo", generation__cut_chatter=cut)
    questions = Questions(config)
    story = "The keeper climbed the stairs, and the lamp was lit."
    said = f"{story}\n\nI hope this helps!"
    row = replace(ROW, chosen=f"<think>Hm.</think>{said}<|im_end|>")
    [*_, judge, _] = entries_of(config, questions, JOB, row, "s")
    seen = questions.judge(JOB, story if cut else said, 0, explain=True)
    assert judge.request.key == seen.key


@given(
    st.lists(texts),
    st.none() | st.lists(st.builds(Job, st.integers(0, 2**31), texts, texts, texts)),
)
def test_packed_jobs_come_back_as_they_were(subtopics: list[str], jobs: list[Job] | None) -> None:
    assert unpack_jobs(pack_jobs(subtopics, jobs)) == (tuple(subtopics), jobs)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        7,
        {"subtopics": None, "jobs": None},
        {"subtopics": [], "jobs": 7},
        {"subtopics": [], "jobs": ["job"]},
        {"subtopics": [], "jobs": [{"id": 1}]},
        {"subtopics": [], "jobs": [{"id": "x", "main_topic": "m", "sub_topic": "s", "prompt": "p"}]},
        {"subtopics": [], "jobs": [{"id": 1, "main_topic": "m", "sub_topic": "s", "prompt": None}]},
    ],
)
def test_jobs_that_are_none_are_damage(document: Any) -> None:
    with pytest.raises(SessionError, match="damaged"):
        unpack_jobs(zlib.compress(orjson.dumps(document)))


@given(st.binary(max_size=100))
def test_bytes_that_are_no_packed_jobs_are_damage(packed: bytes) -> None:
    with pytest.raises(SessionError, match="damaged"):
        unpack_jobs(packed)

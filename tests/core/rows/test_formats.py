"""The rows of each dataset mode, key by key, as VellumForge2 writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.models import Job, Pair, Score, Scores, Text
from tasks.core.rows.formats import lines_of, rows_of, with_reasoning
from tests.core.running import configured

JOB = Job(7, "Lighthouse keepers & the sea", "Fog", "What does the keeper hear?")
CHOSEN = Scores({"style": Score(4.0, "Calm."), "depth": Score(5.0, "Deep."), "wit": Score(4.0, "")})
REJECTED = Scores({"style": Score(2.0, "Loud."), "depth": Score(3.5, ""), "wit": Score(1.0, "")})
PAIR = Pair(JOB, Text("A bell."), Text("Nothing."), CHOSEN, REJECTED)

HUMAN = {"from": "human", "value": JOB.prompt}
GPT = {"from": "gpt", "value": "A bell."}
TOPICS = {"main_topic": JOB.main_topic, "sub_topic": "Fog"}


def rows(pair: Pair = PAIR, **generation: Any) -> list[dict[str, Any]]:
    config = configured(**{f"generation__{key}": value for key, value in generation.items()})
    return rows_of(config, pair)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({"dataset_mode": "sft"}, [TOPICS | {"conversations": [HUMAN, GPT]}]),
        ({"dataset_mode": "sft", "include_topic_columns": False}, [{"conversations": [HUMAN, GPT]}]),
        (
            {"dataset_mode": "sft", "sft_format": "alpaca"},
            [TOPICS | {"instruction": JOB.prompt, "output": "A bell."}],
        ),
        (
            {"dataset_mode": "sft", "sft_format": "alpaca", "include_topic_columns": False},
            [{"instruction": JOB.prompt, "output": "A bell."}],
        ),
        ({"dataset_mode": "dpo"}, [{"prompt": JOB.prompt, "chosen": "A bell.", "rejected": "Nothing."}]),
        (
            {"dataset_mode": "kto"},
            [
                {"prompt": JOB.prompt, "completion": "A bell.", "label": True},
                {"prompt": JOB.prompt, "completion": "Nothing.", "label": False},
            ],
        ),
        (
            {"dataset_mode": "mo-dpo", "include_topic_columns": False},
            [
                TOPICS
                | {
                    "prompt": JOB.prompt,
                    "chosen": "A bell.",
                    "rejected": "Nothing.",
                    "chosen_scores": {
                        "style": {"score": 4, "reasoning": "Calm."},
                        "depth": {"score": 5, "reasoning": "Deep."},
                        "wit": {"score": 4, "reasoning": ""},
                    },
                    "rejected_scores": {
                        "style": {"score": 2, "reasoning": "Loud."},
                        "depth": {"score": 3.5, "reasoning": ""},
                        "wit": {"score": 1, "reasoning": ""},
                    },
                    "chosen_score_total": 13 / 3,
                    "rejected_score_total": 6.5 / 3,
                    "preference_margin": 13 / 3 - 6.5 / 3,
                }
            ],
        ),
    ],
)
def test_the_rows_of_each_mode_with_their_keys_in_order(
    generation: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    # As text, so that order, types and whole numbers count.
    assert json.dumps(rows(**generation)) == json.dumps(expected)


def test_a_margin_of_zero_and_a_negative_one_are_written() -> None:
    equal = Pair(JOB, Text("a"), Text("b"), CHOSEN, CHOSEN)
    assert rows(equal, dataset_mode="mo-dpo")[0]["preference_margin"] == 0
    worse = Pair(JOB, Text("a"), Text("b"), REJECTED, CHOSEN)
    assert rows(worse, dataset_mode="mo-dpo")[0]["preference_margin"] < 0


@pytest.mark.parametrize(
    ("mode", "pair", "message"),
    [
        ("dpo", Pair(JOB, Text("a")), "job 7 has no rejected answer"),
        ("kto", Pair(JOB, Text("a")), "job 7 has no rejected answer"),
        ("mo-dpo", Pair(JOB, Text("a"), Text("b")), "job 7 has no scores"),
        ("mo-dpo", Pair(JOB, Text("a"), Text("b"), CHOSEN), "job 7 has no scores"),
    ],
)
def test_a_pair_that_lacks_something_is_no_row(mode: str, pair: Pair, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows(pair, dataset_mode=mode)


THOUGHTFUL = Pair(JOB, Text("A bell.", reasoning="Fog,\nso a bell."), Text("No.", reasoning="Hm."))


@pytest.mark.parametrize(("captured", "rejected"), [(False, "No."), (True, "<think>\nHm.\n</think>\n\nNo.")])
def test_reasoning_stands_before_the_answer_in_think_tags(*, captured: bool, rejected: str) -> None:
    config = configured(generation__reasoning_capture_rejected=captured)
    shown = with_reasoning(config, THOUGHTFUL)
    assert rows_of(config, shown) == [
        {
            "prompt": JOB.prompt,
            "chosen": "<think>\nFog,\nso a bell.\n</think>\n\nA bell.",
            "rejected": rejected,
        }
    ]
    # The dataset itself is without it.
    assert rows_of(config, THOUGHTFUL)[0]["chosen"] == "A bell."


def test_an_answer_without_reasoning_stays_as_it_is() -> None:
    assert with_reasoning(configured(generation__reasoning_capture_rejected=True), PAIR) == PAIR
    alone = Pair(JOB, Text("A bell."))
    assert with_reasoning(configured(generation__dataset_mode="sft"), alone) == alone


texts = st.text(st.characters(exclude_categories=["Cs"]))
scores = st.dictionaries(
    texts, st.builds(Score, st.integers(1, 5).map(float) | st.floats(1, 5), texts), min_size=1
).map(Scores)
answers = st.builds(Text, texts, texts, st.booleans())
pairs = st.builds(Pair, st.builds(Job, st.integers(0), texts, texts, texts), answers, answers, scores, scores)


@given(pairs, st.sampled_from(["sft", "dpo", "kto", "mo-dpo"]))
def test_lines_are_read_back_as_the_rows_they_were_made_of(pair: Pair, mode: str) -> None:
    config = configured(generation__dataset_mode=mode)
    lines = lines_of(config, pair)
    assert lines.endswith(b"\n")
    # Split at line feeds alone, as readers of JSON lines do.
    read = [json.loads(line) for line in lines[:-1].split(b"\n")]
    assert read == rows_of(config, pair)
    assert len(read) == (2 if mode == "kto" else 1)
    if mode == "kto":
        assert [row["label"] for row in read] == [True, False]
        assert read[0]["prompt"] == read[1]["prompt"]

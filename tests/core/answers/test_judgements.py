"""Which answer is better, and yes or no, in the forms in which judges say it."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers.judgements import MOST_CHECKS, read_checklist, read_checks, read_comparison
from tasks.core.errors import UnusableAnswerError
from tasks.core.exchange.request import Answer


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ('{"better": "A"}', "A"),
        ('{"better": "b"}', "B"),
        ('{"better": "tie"}', "tie"),
        ('{"better": "neither"}', "tie"),
        ('{"better": "Answer B"}', "B"),
        ('{"better": "answer_a", "reasoning": "B is shorter."}', "A"),
        ('```json\n{"reasoning": "Both are fine; A rambles.", "better": "B"}\n```', "B"),
        ('{"winner": "A"}', "A"),
        ('{"preferred": 2}', "B"),
        ('{"verdict": {"winner": "B", "why": "A is wrong"}}', "B"),
        ('[{"better": "A"}]', "A"),
        ("A", "A"),
        ("**B**", "B"),
        ("Answer B.", "B"),
        ("Tie", "tie"),
        ("[[A]]", "A"),
        ("Both have merits, but in the end: [[B]]", "B"),
        ("My verdict is [[C]]", "tie"),
        ("Answer A is clearly better, as it names reasons.", "A"),
        ("Answer A is good. Yet response B is much better.", "B"),
        ("B is better than A", "B"),
        ("The answer is A", "A"),
        ("Final answer: B", "B"),
        ("**Answer: A**", "A"),
        ("Answer A wins.", "A"),
        ("Answer B is the winner", "B"),
        ("A\n\nReason: it names more.", "A"),
        ("B, because it names more.", "B"),
        ("<answer>A</answer>", "A"),
        ("A - it names more.", "A"),
        ("A because B is vague.", "A"),
        ("[[A>B]]", "A"),
        ("[[B>>A]]", "B"),
        ("[[A=B]]", "tie"),
        ("It's a tie.", "tie"),
        ("a tie", "tie"),
        ('{"better": "A", "A": "names more", "B": "is vague"}', "A"),
        ("Both answers are good. B is better.", "B"),
        ("Better answer: B", "B"),
        ("Reasoning: A names more, B is vague.\n\nVerdict: A", "A"),
        ("Assistant A: 8, Assistant B: 6. The winner is Assistant A.", "A"),
        ("The first answer is better", "A"),
        ("Answer 2 is better", "B"),
        ('{"better": "The first answer"}', "A"),
        ('{"better": "A (clearly)"}', "A"),
        ('{"better": ["B"]}', "B"),
        ("Response A is good but Response B is better.", "B"),
        ("Answer A is more detailed, but Answer B is better", "B"),
        ("Option A is fine, option B is best", "B"),
        ("A is better", "A"),
        ("I prefer B over A.", "B"),
        ("**Response A** is clearly the better one.", "A"),
        ("Overall, B wins.", "B"),
        ("The better answer is B", "B"),
        ("Better: A", "A"),
        ("Verdict: **tie**", "tie"),
        ('<think>B looks better: {"better": "B"}</think>\n{"better": "A"}', "A"),
    ],
)
def test_the_better_one_is_read(said: str, side: str) -> None:
    assert read_comparison(Answer(said)) == side


def test_what_stands_in_the_reasoning_alone_is_read() -> None:
    assert read_comparison(Answer("", reasoning='{"better": "B"}')) == "B"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "I like both.",
        "I'm sorry, but I can't compare these.",
        '{"better": "the second of them, I think, is a good one"}',
        '{"better": true}',
        '{"A": 4, "B": 3}',
        '{"better": "A"} or rather {"better": "B"}',
        "A tie of silk is mentioned in a story.",
        "Answer B is not better than A",
        "Answer A is not better than Answer B; B is not worse",
        "The better one is not A",
        "A: wordy. B: to the point.",
        "A\nB",
        "A - too long. B - fine.",
        "A good answer has more reasons than either of these",
        '{"better": null}',
        "Answer A is not the best; neither is B",
        "Answer A is better in style, and answer B is better in content.",
        "It is better: a long answer has more in it.",
    ],
)
def test_what_names_neither_is_not_read(said: str) -> None:
    with pytest.raises(UnusableAnswerError) as refused:
        read_comparison(Answer(said))
    assert refused.value.cause == "bad_scores"


def test_one_that_was_cut_off_before_it_began_is_told_apart() -> None:
    for read in (read_comparison, lambda answer: read_checks(answer, 3)):
        with pytest.raises(UnusableAnswerError) as refused:
            read(Answer("<think>So", finish_reason="length"))
        assert refused.value.cause == "token_exhaustion"


@pytest.mark.parametrize(
    "said",
    [
        '{"1": "yes", "2": "no", "3": "yes"}',
        '{"1": true, "2": false, "3": true}',
        '{"1": 1, "2": 0, "3": 1}',
        '{"q1": "Yes.", "q2": "NO", "q3": "yes - it does"}',
        '{"Question 1": "yes", "Question 2": "no", "Question 3": "yes"}',
        '{"answers": {"1": "yes", "2": "no", "3": "yes"}}',
        '{"answers": ["yes", "no", "yes"]}',
        '["yes", "no", "yes"]',
        '[{"question": 1, "answer": "yes"}, {"question": 3, "answer": "yes"}, {"id": 2, "answer": "no"}]',
        '[{"number": "1", "met": true}, {"number": "2", "met": false}, {"number": "3", "met": true}]',
        '{"1": {"answer": "yes", "reason": "no doubt"}, "2": {"answer": "no"}, "3": {"answer": "yes"}}',
        '```json\n{"1": "yes", "2": "no", "3": "yes", "4": "no"}\n```',
        "1. Yes\n2. No\n3. Yes",
        '[{"1": "yes"}, {"2": "no"}, {"3": "yes"}]',
        "[1, 0, 1]",
        "[true, false, true]",
        '{"1. Is it there?": "yes", "2. Is it true?": "no", "3. Is it short?": "yes"}',
        '{"0": "yes", "1": "no", "2": "yes"}',
        "| 1 | yes |\n| 2 | no |\n| 3 | yes |",
        "Yes\nNo\nYes",
        "1. Does it have no errors? Yes, there are no errors\n2. Is it so? No.\n3. Is it? Yes",
        "1: yes, it has no gaps\n2: no\n3: yes",
        "**1.** Is it there? Yes\n**2.** Is there no doubt? No\n**3.** Does it say yes? yes",
        "Question 1: yes\nQuestion 2: no - yes would be too kind\nQuestion 3: yes",
    ],
)
def test_yes_and_no_are_read_by_number(said: str) -> None:
    assert read_checks(Answer(said), 3) == (True, False, True)


@pytest.mark.parametrize(
    "said",
    [
        '{"1": "yes", "2": "no"}',
        '{"1": "yes", "2": "maybe", "3": "no"}',
        '{"1": 4, "2": 5, "3": 3}',
        "Yes to all of them.",
        "1. Yes\n2. No",
        "1. There is no mention of yes.\n2. no\n3. yes",
    ],
)
def test_a_question_without_an_answer_is_named(said: str) -> None:
    with pytest.raises(UnusableAnswerError, match="says neither yes nor no to question") as refused:
        read_checks(Answer(said), 3)
    assert refused.value.cause == "bad_scores"


@given(st.lists(st.booleans(), min_size=3, max_size=8), st.randoms(use_true_random=False))
def test_their_order_does_not_matter(said: list[bool], rng: object) -> None:
    numbered = [(str(number), "yes" if is_so else "no") for number, is_so in enumerate(said, 1)]
    rng.shuffle(numbered)  # type: ignore[attr-defined]
    assert read_checks(Answer(json.dumps(dict(numbered))), len(said)) == tuple(said)


def test_a_checklist_has_three_to_eight_questions() -> None:
    questions = [f"Is it number {number}?" for number in range(12)]
    assert read_checklist(Answer(json.dumps(questions[:3]))) == tuple(questions[:3])
    assert read_checklist(Answer(json.dumps(questions))) == tuple(questions[:MOST_CHECKS])
    assert read_checklist(Answer(json.dumps([*questions[:3], questions[0]]))) == tuple(questions[:3])
    with pytest.raises(UnusableAnswerError, match="has 2 questions; at least 3") as refused:
        read_checklist(Answer(json.dumps(questions[:2])))
    assert refused.value.cause == "no_list"


@given(st.text(), st.integers(3, 8))
def test_anything_is_read_or_refused(said: str, count: int) -> None:
    for read in (read_comparison, lambda answer: read_checks(answer, count), read_checklist):
        with suppress(UnusableAnswerError):
            read(Answer(said))


@pytest.mark.parametrize(
    "piece", ["better ", "answer a is ", "1. ", " " * 9 + "\n", '{"better":', "[[", "a", "\n1 yes no "]
)
def test_long_answers_take_time_in_proportion(piece: str) -> None:
    """A square of this would take hours, and the suite's own limit ends it."""
    said = Answer(piece * (1_000_000 // len(piece)))
    for read in (read_comparison, lambda answer: read_checks(answer, 3)):
        with suppress(UnusableAnswerError):
            read(said)

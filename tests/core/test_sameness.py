"""Near-duplicates: what is planted is found, and what only looks alike is let through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.sameness import Alike, Sieve, likeness, most_alike
from tests.core.near_duplicates import THRESHOLD, found_and_false, planted_prompts

KEEPER = "Write a short story about a lighthouse keeper who finds a letter in a bottle one winter night."
NEARLY = "Write a short story about a lighthouse keeper who finds a letter in a bottle one cold winter night."
OTHER = "Explain how the lens of a lighthouse bends light, to a child who has never seen the sea."


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_near_duplicates_are_found_and_others_let_through(seed: int) -> None:
    found, false = found_and_false(*planted_prompts(seed), THRESHOLD)
    assert found >= 0.95
    assert false <= 0.01


def test_the_first_of_those_alike_is_kept() -> None:
    sieve = Sieve(THRESHOLD)
    assert sieve.fresh([KEEPER, OTHER, NEARLY, f"“{OTHER.upper()}”"]) == [KEEPER, OTHER]
    assert sieve.dropped == {"near_duplicate": 1, "duplicate": 1}
    assert sieve.fresh([NEARLY, KEEPER]) == []


def test_without_a_threshold_only_the_same_words_are_the_same() -> None:
    sieve = Sieve()
    assert sieve.fresh([KEEPER, NEARLY, KEEPER.lower()]) == [KEEPER, NEARLY]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 17 times 23, and how do you check it?", "What is 17 times 24, and how do you check it?"),
        ("Lighthouses of the 18th century", "Lighthouses of the 19th century"),
        ("Set the timer to 1.5 hours and wait", "Set the timer to 1:5 hours and wait"),
        ("C", "C++"),
    ],
)
def test_other_numbers_and_signs_make_another_text(one: str, other: str) -> None:
    assert Sieve(0.2).fresh([one, other]) == [one, other]


def test_texts_without_spaces_are_compared_by_their_letters() -> None:
    one = "灯台守が冬の夜に瓶の中の手紙を見つける短い物語を書いてください"
    other = one.replace("冬", "夏")
    assert likeness(one, other) > THRESHOLD
    assert Sieve(THRESHOLD).fresh([one, other]) == [one]


def test_the_most_alike_come_first() -> None:
    found = most_alike([KEEPER, OTHER, NEARLY, KEEPER], 2)
    assert found == [Alike(1.0, KEEPER, KEEPER), Alike(likeness(KEEPER, NEARLY), KEEPER, NEARLY)]


@given(st.text(max_size=60), st.text(max_size=60))
def test_likeness_is_a_share_and_goes_both_ways(one: str, other: str) -> None:
    assert 0 <= likeness(one, other) <= 1
    assert likeness(one, other) == likeness(other, one)


@given(st.lists(st.text(max_size=30), max_size=20))
def test_a_sieve_lets_each_text_through_once_in_any_number_of_steps(items: list[str]) -> None:
    at_once, one_by_one = Sieve(THRESHOLD), Sieve(THRESHOLD)
    kept = at_once.fresh(items)
    assert len(kept) + at_once.dropped.total() == len(items)
    assert kept == [text for item in items for text in one_by_one.fresh([item])]
    assert at_once.fresh(items) == []

"""Near-duplicates: what is planted is found, and what only looks alike is let through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import sameness
from tasks.core.sameness import Alike, Sieve, likeness, most_alike, spread
from tests.core.near_duplicates import (
    PLANTED,
    TEMPLATES,
    THRESHOLD,
    found_and_false,
    from_template,
    planted_prompts,
)

if TYPE_CHECKING:
    from collections.abc import Collection

KEEPER = "Write a short story about a lighthouse keeper who finds a letter in a bottle one winter night."
NEARLY = "Write a short story about a lighthouse keeper who finds a letter in a bottle one cold winter night."
OTHER = "Explain how the lens of a lighthouse bends light, to a child who has never seen the sea."


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_near_duplicates_are_found_and_others_let_through(seed: int) -> None:
    found, false = found_and_false(*planted_prompts(seed), THRESHOLD)
    assert found >= 0.95
    assert false <= 0.01


@pytest.mark.parametrize("kind", TEMPLATES)
def test_of_prompts_from_one_template_those_with_another_word_are_found(kind: str) -> None:
    prompts, planted = from_template(kind, 1_500, 1)
    sieve = Sieve(THRESHOLD)
    kept = set(sieve.fresh(prompts))
    assert len(kept) > 0.8 * len(prompts)
    # One whose original is itself a near-duplicate need not be like what was kept.
    found = [
        change not in sieve.fresh([change])
        for change, prompt in zip(planted, prompts[:: len(prompts) // PLANTED], strict=True)
        if prompt in kept
    ]
    assert sum(found) / len(found) >= 0.95


def test_however_many_are_alike_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    likeness_of = sameness._likeness

    def counted(one: frozenset[int], other: Collection[int]) -> float:
        nonlocal compared
        compared += 1
        return likeness_of(one, other)

    monkeypatch.setattr(sameness, "_likeness", counted)
    prompts, _ = from_template("names", 1_500, 1)
    assert len(Sieve(THRESHOLD).fresh(prompts)) > 0.9 * len(prompts)
    few = sameness.FEW
    assert 0 < compared <= few * few // 2 + sameness.MOST_LIKELY * (len(prompts) - few)


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


def test_texts_with_other_numbers_are_not_among_the_most_alike() -> None:
    assert most_alike([f"{KEEPER} It is {number} o'clock." for number in range(9)]) == []


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=9).map(" ".join), max_size=30), st.integers(1, 30)
)
def test_the_most_alike_are_those_that_comparing_all_with_all_finds(texts: list[str], most: int) -> None:
    closest = [
        max((likeness(text, other) for other in texts[:at]), default=0.0) for at, text in enumerate(texts)
    ]
    found = most_alike(texts, most)
    assert [item.likeness for item in found] == sorted(
        (best for best in closest if best >= 0.5), reverse=True
    )[:most]
    assert all(likeness(item.first, item.second) == item.likeness for item in found)


def test_planted_near_duplicates_are_the_most_alike() -> None:
    prompts, planted = planted_prompts(1)
    found = most_alike([*prompts[:500], *(f"Now {prompt}" for prompt in prompts[:20]), *planted], 20)
    assert {item.second for item in found} == {f"Now {prompt}" for prompt in prompts[:20]}


def test_spread_says_how_far_each_text_is_from_the_closest_of_the_others() -> None:
    assert spread([]) == spread([KEEPER]) == spread([KEEPER, ""]) == 1
    assert spread([KEEPER, KEEPER.upper()]) == 0
    near, far = likeness(KEEPER, NEARLY), max(likeness(OTHER, KEEPER), likeness(OTHER, NEARLY))
    assert spread([KEEPER, OTHER, NEARLY]) == pytest.approx(1 - (2 * near + far) / 3)


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

"""Choosing among items."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.sameness import chunk_sizes, drop_duplicates, exclusion_list, fingerprint, with_buffer

items = st.lists(st.text(max_size=8) | st.sampled_from(["Solar", "solar ", '"Solar."', "wind"]))
sizes = st.integers(0, 500)


@pytest.mark.parametrize(
    "same",
    [
        [
            "Solar power",
            "solar POWER",
            "  Solar \n power ",
            '"Solar power."',
            "“Solar power”",
            "- Solar power",
            "\uff33olar power",
        ],
        ["Straße", "STRASSE"],
        ["What is it?", "what is it"],
        ["???", " ??? "],
    ],
)
def test_alike_items_have_one_fingerprint(same: list[str]) -> None:
    assert len({fingerprint(text) for text in same}) == 1


def test_unlike_items_have_fingerprints_of_their_own() -> None:
    unlike = ["C", "C#", "C++", "?", "solar power", "solarpower", "solar-power", ""]
    assert len({fingerprint(text) for text in unlike}) == len(unlike)


@given(st.text(), st.sampled_from([" ", "\n", "\t", "'", '"', ".", "*"]))
def test_a_fingerprint_does_not_see_what_surrounds_the_text(text: str, around: str) -> None:
    assert fingerprint(f"{around}x{text}x{around}") == fingerprint(f"x{text}x")


@given(items)
def test_dropping_twice_is_dropping_once(given_items: list[str]) -> None:
    once = drop_duplicates(given_items, set())
    assert drop_duplicates(once, set()) == once


@given(items, items)
def test_dropping_in_parts_is_dropping_the_whole(first: list[str], second: list[str]) -> None:
    seen: set[str] = set()
    parts = drop_duplicates(first, seen) + drop_duplicates(second, seen)
    assert parts == drop_duplicates(first + second, set())
    assert seen == {fingerprint(item) for item in first + second}


@given(items)
def test_the_first_of_each_is_kept_in_order(given_items: list[str]) -> None:
    first_of_each = {fingerprint(item): item for item in reversed(given_items)}
    kept = drop_duplicates(given_items, set())
    assert sorted(kept) == sorted(first_of_each.values())
    remaining = iter(given_items)
    assert all(item in remaining for item in kept)


def test_the_exclusion_list_holds_the_last_items() -> None:
    assert exclusion_list(["a", "b", "c"], 2) == "b, c"
    assert exclusion_list(["a", "b", "c"], 9) == "a, b, c"
    assert exclusion_list(["a", "b"], 0) == ""
    assert exclusion_list([], 5) == ""


def test_the_exclusion_list_is_one_line() -> None:
    assert exclusion_list(["two\nlines", " b "], 2) == "two lines, b"


@given(sizes, sizes)
def test_chunks_add_up_to_the_total(total: int, chunk: int) -> None:
    chunks = chunk_sizes(total, chunk)
    assert sum(chunks) == total
    assert all(0 < size <= (chunk or total) for size in chunks)
    assert len(set(chunks[:-1])) <= 1


def test_chunks_of_a_known_case() -> None:
    assert chunk_sizes(70, 30) == (30, 30, 10)
    assert chunk_sizes(60, 30) == (30, 30)
    assert chunk_sizes(70, 0) == (70,)
    assert chunk_sizes(0, 0) == ()


@pytest.mark.parametrize(
    ("count", "buffer", "expected"),
    [
        (100, 0.15, 115),
        (100, 0.1, 110),
        (10, 0.15, 12),
        (7, 0.0, 7),
        (7, 1.0, 14),
        (1, 1e-300, 2),
        (0, 0.5, 0),
    ],
)
def test_the_buffer_is_rounded_up_without_the_noise_of_floats(
    count: int, buffer: float, expected: int
) -> None:
    assert with_buffer(count, buffer) == expected


@given(sizes, st.integers(0, 100))
def test_the_buffer_is_exact_in_percent(count: int, percent: int) -> None:
    assert with_buffer(count, percent / 100) == -(-count * (100 + percent) // 100)

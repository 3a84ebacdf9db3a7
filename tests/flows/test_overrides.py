"""Settings on the command line: what is written is read again, whatever it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.request import read_override, write_override
from tasks.core.errors import UsageError

NUMBERS = st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.text() | NUMBERS | st.sampled_from(["5", "true", '"x"', "1\n[b]\nc = 2", "5 # five", "[1, 2]"]))
def test_a_value_that_is_written_is_read_again(value: object) -> None:
    key, read = read_override(write_override("some.key", value))
    assert (key, read, type(read)) == ("some.key", value, type(value))


def test_text_needs_no_quotes_and_a_table_is_written_as_json() -> None:
    assert write_override("generation.main_topic", "Tea = water + leaves") == (
        "generation.main_topic=Tea = water + leaves"
    )
    _, table = read_override(write_override("provider_rate_limits", {"openai": 60}))
    assert json.loads(table) == {"openai": 60}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("a.b=5", ("a.b", 5)),
        (" a.b = 0.5", ("a.b", 0.5)),
        ("a.b=", ("a.b", "")),
        ("a.b=x=y", ("a.b", "x=y")),
        ("a.b=" + "9" * 5000, ("a.b", "9" * 5000)),
        ("a.b=" + "[" * 100_000, ("a.b", "[" * 100_000)),
    ],
)
def test_what_is_no_toml_is_text(item: str, expected: tuple[str, object]) -> None:
    assert read_override(item) == expected


@pytest.mark.parametrize("item", ["", "a.b", "=5", "  =5"])
def test_a_setting_needs_a_key_and_a_value(item: str) -> None:
    with pytest.raises(UsageError, match="give a setting as KEY=VALUE"):
        read_override(item)

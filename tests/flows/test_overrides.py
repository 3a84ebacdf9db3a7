"""Settings on the command line: what is written is read again, whatever it is."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.commands.app import app
from flows.request import (
    KeyedLocation,
    ResumeRequest,
    RunRequest,
    SessionRequest,
    TransformRequest,
    read_override,
    write_override,
)
from tasks.core.errors import UsageError

NUMBERS = st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False)
TIMES = st.dates() | st.datetimes() | st.times()
TEXTS = st.text() | st.sampled_from(["5", "true", '"x"', "1\n[b]\nc = 2", "5 # five", "[1, 2]", "a\x7fb"])
VALUES = st.recursive(
    TEXTS | NUMBERS | TIMES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(VALUES)
def test_a_value_that_is_written_is_read_again(value: object) -> None:
    key, read = read_override(write_override("some.key", value))
    assert (key, read, type(read)) == ("some.key", value, type(value))


def test_text_needs_no_quotes() -> None:
    assert write_override("generation.main_topic", "Tea = water + leaves") == (
        "generation.main_topic=Tea = water + leaves"
    )
    assert write_override("some.key", {"openai": 60}) == 'some.key={"openai" = 60}'


def asked(command: str) -> object:
    """What the program is asked to do by a command that it printed."""
    program, *words = shlex.split(command)
    assert program == "vellumforge2"
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return bound.arguments["request"]


NAMES = st.text(min_size=1).filter(lambda text: "\0" not in text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "config": NAMES,
            "env_file": NAMES,
            "output": NAMES,
            "overrides": st.dictionaries(st.from_regex(r"[a-z]+(\.[a-z]+)*", fullmatch=True), VALUES),
            "resume": NAMES,
            "accept_changes": st.booleans(),
            "trust_session": st.booleans(),
            "fresh": st.booleans(),
            "upload_to_hf": st.booleans(),
            "repo": NAMES,
        },
    )
)
def test_a_command_that_is_printed_asks_for_the_same(given_fields: dict[str, Any]) -> None:
    request = RunRequest(**given_fields)
    assert asked(request.again("")) == request
    there = asked(request.again("session_1"))
    assert there == ResumeRequest(
        **{each.name: getattr(request, each.name) for each in fields(SessionRequest)}
    )


@settings(max_examples=20)
@given(st.booleans(), st.booleans(), NAMES, st.booleans())
def test_the_command_that_trusts_a_session_asks_for_the_same(
    fresh: bool,  # noqa: FBT001 - drawn
    upload: bool,  # noqa: FBT001 - drawn
    session: str,
    accept: bool,  # noqa: FBT001 - drawn
) -> None:
    request = RunRequest(resume=f"session_{session}", accept_changes=accept, fresh=fresh, upload_to_hf=upload)
    there = asked(request.trusting())
    if fresh or upload:
        assert there == replace(request, trust_session=True)
    else:
        assert there == ResumeRequest(accept_changes=accept, trust_session=True)
    keyed = KeyedLocation(env_file="keys").trusting("upload", "s", "--public")
    assert keyed == "vellumforge2 upload s --public --env-file keys --trust-session"


def test_a_retry_that_had_not_begun_is_printed_with_what_it_asks_for() -> None:
    request = RunRequest(resume="s", only=("cause=timeout", "phase=pairs"), further=True)
    assert request.again("") == "vellumforge2 retry s --only cause=timeout --only phase=pairs"


def test_a_transform_is_printed_as_it_was_given() -> None:
    request = TransformRequest(mode="rejudge", output="-o", input_file="in put.jsonl", skip_bad=True)
    assert (
        request.command()
        == "vellumforge2 transform --mode rejudge --output=-o --input 'in put.jsonl' --skip-bad"
    )
    assert asked(request.command()) == request


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

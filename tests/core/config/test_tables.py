"""Settings with names of the user's own: what can be sent, and that no secret stands in them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config.values import check_extra_body, check_headers, check_stop, check_variable

KEY = "sk-abcdefgh12345678"


def refused(check: Any, value: object) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check(value)
    message = str(caught.value)
    assert "abcdefgh" not in message
    assert message.isprintable()
    return message


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), documents))
def test_an_accepted_body_can_be_sent_as_it_is(value: dict[str, Any]) -> None:
    try:
        check_extra_body(value)
    except ValueError:
        return
    assert orjson.loads(orjson.dumps(value)) == value


def test_parameters_of_servers_are_accepted() -> None:
    for text in (
        'chat_template_kwargs = {enable_thinking = false}\nreasoning_effort = "high"',
        "repetition_penalty = 1.05\nskip_special_tokens = true\nmin_tokens = 5\nlogit_bias = {50256 = -100}",
        'provider = {order = ["a", "b"], allow_fallbacks = false}\ntransforms = []',
        'options = {num_ctx = 8192}\nkeep_alive = "5m"\nbad_words_token_ids = [[1, 2]]',
    ):
        value = tomli.loads(text)
        assert check_extra_body(value) == value
    assert check_extra_body({"grammar": None}) == {"grammar": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("when = 2026-01-01", "holds a date"),
        ("a = [{b = 07:30:00}]", "holds a date"),
        ("a = nan", "nan or inf"),
        ("a = [[-inf]]", "nan or inf"),
        ("a = 9223372036854775808", "more than 64 bits"),
        ("model = 'other'", "must not hold model"),
        ("stream = true", "must not hold stream"),
        ("n = 2", "must not hold n,"),
        ("response_format = {type = 'text'}", "must not hold response_format"),
        ("temperature = 0", "must not hold temperature; set temperature instead"),
        ("max_completion_tokens = 5", "set max_output_tokens instead"),
        (f"a = {{api_key = '{KEY}'}}", "must not hold a secret"),
        ("a = [{password = 'abcdefgh'}]", "must not hold a secret"),
        (f"user = '{KEY}'", "must not hold a secret"),
        ("a = 'Bearer abcdefgh'", "must not hold a secret"),
    ],
)
def test_bodies_that_are_refused(text: str, expected: str) -> None:
    assert expected in refused(check_extra_body, tomli.loads(text))


def test_half_a_character_is_refused() -> None:
    half = json.loads('"abcdefgh\\ud800"')
    assert "UTF-8" in refused(check_extra_body, {"a": half})
    assert "UTF-8" in refused(check_stop, [half])


@pytest.mark.parametrize(
    "value",
    [
        {"HTTP-Referer": "https://example.org", "X-Title": "Tides"},
        {"api-key": "${AZURE_OPENAI_API_KEY}", "cf-aig-authorization": "Bearer ${GATEWAY_TOKEN}"},
        {"X-Mixed": "a ${A_1} b ${_B}", "anthropic-version": "2023-06-01", "X-Cost": "$5"},
    ],
)
def test_headers_that_can_be_sent(value: dict[str, str]) -> None:
    assert check_headers(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Authorization": "Bearer ${KEY}"}, "name the key with api_key_env"),
        ({"host": "example.org"}, "must not hold host"),
        ({"Content-Length": "5"}, "must not hold Content-Length"),
        ({"transfer-encoding": "chunked"}, "must not hold transfer-encoding"),
        ({"": "a"}, "a name that no header can have"),
        ({"X Title": "a"}, "a name that no header can have"),
        ({"X:": "a"}, "a name that no header can have"),
        ({"Überschrift": "a"}, "a name that no header can have"),
        ({"X-A": "a", "x-a": "b"}, "holds x-a twice"),
        ({"X-A": "abcdefgh\r\nX-B: c"}, "holds a line break"),
        ({"X-A": "ü"}, "holds a line break, or another character that no header has, in X-A"),
        ({"X-A": "${}"}, "no name of a variable"),
        ({"X-A": "${A B}"}, "no name of a variable"),
        ({"X-A": "${A"}, "no name of a variable"),
        ({"X-A": "${${A}}"}, "no name of a variable"),
        ({"X-Api-Key": "abcdefgh"}, "must not hold a secret in X-Api-Key"),
        ({"Cookie": "session=abcdefgh"}, "must not hold a secret in Cookie"),
        ({"X-Auth": "Basic abcdefgh"}, "must not hold a secret in X-Auth"),
        ({"X-App": KEY}, "must not hold a secret in X-App"),
        ({"X-App": f"${{A}} {KEY}"}, "must not hold a secret in X-App"),
    ],
)
def test_headers_that_are_refused(value: dict[str, str], expected: str) -> None:
    assert expected in refused(check_headers, value)


def test_a_text_that_ends_answers_is_not_empty() -> None:
    assert check_stop(["END", "\n\n"]) == ["END", "\n\n"]
    assert "empty" in refused(check_stop, ["END", ""])


def test_a_variable_is_named_and_no_key_itself() -> None:
    for name in ("", "A_KEY", "_k2"):
        assert check_variable(name) == name
    for value in ("2K", "A-KEY", "${A_KEY}", KEY, "sk_abcdefgh12345678", " A"):
        assert "name of a variable" in refused(check_variable, value)


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    for opening in ("{'a':", "["):
        closing = "}" if opening[0] == "{" else "]"
        for depth, fits in ((63, True), (64, False), (400, False)):
            text = f"{opening * depth}1{closing * depth}".replace("'", '"')
            given = {"x": json.loads(text)}
            if fits:
                assert check_extra_body(given) == given
            else:
                assert "nested too deeply; allowed: 64" in refused(check_extra_body, given)

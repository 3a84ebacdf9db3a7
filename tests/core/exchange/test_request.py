"""A request's key and body: what decides the answer is in them, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.exchange.request import Answer, ChatRequest
from tasks.core.models import Purpose

values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
parameters = st.dictionaries(st.text(max_size=10), values, max_size=6)
messages = st.lists(st.tuples(st.sampled_from(["system", "user"]), st.text()), max_size=3).map(tuple)
requests = st.builds(
    ChatRequest,
    purpose=st.sampled_from(Purpose),
    endpoint=st.sampled_from(["http://127.0.0.1/v1", "https://api.example.org"]),
    model=st.text(min_size=1, max_size=10),
    messages=messages,
    parameters=parameters,
    schema=st.sampled_from(["", "items", "scores"]),
    sample=st.integers(0, 2**52),
)

GOLDEN = ChatRequest(
    purpose=Purpose.JUDGE,
    endpoint="http://127.0.0.1:8000/v1",
    model="demo-judge",
    messages=(("system", "Be fair."), ("user", "Wie schön ist das? 🙂")),
    parameters={"temperature": 0.0, "top_p": 1.0, "max_tokens": 512},
    schema="scores",
    sample=3,
)


def test_the_form_of_a_key_stays() -> None:
    # A key of another form finds none of the answers that anybody has paid for: raise KEY_VERSION then.
    assert GOLDEN.key.hex() == "82ff3e1c46f197fd6b73e8d9d6b0fd2ba2bfbcd981e3b173ddd5f26b13fd4abb"


@given(requests, st.randoms(use_true_random=False))
def test_a_key_does_not_know_the_order_of_parameters(request: ChatRequest, random: Any) -> None:
    shuffled = list(request.parameters.items())
    random.shuffle(shuffled)
    assert replace(request, parameters=dict(shuffled)).key == request.key


@given(requests)
def test_a_key_is_the_same_for_the_same_request(request: ChatRequest) -> None:
    assert replace(request).key == request.key
    assert len(request.key) == 32


@given(requests, st.data())
def test_a_key_changes_with_every_field(request: ChatRequest, data: st.DataObject) -> None:
    others: dict[str, Any] = {
        "purpose": data.draw(st.sampled_from(Purpose)),
        "endpoint": data.draw(st.text(max_size=8)),
        "model": data.draw(st.text(max_size=8)),
        "messages": data.draw(messages),
        "schema": data.draw(st.text(max_size=8)),
        "sample": data.draw(st.integers(0, 9)),
    }
    for name, other in others.items():
        changed = replace(request, **{name: other})
        assert (changed.key == request.key) == (getattr(request, name) == other)


@given(requests, st.text(max_size=10), st.integers(-9, 9))
def test_a_key_changes_with_every_parameter(request: ChatRequest, name: str, value: int) -> None:
    without = {key: kept for key, kept in request.parameters.items() if key != name}
    keys = {
        replace(request, parameters=without).key,
        replace(request, parameters=without | {name: value}).key,
        replace(request, parameters=without | {name: value + 1}).key,
        replace(request, parameters=without | {name: str(value)}).key,
    }
    assert len(keys) == 4


def test_a_key_changes_with_each_message() -> None:
    one, two = ("system", "Be fair."), ("user", "Why?")
    variants = [
        (one, two),
        (two, one),
        (one,),
        (two,),
        (one, two, two),
        (one, ("user", "Why? ")),
        (("user", one[1]), two),
        (("system", "Be fair.Why?"),),
    ]
    assert len({replace(GOLDEN, messages=variant).key for variant in variants}) == len(variants)


def test_zero_is_a_value_and_not_an_absent_one() -> None:
    absent, zero = replace(GOLDEN, parameters={}), replace(GOLDEN, parameters={"temperature": 0.0})
    assert absent.key != zero.key
    assert zero.body()["temperature"] == 0.0


def test_a_body_holds_what_the_server_needs_and_nothing_of_ours() -> None:
    assert GOLDEN.body() == {
        "model": "demo-judge",
        "messages": [
            {"role": "system", "content": "Be fair."},
            {"role": "user", "content": "Wie schön ist das? 🙂"},
        ],
        "temperature": 0.0,
        "max_tokens": 512,
    }


def test_a_top_p_that_changes_nothing_is_in_the_key_and_not_sent() -> None:
    one, less, none = (
        replace(GOLDEN, parameters=parameters) for parameters in ({"top_p": 1.0}, {"top_p": 0.9}, {})
    )
    assert [request.body().get("top_p") for request in (one, less, none)] == [None, 0.9, None]
    assert len({request.key for request in (one, less, none)}) == 3


@given(requests, st.integers(0, 99), st.sampled_from(Purpose))
def test_a_body_never_shows_sample_or_purpose(request: ChatRequest, sample: int, purpose: Purpose) -> None:
    assert replace(request, sample=sample, purpose=purpose, schema="other").body() == request.body()


def test_an_answer_is_truncated_when_the_server_says_so() -> None:
    assert Answer("half", finish_reason="length").truncated
    assert not Answer("whole", finish_reason="stop").truncated
    assert not Answer("whole").truncated

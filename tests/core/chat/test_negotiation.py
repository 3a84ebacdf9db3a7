"""The form of a request: asked for in the strongest, weakened by what is refused, learned once for all."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from tasks.core.answers.parsing import parse_items, parse_scores
from tasks.core.chat.http import ChatHttp
from tasks.core.chat.negotiation import Negotiation
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError, Verdict
from tasks.core.exchange.request import Refused, response_format
from tests.core.chat.attempts import KEY
from tests.core.chat.scripted import Scripted, completion, http, question

PROSE = question()
LIST = question(schema="items")
SCORES = question(schema="scores")


def refused(form: str, tried: str) -> AttemptError:
    return AttemptError(
        "http_400", "no", verdict=Verdict.RENEGOTIATE, status=400, refused=(Refused(form, tried),)
    )


def test_a_shape_is_asked_for_in_weaker_forms_one_after_the_other() -> None:
    form = Negotiation()
    assert (form.structure(LIST), form.structure(SCORES), form.structure(PROSE)) == (
        "json_schema",
        "json_schema",
        "off",
    )
    assert form.learn(refused("response_format", "json_schema"))
    assert form.structure(LIST) == "json_object"
    assert form.learn(refused("response_format", "json_object"))
    assert form.structure(LIST) == "off"
    assert not form.learn(refused("response_format", "off"))


def test_calls_that_were_refused_together_learn_one_thing() -> None:
    form = Negotiation()
    assert all(form.learn(refused("response_format", "json_schema")) for _ in range(64))
    assert form.structure(LIST) == "json_object"


def test_of_a_schema_that_is_set_the_bounds_alone_may_go() -> None:
    form = Negotiation("json_schema")
    assert form.learn(refused("response_format", "json_schema"))
    assert form.structure(LIST) == "plain_schema"
    assert form.learn(refused("response_format", "json_schema"))
    assert not form.learn(refused("response_format", "plain_schema"))
    assert form.structure(LIST) == "plain_schema"


@pytest.mark.parametrize("setting", ["json_object", "off"])
def test_what_is_set_is_not_negotiated(setting: Literal["json_object", "off"]) -> None:
    form = Negotiation(setting)
    assert form.structure(LIST) == setting
    assert not form.learn(refused("response_format", setting))
    assert form.structure(LIST) == setting


def test_the_name_of_the_token_limit() -> None:
    form = Negotiation()
    assert form.learn(refused("max_tokens", "max_tokens"))
    assert form.token_limit == "max_completion_tokens"  # noqa: S105 - a parameter
    assert form.learn(refused("max_tokens", "max_tokens"))
    assert not form.learn(refused("max_tokens", "max_completion_tokens"))
    assert not Negotiation(max_tokens_parameter="max_tokens").learn(refused("max_tokens", "max_tokens"))
    assert Negotiation(max_tokens_parameter="max_completion_tokens").token_limit == "max_completion_tokens"  # noqa: S105 - a parameter


def test_streaming_is_given_up_in_two_steps() -> None:
    form = Negotiation(use_streaming=True)
    manner = form.manner(PROSE, Manner(None, 1.0))
    assert (manner.streaming, manner.stream_usage) == (True, True)
    assert form.learn(refused("stream_options", "include_usage"))
    manner = form.manner(PROSE, manner)
    assert (manner.streaming, manner.stream_usage) == (True, False)
    assert form.learn(refused("stream", "stream"))
    assert not form.manner(PROSE, manner).streaming


@pytest.mark.parametrize("verdict", Verdict)
def test_nothing_is_learned_of_errors_that_refuse_nothing(verdict: Verdict) -> None:
    form = Negotiation()
    assert not form.learn(AttemptError("cause", "no", verdict=verdict))
    assert form.structure(LIST) == "json_schema"


def test_the_forms_as_they_are_sent() -> None:
    assert response_format("off", "items") is None
    assert response_format("json_schema", "") is None
    assert response_format("json_object", "items") == {"type": "json_object"}
    form = response_format("json_schema", "items")
    assert form is not None
    schema = form["json_schema"]["schema"]
    # OpenAI's strict mode: an object at the root, every property required, no other.
    assert form["json_schema"]["strict"] is True
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"]) == ["items"]
    scores = response_format("json_schema", "scores")
    assert scores is not None
    assert scores["json_schema"]["schema"]["type"] == "object"


def test_what_the_schemas_allow_is_read() -> None:
    assert parse_items('{"items": ["One", "Two"]}') == ("One", "Two")
    for text in (
        '{"plot": 4}',
        '{"plot": {"score": 4, "reasoning": "x"}}',
        '{"scores": {"plot": {"score": 4}}}',
    ):
        assert parse_scores(text, ("plot",)).total == 4


async def test_a_server_that_takes_nothing_is_asked_plainly_in_the_end() -> None:
    def no(message: str, **fields: Any) -> bytes:
        return http(400, json.dumps({"error": {"message": message, **fields}}))

    script = [
        no("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        no("Unrecognized request argument supplied: stream_options"),
        no("response_format.type must be one of text, json_object"),
        no("response_format is not supported"),
        no("streaming is not supported by this model", param="stream"),
        completion('["a"]'),
    ]
    form = Negotiation(use_streaming=True)
    async with Scripted(script) as server, ChatHttp(max_connections=1) as client:
        request = question(endpoint=server.url, schema="items")
        for _ in script[:-1]:
            with pytest.raises(AttemptError) as caught:
                await client.send(request, form.manner(request, Manner(KEY, 30.0)))
            assert form.learn(caught.value)
        arrival = await client.send(request, form.manner(request, Manner(KEY, 30.0)))
    assert arrival.answer.content == '["a"]'
    first, last = server.received[0].body, server.received[-1].body
    assert first["response_format"]["type"] == "json_schema"
    assert (first["max_tokens"], first["stream"], first["stream_options"]) == (
        64,
        True,
        {"include_usage": True},
    )
    assert sorted(last) == ["max_completion_tokens", "messages", "model", "temperature"]
    assert last["max_completion_tokens"] == 64

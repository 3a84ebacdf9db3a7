"""What is known before a run: its requests with sample values, and what models show when they are asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.models import Purpose
from tasks.core.preflight import ping_all, sample_requests, targets_of
from tasks.core.secrets import Keys
from tests.core.chat.scripted import SECRET, Scripted, closed_port, completion, http
from tests.core.running import configured

if TYPE_CHECKING:
    from tasks.core.preflight import Ping

LISTED = completion('{"items": ["red", "blue"]}')
REFUSED = {
    form: http(400, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}))
    for form, message in (
        ("json", "response_format is not supported"),
        ("stream", "stream is not supported by this model"),
        ("tokens", "Unsupported parameter: use max_completion_tokens instead of max_tokens"),
    )
}


def stream(*pieces: dict[str, Any]) -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": piece}]} for piece in pieces]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    return f"{head}Content-Length: {len(events)}\r\n\r\n{events}".encode()


async def pinged(*script: bytes, **settings: Any) -> tuple[Ping, list[dict[str, Any]]]:
    """What the only model of a configuration shows, and the bodies that it was sent."""
    async with Scripted(script) as server:
        config = configured(server.url, generation__dataset_mode="sft", **settings)
        keys = Keys({"API_KEY": SECRET, "TOKEN": "planted-token"}, {})
        (ping,) = await ping_all(config, targets_of(config), keys)
    assert all(received.headers["authorization"] == f"Bearer {SECRET}" for received in server.received)
    return ping, [received.body for received in server.received]


def test_each_purpose_has_a_request_with_sample_values() -> None:
    requests = sample_requests(configured(generation__dataset_mode="mo-dpo"))
    assert {kind.purpose: request.messages[-1][1] for kind, request in requests.items()} == {
        Purpose.SUBTOPICS: "subtopics 2",
        Purpose.PROMPTS: "prompts 2 of (a subtopic)",
        Purpose.CHOSEN: "chosen (a prompt)",
        Purpose.REJECTED: "rejected (a prompt)",
        Purpose.JUDGE: "judge (an answer)",
    }
    of_sft = sample_requests(configured(generation__dataset_mode="sft"))
    assert Purpose.REJECTED not in {kind.purpose for kind in of_sft}


def test_a_model_with_two_purposes_is_asked_once() -> None:
    targets = targets_of(configured(models__judge__model_name="strong", generation__dataset_mode="mo-dpo"))
    assert [(target.model.model_name, target.purposes) for target in targets] == [
        ("strong", (Purpose.SUBTOPICS, Purpose.PROMPTS, Purpose.CHOSEN, Purpose.JUDGE)),
        ("weak", (Purpose.REJECTED,)),
    ]


async def test_a_model_that_can_everything() -> None:
    limits = "x-ratelimit-limit-requests: 500", "x-ratelimit-remaining-requests: 499"
    first = http(200, completion("ready").partition(b"\r\n\r\n")[2], *limits)
    ping, bodies = await pinged(first, stream({"reasoning_content": "Hm."}, {"content": "ready"}), LISTED)
    assert (ping.error, ping.reported, ping.streaming, ping.structure) == (
        "",
        "as-reported",
        "works",
        "json_schema",
    )
    assert ping.forms == ("prose (chosen)", "a list (subtopics, prompts)")
    assert ping.reasoning
    assert ping.tokens == 2 * 18
    assert ping.seconds > 0
    assert (ping.advice.limit_requests, ping.advice.remaining_requests) == (500, 499)
    assert [body["max_tokens"] for body in bodies] == [configured().models.main.max_output_tokens] * 3
    assert ["stream" in body for body in bodies] == [False, True, False]
    assert bodies[2]["response_format"]["type"] == "json_schema"
    assert "json" not in json.dumps([body["messages"] for body in bodies]).lower()


async def test_what_a_model_does_not_take_is_found_out() -> None:
    ping, bodies = await pinged(
        REFUSED["tokens"],
        completion("ready"),
        REFUSED["stream"],
        REFUSED["json"],
        completion("1. red\n2. blue"),
        models__main__extra_body={"reasoning_effort": "low"},
    )
    assert (ping.error, ping.streaming, ping.structure) == ("", "the server does not take it", "off")
    assert not ping.reasoning
    assert [name for body in bodies for name in ("max_tokens", "max_completion_tokens") if name in body] == [
        "max_tokens",
        *["max_completion_tokens"] * 4,
    ]
    assert all(body["reasoning_effort"] == "low" for body in bodies)
    assert not any("JSON" in body["messages"][-1]["content"] for body in bodies)


async def test_where_json_is_asked_for_without_a_schema_the_word_is_said() -> None:
    """Servers demand that the messages speak of it."""
    refused = http(400, json.dumps({"error": {"message": "json_schema is not supported"}}))
    ping, bodies = await pinged(completion("ready"), stream({"content": "ready"}), refused, LISTED)
    assert ping.structure == "json_object"
    assert ["JSON" in body["messages"][-1]["content"] for body in bodies] == [False] * 3 + [True]


async def test_what_is_left_out_is_said() -> None:
    refused = http(
        400, json.dumps({"error": {"message": "temperature is not supported", "param": "temperature"}})
    )
    ping, bodies = await pinged(refused, completion("ready"), stream({"content": "ready"}), LISTED)
    assert ping.left_out == ("strong takes no temperature: left out",)
    assert ["temperature" in body for body in bodies] == [True] + [False] * 3


async def test_a_stream_is_tried_without_usage_where_that_is_not_taken() -> None:
    refused = http(400, json.dumps({"error": {"message": "stream_options is not allowed"}}))
    ping, bodies = await pinged(completion("ready"), refused, stream({"content": "ready"}), LISTED)
    assert ping.streaming == "works"
    assert ["stream_options" in body for body in bodies] == [False, True, False, False]


async def test_a_model_that_is_streamed_is_asked_so() -> None:
    ping, bodies = await pinged(
        stream({"content": "ready"}), stream({"content": '["red"]'}), models__main__use_streaming=True
    )
    assert (ping.error, ping.streaming, ping.structure) == ("", "works", "json_schema")
    assert all(body["stream"] for body in bodies)


async def test_reasoning_inside_of_an_answer_is_noticed() -> None:
    ping, _ = await pinged(completion("<think>Hm.</think>ready"), stream({"content": "ready"}), LISTED)
    assert ping.reasoning


async def test_an_answer_that_is_no_json_is_no_success() -> None:
    ping, _ = await pinged(completion("ready"), stream({"content": "ready"}), completion("1. red\n2. blue"))
    assert ping.structure == "json_schema is taken, and ignored: what came is no JSON"


async def test_json_in_the_reasoning_is_json() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": '["red", "blue"]'}
    listed = completion(choices=[{"message": message, "finish_reason": "stop"}])
    ping, _ = await pinged(completion("ready"), stream({"content": "ready"}), listed)
    assert (ping.error, ping.structure) == ("", "json_schema")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"message": {"content": ""}, "finish_reason": "stop"}, "the answer is empty"),
        ({"message": {"content": "<think>So"}, "finish_reason": "length"}, "raise max_output_tokens"),
    ],
)
async def test_a_model_that_says_nothing_cannot_be_used(choice: dict[str, Any], said: str) -> None:
    ping, bodies = await pinged(completion(choices=[choice]))
    assert ping.error.startswith("asked for prose (chosen): ")
    assert said in ping.error
    assert (ping.tokens, len(bodies)) == (18, 1)


async def test_a_form_that_is_refused_is_named() -> None:
    refused = http(400, json.dumps({"error": {"message": "no lists today"}}))
    # It may be the schema, so it is asked for in weaker forms as well.
    ping, _ = await pinged(completion("ready"), stream({"content": "ready"}), *[refused] * 3)
    assert ping.error == "asked for a list (subtopics, prompts): HTTP 400: no lists today"


async def test_json_is_not_asked_for_where_it_is_turned_off() -> None:
    ping, _ = await pinged(
        completion("ready"),
        stream({"content": "ready"}),
        completion("Red."),
        models__main__structured_output="off",
    )
    assert ping.structure == "off"


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_model_that_does_not_answer_is_asked_no_more(status: int) -> None:
    body = json.dumps({"error": {"message": f"no: {SECRET}; the token was planted-token"}})
    headers = {"X-Auth": "Bearer ${TOKEN}", "X-Flag": "o"}
    ping, bodies = await pinged(http(status, body), models__main__headers=headers)
    # Of a header's value the part that is secret, too; not what is short enough to stand anywhere.
    assert f"HTTP {status}: no: ***; the token was ***" in ping.error
    assert len(bodies) == 1


async def test_a_server_that_is_not_there_is_no_model() -> None:
    config = configured(f"http://127.0.0.1:{closed_port()}/v1")
    pings = await ping_all(config, targets_of(config), Keys({}, {}))
    assert all(ping.error for ping in pings)
    assert len(pings) == 2

"""The demo model server: how it misbehaves when told to, what it counts, and how it is run."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.demo import server as demo
from tasks.core.demo.chat import happens
from tasks.core.demo.server import Behaviour, DemoServer
from tasks.core.demo.text import LABEL
from tasks.core.errors import UsageError
from tests.core.demo.client import (
    CHAT,
    JUDGE,
    PROMPTS,
    RAW,
    SUBTOPICS,
    ask,
    body,
    connected,
    get,
    raw_body,
    serving,
    until_in_flight,
)


async def test_models_are_listed_and_other_paths_are_unknown() -> None:
    async with serving() as (_, client):
        assert [model["object"] for model in (await client.get("/models")).json()["data"]] == ["model"] * 3
        for response in (
            await client.get(CHAT),
            await client.post("/embeddings"),
            await client.head("/models"),
        ):
            assert response.status_code == 404
        assert (await client.get("/nowhere")).json()["error"]["type"] == "invalid_request_error"


def contents(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["choices"][0]["message"]["content"] for answer in answers]


async def many(behaviour: Behaviour, text: str, number: int = 60, **fields: Any) -> list[dict[str, Any]]:
    async with serving(behaviour) as (_, client):
        return [await ask(client, text, f"{n:x}", **fields) for n in range(number)]


async def test_a_share_of_prose_is_refused() -> None:
    texts = contents(await many(Behaviour(refuse=0.5), "Tell me about tides."))
    refused = [text for text in texts if re.search("as an AI|I'm unable to help with that", text)]
    assert 15 <= len(refused) <= 45
    assert all(LABEL in text for text in texts)
    listed = contents(await many(Behaviour(refuse=1.0), PROMPTS.format(n=2, topic="x"), 5))
    assert all(len(json.loads(text)) == 2 for text in listed)


async def test_a_share_of_items_repeats() -> None:
    answers = contents(await many(Behaviour(repeat=0.25), SUBTOPICS.format(n=100, topic="The sea"), 10))
    items = [item for text in answers for item in json.loads(text)]
    assert len(items) == 1000
    assert 150 <= len(items) - len(set(items)) <= 350


@pytest.mark.parametrize("text", [SUBTOPICS.format(n=9, topic="x"), JUDGE.format(story="x")])
async def test_a_share_of_structured_answers_is_broken(text: str) -> None:
    broken = 0
    for content in contents(await many(Behaviour(bad=0.5), text)):
        try:
            json.loads(content)
        except ValueError:
            broken += 1
    assert 15 <= broken <= 45


async def test_a_share_of_answers_is_empty() -> None:
    texts = contents(await many(Behaviour(empty=0.5), "Tell me about tides."))
    assert 15 <= texts.count("") <= 45


async def test_a_share_of_prose_stops_mid_sentence() -> None:
    answers = await many(Behaviour(cut=0.5), "Tell me about tides.")
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"stop"}
    cut = [text for text in contents(answers) if not text.endswith((".", ",", ";", ":"))]
    assert 15 <= len(cut) <= 45


async def test_a_share_of_answers_has_reasoning_which_uses_up_tokens() -> None:
    answers = await many(Behaviour(reasoning=0.5), "Tell me about tides.")
    with_reasoning = [a for a in answers if a["choices"][0]["message"].get("reasoning_content")]
    assert 15 <= len(with_reasoning) <= 45
    answer = (await many(Behaviour(reasoning=1.0), "Tell me about tides.", 1, max_tokens=5))[0]
    assert answer["choices"][0]["message"]["content"] == ""
    assert len(answer["choices"][0]["message"]["reasoning_content"]) == 20
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Behaviour(error=0.5), 500), (Behaviour(rate_limited=0.5, retry_after=1.5), 429)],
)
async def test_attempts_fail_and_a_retry_can_succeed(behaviour: Behaviour, status: int) -> None:
    runs = []
    for _ in range(2):
        async with serving(behaviour) as (server, client):
            responses = [
                [
                    await client.post(CHAT, json=body("Hi."), headers={"Idempotency-Key": f"{n:x}"})
                    for n in range(30)
                ]
                for _ in range(12)
            ]
            assert server.stats.statuses[str(status)] + server.stats.statuses["200"] == 360
        runs.append([[response.status_code for response in attempt] for attempt in responses])
    assert runs[0] == runs[1]
    assert 5 <= runs[0][0].count(status) <= 25
    assert all(200 in attempts for attempts in zip(*runs[0], strict=True))
    failed = next(response for response in responses[0] if response.status_code == status)
    assert failed.headers.get("retry-after") == ("1.5" if status == 429 else None)
    assert failed.json()["error"]["type"] == ("invalid_request_error" if status == 429 else "server_error")


async def test_a_share_of_attempts_is_cut_off_and_not_counted_as_answered() -> None:
    async with serving(Behaviour(truncate=0.5)) as (server, client):
        cut = 0
        for n in range(40):
            try:
                await ask(client, "Tell me about tides.", f"{n:x}")
            except httpx.RemoteProtocolError:
                cut += 1
        assert 8 <= cut <= 32
        assert server.stats.answered == 40 - cut
        assert [record.finished for record in server.records].count(False) == cut


async def test_models_and_texts_that_fail() -> None:
    behaviour = Behaviour(fail_models=("gone",), fail_matching="forbidden", error_matching="broken")
    async with serving(behaviour) as (_, client):
        response = await client.post(CHAT, json=body("Hi.", model="gone"))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.post(CHAT, json=body("A forbidden word."))).status_code == 400
        assert (await client.post(CHAT, json=body("A broken word."))).status_code == 500
        assert (await client.post(CHAT, json=body("A word."))).status_code == 200


@pytest.mark.parametrize("option", [{"refuse": 1.5}, {"latency_ms": -1.0}, {"error": float("nan")}])
def test_numbers_out_of_range_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(option))):
        Behaviour(**option)  # type: ignore[arg-type]


@given(st.floats(0, 1), st.binary(), st.text())
def test_a_share_is_decided_once_and_for_all(share: float, seed: bytes, what: str) -> None:
    assert happens(share, seed, what) is happens(share, seed, what)
    assert happens(1.0, seed, what)
    assert not happens(0.0, seed, what)


async def test_closing_ends_what_is_in_flight() -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        async with DemoServer(Behaviour(latency_ms=3_600_000)) as server:
            posts = [client.post(server.base_url + CHAT, json=body(f"{n}")) for n in range(100)]
            calls = [asyncio.create_task(post) for post in posts]
            await until_in_flight(server, 100)
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, httpx.TransportError) for result in results)
    assert (server.stats.in_flight, server.stats.answered) == (0, 0)
    assert [record.finished for record in server.records] == [False] * 100


async def test_a_client_that_leaves_is_not_answered() -> None:
    async with serving(Behaviour(latency_ms=3_600_000)) as (server, _):
        async with connected(server) as (_, writer):
            writer.write(RAW + raw_body("Hi."))
            await until_in_flight(server, 1)
        await until_in_flight(server, 0)
        assert [record.finished for record in server.records] == [False]


async def test_requests_are_listed_in_order_and_duplicates_counted() -> None:
    async with serving(Behaviour(latency_ms=1)) as (server, client):
        await ask(client, "One.", "aa")
        await ask(client, "One.", "bb")
        await ask(client, "One.", "aa")
        await client.post(CHAT, json=body("Two.", model="m"))
        await client.post(CHAT, content=b"{")
        await client.get("/models")
        listed = await get(server, "/requests")
        stats = await get(server, "/stats")
    assert [(r["key"], r["model"], r["kind"], r["status"], r["finished"]) for r in listed] == [
        ("aa", "strong-writer", "prose", 200, True),
        ("bb", "strong-writer", "prose", 200, True),
        ("aa", "strong-writer", "prose", 200, True),
        (None, "m", "prose", 200, True),
        (None, "", "", 400, True),
    ]
    assert listed[0]["body_hash"] == listed[1]["body_hash"] != listed[3]["body_hash"]
    assert stats == {
        "requests": 5,
        "answered": 4,
        "in_flight": 0,
        "duplicates": 1,
        "by_purpose": {"prose": 4},
        "connections": 3,
        "statuses": {"200": 4, "400": 1},
    }


async def test_a_taken_port_gives_the_next_free_one() -> None:
    async with DemoServer() as first, DemoServer(port=first.port) as second:
        assert first.port < second.port <= first.port + demo.PORTS_TRIED


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"host": "localhost"}, {"port": 70_000}])  # noqa: S104
def test_only_loopback_addresses_and_real_ports(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        DemoServer(**options)


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "stdin"])
def test_the_process_serves_until_it_is_told_to_stop(ending: str) -> None:
    arguments = ["--with-parent", "--refuse", "1", "--fail-models", "gone", "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "tasks.core.demo.server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        base_url = process.stdout.readline().strip()
        with httpx.Client(base_url=base_url, trust_env=False) as client:
            assert "demo text" in client.post(CHAT, json=body("Hi.")).text
            assert client.post(CHAT, json=body("Hi.", model="gone")).status_code == 404
        if ending == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.Signals[ending])
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refuse", "2"], "refuse is 2; allowed: 0 to 1"),
        (["--latency-ms", "soon"], "invalid float value"),
        (["--port", "-1"], "port is -1"),
        (["--loud"], "unrecognized arguments"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


async def streamed(behaviour: Behaviour, **fields: Any) -> tuple[list[dict[str, Any]], bool]:
    """The chunks of a stream, and whether it said that it was done."""
    async with serving(behaviour) as (_, client):
        response = await client.post(
            CHAT, json=body("Tell me of the tides.", stream=True, **fields), headers={"Idempotency-Key": "00"}
        )
    assert response.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1] == "[DONE]"


async def test_a_stream_says_what_a_whole_answer_says() -> None:
    async with serving() as (_, client):
        whole = await ask(client, "Tell me of the tides.")
    chunks, done = await streamed(Behaviour())
    assert done
    deltas = [chunk["choices"][0] for chunk in chunks]
    choice = whole["choices"][0]
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == choice["message"]["content"]
    assert deltas[-1]["finish_reason"] == choice["finish_reason"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_stream_reports_its_usage_last_when_it_is_asked_to() -> None:
    chunks, done = await streamed(Behaviour(), stream_options={"include_usage": True})
    assert done
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0


async def test_a_stream_without_an_end_has_no_finish() -> None:
    chunks, done = await streamed(Behaviour(unfinished=1.0), stream_options={"include_usage": True})
    assert not done
    assert chunks
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}

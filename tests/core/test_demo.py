"""The demo model server over real HTTP: what it answers, how it misbehaves when told to, what it counts."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config import defaults
from tasks.core.errors import UsageError
from tasks.core.llm import demo
from tasks.core.llm.demo import Behaviour, DemoServer
from tasks.core.llm.demo_chat import about, count, criteria, happens, recognise
from tasks.core.llm.demo_http import MAX_BODY, HttpError, RequestParser
from tasks.core.llm.demo_text import LABEL, Kind, list_items, prose, scores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SUBTOPICS = (
    'Generate {n} different subtopics of "{topic}".\nAnswer with a JSON array of strings and nothing else.'
)
PROMPTS = """Generate {n} writing prompts for subtopic: "{topic}".
Each is one or two sentences with a character and a conflict.
Answer with a JSON array of strings and nothing else."""
STORY = "Write a short story of 400 to 600 words for this prompt:\n\n{prompt}"
JUDGE = """Score the story below on every criterion from 1 to 5, with one sentence of reasoning each.

PROMPT: Something.
STORY: {story}

Criteria:
1. plot_quality
2. creativity
3. writing_quality

Answer with JSON only: {{"plot_quality": {{"score": 3, "reasoning": "..."}}, ...}}"""
CHAT = "/chat/completions"
RAW = b"POST /v1/chat/completions HTTP/1.1\r\nHost: demo\r\n"


def body(text: str, model: str = "strong-writer", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


@asynccontextmanager
async def serving(behaviour: Behaviour | None = None) -> AsyncIterator[tuple[DemoServer, httpx.AsyncClient]]:
    async with (
        DemoServer(behaviour) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        yield server, client


async def ask(client: httpx.AsyncClient, text: str, key: str = "00", **fields: Any) -> dict[str, Any]:
    response = await client.post(CHAT, json=body(text, **fields), headers={"Idempotency-Key": key})
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


async def say(client: httpx.AsyncClient, text: str, key: str = "00", **fields: Any) -> str:
    answer = await ask(client, text, key, **fields)
    content: str = answer["choices"][0]["message"]["content"]
    return content


async def get(server: DemoServer, path: str) -> Any:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://{server.host}:{server.port}{path}")).json()


# --- what it answers ---------------------------------------------------------------------------------------


async def test_same_request_same_answer() -> None:
    async with serving() as (_, client):
        first = await ask(client, "Tell me about tides.", "aa")
        assert await ask(client, "Tell me about tides.", "aa") == first
    async with serving() as (_, client):
        assert await ask(client, "Tell me about tides.", "aa") == first


@pytest.mark.parametrize(
    "other",
    [
        {"key": "bb"},
        {"seed": 7},
        {"temperature": 0.3},
        {"model": "another-writer"},
        {"text": "Tell me about rivers."},
    ],
)
async def test_whatever_decides_the_answer_changes_it(other: dict[str, Any]) -> None:
    async with serving() as (_, client):
        first = await say(client, "Tell me about tides.")
        assert await say(client, **{"text": "Tell me about tides.", **other}) != first


async def test_negotiated_fields_do_not_change_the_answer() -> None:
    async with serving() as (_, client):
        first = await ask(client, "Tell me about tides.")
        other = await ask(
            client,
            "Tell me about tides.",
            response_format={"type": "json_object"},
            max_completion_tokens=4096,
        )
        assert other == first


async def test_a_completion_has_the_usual_fields() -> None:
    async with serving() as (_, client):
        answer = await ask(client, "Tell me about tides.")
    content = answer["choices"][0]["message"]["content"]
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "strong-writer"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == 5
    assert answer["usage"]["completion_tokens"] == -(-len(content) // 4)
    assert answer["usage"]["total_tokens"] == 5 + answer["usage"]["completion_tokens"]


@pytest.mark.parametrize("template", [SUBTOPICS, PROMPTS])
async def test_a_list_has_the_count_asked_for(template: str) -> None:
    async with serving() as (server, client):
        items = json.loads(await say(client, template.format(n=300, topic="The 3 seas")))
    assert len(items) == len(set(items)) == 300
    assert all(isinstance(item, str) and item[0].isupper() for item in items)
    assert sum("The 3 seas" in item for item in items) > 50
    assert server.stats.by_purpose == {"subtopics" if template == SUBTOPICS else "prompts": 1}


async def test_prompts_name_their_subtopic() -> None:
    async with serving() as (_, client):
        items = json.loads(await say(client, PROMPTS.format(n=20, topic="Tidal mills")))
    assert all('"Tidal mills"' in item for item in items)


def test_items_of_different_requests_hardly_ever_collide() -> None:
    for kind in (Kind.SUBTOPICS, Kind.PROMPTS):
        items = [item for n in range(500) for item in list_items(kind, "The sea", 40, b"seed %d" % n)]
        assert len(set(items)) >= len(items) - 2


async def test_a_judge_scores_every_criterion() -> None:
    async with serving() as (server, client):
        answer = json.loads(await say(client, JUDGE.format(story="A story.")))
    assert list(answer) == ["plot_quality", "creativity", "writing_quality"]
    assert all(
        score["score"] in range(1, 6) and score["reasoning"].endswith(".") for score in answer.values()
    )
    assert server.stats.by_purpose == {"judge": 1}


async def test_a_judge_asked_for_scores_alone_gives_no_reasoning() -> None:
    text = JUDGE.format(story="A story.") + "\n\nGive the scores alone, without reasoning."
    async with serving() as (_, client):
        answer = json.loads(await say(client, text))
    assert list(answer) == ["plot_quality", "creativity", "writing_quality"]
    assert all(score in range(1, 6) for score in answer.values())


async def test_the_judge_prefers_the_strong_model() -> None:
    async with serving() as (_, client):
        averages = []
        for model in ("strong-writer", "weak-writer"):
            stories = [
                await say(client, STORY.format(prompt="Tides."), f"{n:x}", model=model) for n in range(40)
            ]
            answers = [json.loads(await say(client, JUDGE.format(story=story))) for story in stories]
            given = [score["score"] for answer in answers for score in answer.values()]
            averages.append(sum(given) / len(given))
    assert averages[0] == pytest.approx(4.2, abs=0.3)
    assert averages[1] == pytest.approx(2.4, abs=0.3)


@pytest.mark.parametrize(("seeds", "careful"), [(400, True), (400, False)])
def test_scores_average_as_documented(seeds: int, careful: bool) -> None:  # noqa: FBT001 - a case
    given: list[int] = []
    for n in range(seeds):
        judged = prose("tides", b"%d" % n, plain=not careful)
        given += scores(("one", "two"), judged, b"judge %d" % n, reasons=False).values()  # type: ignore[arg-type]
    assert sum(given) / len(given) == pytest.approx(4.2 if careful else 2.4, abs=0.1)


@pytest.mark.parametrize(
    ("fields", "fewest", "most"),
    [
        ({}, 60, 180),
        ({"model": "weak-writer"}, 20, 90),
        ({"model": "Rejected"}, 20, 90),
        ({"temperature": 1.0}, 20, 90),
    ],
)
async def test_prose_is_labelled_and_of_its_length(fields: dict[str, Any], fewest: int, most: int) -> None:
    async with serving() as (_, client):
        texts = [
            await say(client, STORY.format(prompt='A "tidal mill" is sold.'), f"{n:x}", **fields)
            for n in range(60)
        ]
    assert len(set(texts)) == 60
    for text in texts:
        assert fewest <= len(text.split()) <= most
        assert text.endswith(".")
        assert LABEL in text.partition(". ")[0]
        assert "tidal mill" in text
        assert "{" not in text
        assert "%s" not in text


async def test_a_token_limit_cuts_the_answer() -> None:
    async with serving() as (_, client):
        whole = await say(client, "Tell me about tides.")
        for name in ("max_tokens", "max_completion_tokens"):
            answer = await ask(client, "Tell me about tides.", **{name: 9})
            assert answer["choices"][0]["message"]["content"] == whole[:36]
            assert answer["choices"][0]["finish_reason"] == "length"
            assert answer["usage"]["completion_tokens"] == 9


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


# --- what is recognised -------------------------------------------------------------------------------------

DEFAULT_LIST = (
    'The {{n}} of "the {topic}", this batch is about "{sub}".\nWrite 12 tasks. A JSON array of strings.'
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SUBTOPICS.format(n=3, topic="film scores and criteria"), Kind.SUBTOPICS),
        (SUBTOPICS.format(n=3, topic="writing prompts"), Kind.SUBTOPICS),
        (PROMPTS.format(n=3, topic="subtopics of history"), Kind.PROMPTS),
        ('Write 4 prompts that meet these criteria: short.\nReturn a JSON list: ["a", "b"]', Kind.PROMPTS),
        (JUDGE.format(story='She said: "Send a JSON array of strings."'), Kind.JUDGE),
        ("Rate it on these criteria: depth, style. Answer in JSON.", Kind.JUDGE),
        (STORY.format(prompt="A referee scores a goal."), Kind.PROSE),
        ("Explain JSON to a child.", Kind.PROSE),
        (defaults.SUBTOPIC_GENERATION, Kind.SUBTOPICS),
        (defaults.PROMPT_GENERATION, Kind.PROMPTS),
        (defaults.CHOSEN_GENERATION, Kind.PROSE),
        (defaults.REJECTED_GENERATION, Kind.PROSE),
        (defaults.JUDGE_RUBRIC, Kind.JUDGE),
    ],
)
def test_kinds_are_recognised(text: str, kind: Kind) -> None:
    assert recognise(text, text) is kind


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Generate 12 subtopics, 2 words each", 12),
        ('Of "World War 2", name 40 topics', 40),
        ("1. Be brief.\n2. Write **15** prompts.", 15),
        ("Since 20000 is too much, 1-2 words, 2.5 percent: give 8.", 8),
        ("Generate some", 5),
    ],
)
def test_counts_are_recognised(text: str, number: int) -> None:
    assert count(text) == number


@pytest.mark.parametrize(
    ("kind", "text", "subject"),
    [
        (Kind.SUBTOPICS, 'Texts about "The sea". Like ["first", "second"]', "The sea"),
        (
            Kind.PROMPTS,
            'The field is "The sea", and this batch is about "Tides".\n["first", "second"]',
            "Tides",
        ),
        (Kind.PROMPTS, "In “The sea”, prompts for subtopic “Tides”", "Tides"),
        (Kind.PROMPTS, "Topic: The sea\nSubtopic: Tides and moons\nGo", "Tides and moons"),
        (Kind.PROMPTS, "Whatever you like", ""),
        (Kind.PROSE, 'A story about "Tides".', "Tides"),
        (
            Kind.PROSE,
            "Do it:\n\nThe keeper sells the old lighthouse and regrets it soon.",
            "The keeper sells the old lighthouse and regrets",
        ),
    ],
)
def test_subjects_are_recognised(kind: Kind, text: str, subject: str) -> None:
    assert about(kind, text) == subject


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"depth": {"score": 3, "reasoning": "x"}, "style": {"score": 1}}', ("depth", "style")),
        ('{"depth": 3, "style": <1-5>}', ("depth", "style")),
        ("Criteria:\n- plot_quality: is it good\n* `pace`\n", ("plot_quality", "pace")),
        ("Score it.", ("relevance", "clarity", "style")),
        (defaults.JUDGE_RUBRIC, defaults.DEFAULT_CRITERIA),
    ],
)
def test_criteria_are_recognised(text: str, names: tuple[str, ...]) -> None:
    assert criteria(text) == names


# --- how it misbehaves --------------------------------------------------------------------------------------


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
    async with serving(Behaviour(fail_models=("gone",), fail_matching="forbidden")) as (_, client):
        response = await client.post(CHAT, json=body("Hi.", model="gone"))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.post(CHAT, json=body("A forbidden word."))).status_code == 400
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


async def test_in_flight_requests_are_waited_for_together_and_ended_by_closing() -> None:
    async with serving(Behaviour(latency_ms=3_600_000)) as (server, client):
        calls = [asyncio.create_task(client.post(CHAT, json=body(f"{n}"), timeout=None)) for n in range(100)]
        while server.stats.in_flight < 100:
            await asyncio.sleep(0)
        await server.__aexit__(None, None, None)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, httpx.TransportError) for result in results)
        assert server.stats.in_flight == 0
        assert server.stats.answered == 0
        assert not any(record.finished for record in server.records)


async def test_a_client_that_leaves_is_not_answered() -> None:
    async with serving(Behaviour(latency_ms=3_600_000)) as (server, _):
        _, writer = await connect(server)
        writer.write(RAW + raw_body("Hi."))
        while server.stats.in_flight < 1:
            await asyncio.sleep(0)
        writer.close()
        while server.stats.in_flight:
            await asyncio.sleep(0)
        assert [record.finished for record in server.records] == [False]


# --- what it counts -----------------------------------------------------------------------------------------


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
        "connections": 2,
        "statuses": {"200": 4, "400": 1},
    }


# --- HTTP ---------------------------------------------------------------------------------------------------


async def connect(server: DemoServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(server.host, server.port)


def raw_body(text: str, *headers: str) -> bytes:
    content = json.dumps(body(text)).encode()
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"Content-Length: (\d+)", head)
    assert length is not None
    return int(head.split()[1]), json.loads(await reader.readexactly(int(length[1])))


@pytest.mark.parametrize("latency_ms", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_pipelined_requests_in_pieces_are_answered_in_order(size: int, latency_ms: float) -> None:
    texts = [f"Tell me about number {n}." for n in range(5)]
    async with serving(Behaviour(latency_ms=latency_ms)) as (server, client):
        expected = [await ask(client, text) for text in texts]
        reader, writer = await connect(server)
        sent = b"".join(RAW + raw_body(text, "Idempotency-Key: 00") for text in texts)
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await writer.drain()
        assert [await read_answer(reader) for _ in texts] == [(200, answer) for answer in expected]
        writer.close()


async def test_chunks_expect_and_connection_close() -> None:
    content = json.dumps(body("Tell me about tides.")).encode()
    async with serving() as (server, _):
        reader, writer = await connect(server)
        writer.write(RAW + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for piece in (content[:10], content[10:]):
            writer.write(b"%x;note=1\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\nTrailer: yes\r\n\r\n")
        status, answer = await read_answer(reader)
        assert (status, answer["object"]) == (200, "chat.completion")
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /stats HTTP/3\r\n\r\n", 400),
        (RAW + b" folded\r\n\r\n", 400),
        (RAW + b"Content-Length: -1\r\n\r\n", 400),
        (RAW + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (RAW + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (RAW + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (RAW + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\n", 400),
        (RAW + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        (RAW + b"Transfer-Encoding: chunked\r\n\r\n1000001\r\n", 413),
        (RAW + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (RAW + b"X: " + b"x" * 70_000, 431),
        (RAW + raw_body("x").replace(b'"model"', b'"name"'), 400),
        (RAW + b"Content-Length: 2\r\n\r\n[]", 400),
        (RAW + b"Content-Length: 4\r\n\r\nnull", 400),
    ],
)
async def test_malformed_requests(sent: bytes, status: int) -> None:
    async with serving() as (server, _):
        reader, writer = await connect(server)
        writer.write(sent)
        answer = await read_answer(reader)
        assert (answer[0], list(answer[1]["error"])) == (status, ["message", "type", "param", "code"])
        writer.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": ["hello"]},
        {"messages": [{"role": "user"}]},
        {"model": ""},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"temperature": "hot"},
        {"stream": True},
    ],
)
async def test_bodies_that_are_no_chat_request(fields: dict[str, Any]) -> None:
    async with serving() as (_, client):
        response = await client.post(CHAT, json=body("Hi.") | fields)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


async def test_a_large_body_is_taken_and_a_larger_one_refused() -> None:
    async with serving() as (_, client):
        assert (await client.post(CHAT, json=body("x" * 3_000_000))).status_code == 200
        assert (await client.post(CHAT, json=body("x" * MAX_BODY))).status_code == 413


async def test_content_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "Tell me"}, {"type": "text", "text": "about tides."}]
    async with serving() as (_, client):
        response = await client.post(CHAT, json=body("") | {"messages": [{"role": "user", "content": parts}]})
    assert "about tides (demo text)" in response.json()["choices"][0]["message"]["content"]


BODIES = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=4)


@given(BODIES, st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_requests_do_not_depend_on_how_they_are_split(
    bodies: list[tuple[bytes, bool]], sizes: list[int]
) -> None:
    sent = b""
    for content, chunked in bodies:
        if chunked:
            pieces = [content[:9], content[9:]] if len(content) > 9 else [content] if content else []
            coded = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            sent += b"POST /x?q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
        else:
            sent += b"\r\nPOST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    parser, found = RequestParser(), []
    for turn in range(len(sent)):
        size = sizes[turn % len(sizes)]
        parser.feed(sent[:size])
        sent = sent[size:]
        while request := parser.next_request():
            found.append((request.method, request.path, request.body))
    assert found == [("POST", "/x", content) for content, _ in bodies]


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_break_the_parser(data: bytes, ended: bool) -> None:  # noqa: FBT001 - drawn
    parser = RequestParser()
    parser.feed(data + b"\r\n\r\n" * ended)
    try:
        while request := parser.next_request():
            assert request.method
    except HttpError as error:
        assert error.status in {400, 413, 431}  # noqa: PT017 - that there is an error at all is not the point


# --- the server and its process -----------------------------------------------------------------------------


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
        [sys.executable, "-m", "tasks.core.llm.demo", *arguments],
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

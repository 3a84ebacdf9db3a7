"""What the demo model answers: the kinds of requests, and what is read from their messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.core.config import templates as defaults
from tasks.core.demo.chat import Behaviour, about, count, criteria, recognise
from tasks.core.demo.text import LABEL, Kind, list_items, prose, scores
from tests.core.demo.client import (
    JUDGE,
    PROMPTS,
    STORY,
    SUBTOPICS,
    ask,
    say,
    serving,
)


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


@pytest.mark.parametrize(("name", "brought"), [("items", list), ("scores", dict)])
async def test_a_schema_says_what_is_asked_for_where_the_messages_do_not(name: str, brought: type) -> None:
    form = {"type": "json_schema", "json_schema": {"name": name}}
    async with serving() as (_, client):
        assert isinstance(json.loads(await say(client, "Name 3 colours.", response_format=form)), brought)


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


async def test_answers_are_as_many_times_as_long_as_wanted() -> None:
    means = []
    for length in (1.0, 5.0):
        async with serving(Behaviour(length=length)) as (_, client):
            stories = [await say(client, STORY.format(prompt="Tides."), f"{n:x}") for n in range(40)]
        means.append(sum(len(story.split()) for story in stories) / len(stories))
    # What is more of stands between the first sentence and the last.
    assert 3 < means[1] / means[0] < 5


async def test_a_token_limit_cuts_the_answer() -> None:
    async with serving() as (_, client):
        whole = await say(client, "Tell me about tides.")
        for name in ("max_tokens", "max_completion_tokens"):
            answer = await ask(client, "Tell me about tides.", "00", **{name: 9})
            assert answer["choices"][0]["message"]["content"] == whole[:36]
            assert answer["choices"][0]["finish_reason"] == "length"
            assert answer["usage"]["completion_tokens"] == 9


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

"""Whatever of a request a server does not take, and however it says so, a run comes about."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tasks.core.chat.negotiation import Learned
from tasks.core.chat.server_errors import read_error, verdict_of
from tasks.core.chat.transport import Manner, body_of
from tasks.core.errors import EndpointError
from tasks.core.exchange.attempt import Verdict
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import jobs_of, numbered, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tests.core.chat.attempts import KEY
from tests.core.chat.scripted import question
from tests.core.demo.client import JUDGE, PROMPTS, STORY, SUBTOPICS
from tests.core.refusing import THINGS, WORDINGS, WRAPPINGS, Refusing, document_of
from tests.core.running import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tasks.core.generation.run import Run
    from tasks.core.models import Job, Pair

TEMPLATES = {
    "subtopic_generation": SUBTOPICS.format(n="{{.NumSubtopics}}", topic="{{.MainTopic}}"),
    "prompt_generation": PROMPTS.format(n="{{.NumPrompts}}", topic="{{.SubTopic}}"),
    "chosen_generation": STORY.format(prompt="{{.Prompt}}"),
    "rejected_generation": STORY.format(prompt="{{.Prompt}}"),
    "judge_rubric": JUDGE.format(story="{{.StoryText}}"),
    **{
        f"{purpose}_system_prompt": "You are a keeper of lights."
        for purpose in ("subtopic", "prompt", "chosen", "rejected", "judge")
    },
}
EVERYTHING = {
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "seed": 7,
    "stop": ["THE END"],
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "use_streaming": True,
    "extra_body": {"reasoning_effort": "low"},
}
"""Settings with which all that can be refused is sent."""


@asynccontextmanager
async def a_run(
    folder: Path, url: str, learned: Learned, options: dict[str, Any] = EVERYTHING, **generation: Any
) -> AsyncIterator[Run]:
    chosen = {
        "generation__dataset_mode": "mo-dpo",
        "generation__concurrency": 8,
        **{f"prompt_templates__{name}": text for name, text in TEMPLATES.items()},
        **{
            f"models__{role}__{name}": value
            for role in ("main", "rejected", "judge")
            for name, value in options.items()
        },
    }
    async with running(folder, url, learned=learned, **(chosen | generation)) as run:
        yield run


async def pairs_of(run: Run) -> list[Pair]:
    """All pairs of a run, from its subtopics on."""
    found: dict[int, Pair] = {}

    def keep(job: Job, pair: Pair | None) -> None:
        if pair is not None:
            found[job.id] = pair

    subtopics = await find_subtopics(run)
    prompts = await write_prompts(run, numbered(run.config, subtopics))
    await make_pairs(run, jobs_of(run, prompts), keep)
    return [found[place] for place in sorted(found)]


async def comes_about(folder: Path, server: Refusing) -> None:
    """A run of four pairs comes about; no thing is refused twice, and none in another run of the process."""
    learned = Learned()
    async with server:
        async with a_run(folder, server.base_url, learned) as run:
            assert len(await pairs_of(run)) == 4
        assert max(server.refused.values(), default=0) <= 1, server.refused
        before = server.refused.total()
        async with a_run(folder, server.base_url, learned, generation__seed=1) as run:
            assert len(await pairs_of(run)) == 4
        assert server.refused.total() == before


@pytest.mark.parametrize(("wording", "wrapping"), list(zip(cycle(WORDINGS), WRAPPINGS, strict=False)))
async def test_a_server_that_takes_nothing_of_it(tmp_path: Path, wording: str, wrapping: str) -> None:
    await comes_about(tmp_path, Refusing(THINGS, wording, wrapping))


@settings(
    max_examples=8, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    things=st.lists(st.sampled_from(THINGS), unique=True),
    wording=st.sampled_from(list(WORDINGS)),
    wrapping=st.sampled_from(list(WRAPPINGS)),
    status=st.sampled_from([400, 404, 422]),
)
def test_any_of_it_may_be_refused(
    tmp_path_factory: pytest.TempPathFactory, things: list[str], wording: str, wrapping: str, status: int
) -> None:
    asyncio.run(comes_about(tmp_path_factory.mktemp("run"), Refusing(things, wording, wrapping, status)))


MANNER = Manner(KEY, 30.0, structure="json_schema", streaming=True)
ASKED = replace(
    question(
        schema="items",
        parameters={
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 4096,
            "top_k": 40,
            "min_p": 0.05,
            "seed": 7,
            "stop": ["END"],
            "presence_penalty": 0.5,
            "frequency_penalty": 0.5,
            "reasoning_effort": "low",
        },
    ),
    messages=(("system", "Be brief."), ("user", "Why?")),
    least=3,
)


def refused(document: str, status: int = 400) -> tuple[Verdict, list[tuple[str, str]]]:
    """What an error means for a request with everything: the verdict, and names with their next steps."""
    complaint = read_error(document.encode(), ())
    verdict, found = verdict_of(status, complaint, MANNER, body_of(ASKED, MANNER))
    return verdict, [(each.name, each.step) for each in found]


@pytest.mark.parametrize("name", THINGS)
def test_a_refusal_is_recognised_in_all_words_and_wrappings(name: str) -> None:
    step = {"highest": "300", "response_format": "off"}.get(name, "")
    expected = {"highest": "the highest token limit"}.get(name, name)
    for wording in WORDINGS:
        for wrapping in WRAPPINGS:
            verdict, found = refused(document_of(name, wording, wrapping))
            assert (verdict, found) == (Verdict.RENEGOTIATE, [(expected, step)]), (wording, wrapping)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "max_tokens: 4096 > 2048, which is the maximum for claude-3-5-sonnet-20240620",
            ("the highest token limit", "2048"),
        ),
        ("Range of max_tokens should be [1, 2,048]", ("the highest token limit", "2048")),
        ("max_tokens must be at most 300", ("the highest token limit", "300")),
        ("max_tokens is too large", ("the highest token limit", "2048")),
        ("temperature must be between 0 and 1", ("temperature", "")),
        ("Conversation roles must alternate user/assistant/user/assistant/...", ("system", "")),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", ("system", "")),
        ("messages[0].role does not support 'system' with this model", ("system", "")),
        ("No endpoints found that support the requested parameters.", ("response_format", "")),
        ("Failed to initialize samplers", ("response_format", "")),
        ("Something odd", ("response_format", "")),
        (
            "Invalid schema for response_format: minItems is not permitted",
            ("response_format", "plain_schema"),
        ),
        ("response_format of type json_schema is not supported", ("response_format", "")),
    ],
)
def test_what_a_refusal_leads_to(message: str, expected: tuple[str, str]) -> None:
    assert refused(json.dumps({"error": {"message": message}}))[1] == [expected]


@pytest.mark.parametrize(
    "message",
    [
        "budget exceeded",
        "Your API key has expired",
        "Flagged by our content policy",
        "maximum context length is 4096 tokens; lower max_tokens",
        "Could not finish: max_tokens was reached, try again with higher max_tokens",
        "The model `demo-strong` does not exist",
    ],
)
def test_what_is_about_something_else_refuses_no_part_of_the_request(message: str) -> None:
    verdict, found = refused(json.dumps({"error": {"message": message}}))
    assert verdict is not Verdict.RENEGOTIATE
    assert not found


@pytest.mark.parametrize(
    ("options", "gone"),
    [({"top_p": 0.9}, "temperature"), ({"top_p": 0.9, "temperature": 0.2}, "top_p")],
)
async def test_of_two_that_exclude_each_other_the_one_that_nobody_set_goes(
    tmp_path: Path, options: dict[str, Any], gone: str
) -> None:
    class Exclusive(Refusing):
        def _refusal(self, body: dict[str, Any]) -> tuple[str, str] | None:
            message = (
                "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
            )
            both = "temperature" in body and "top_p" in body
            return ("both", json.dumps({"error": {"message": message}})) if both else None

    async with Exclusive(()) as server, a_run(tmp_path, server.base_url, Learned(), options) as run:
        assert len(await pairs_of(run)) == 4
        assert set(server.refused.values()) == {1}
        assert run.gateway is not None
        assert f"strong takes no {gone}: left out" in run.gateway.left_out


async def test_a_model_may_be_set_to_stop_at_what_is_refused(tmp_path: Path) -> None:
    options = {"unsupported": "stop", "top_k": 40}
    async with Refusing(["top_k"]) as server, a_run(tmp_path, server.base_url, Learned(), options) as run:
        with pytest.raises(EndpointError, match="does not take top_k: set no top_k, or unsupported = "):
            await find_subtopics(run)

"""Whatever of a request a server does not take, and however it says so, a run comes about."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import EndpointError
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import jobs_of, numbered, write_prompts
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.llm.negotiation import Learned
from tests.core.demo_client import JUDGE, PROMPTS, STORY, SUBTOPICS
from tests.core.refusing import HIGHEST, THINGS, WORDINGS, WRAPPINGS, Refusing, limit_of
from tests.core.running import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tasks.core.models import Job, Pair
    from tasks.core.run import Run

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
        **{f"models__{role}__{name}": value for role in ("main", "rejected", "judge") for name, value in options.items()},
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


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("wording", WORDINGS)
async def test_a_server_that_takes_nothing_of_it(tmp_path: Path, wording: str, wrapping: str) -> None:
    await comes_about(tmp_path, Refusing(THINGS, wording, wrapping))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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

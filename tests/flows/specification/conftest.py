"""Runs that the tests of the specification share: one undisturbed, one interrupted twice."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.flows.command import PROGRAM, User, asked_twice, model
from tests.flows.specification.story import LISTS, Story, checkpoint_of, press_ctrl_c, settings, vellumforge2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.flows.command import Ended, Model

SLOW = 200.0
"""Milliseconds an answer takes where a run is to be interrupted."""


@pytest.fixture(scope="package")
def server() -> Iterator[Model]:
    """A model server at one address, on which its answers depend."""
    with model() as started:
        yield started


@pytest.fixture(scope="package")
def story(tmp_path_factory: pytest.TempPathFactory, prefect_url: str, server: Model) -> Story:
    """A session that was interrupted twice; nobody may change its files."""
    where = tmp_path_factory.mktemp("story")
    user = User.made(where, PREFECT_API_URL=prefect_url, PREFECT_HOME=str(where / "prefect"))
    text = settings(server)
    user.write("config.toml", text)
    server.start(latency_ms=SLOW)
    first = user.start("run", "--config", "config.toml", program=PROGRAM)
    in_prompts = press_ctrl_c(server, user, first, requests=2)
    (session,) = user.sessions()
    second = user.start("checkpoint", "resume", session.name, program=PROGRAM)
    in_pairs = press_ctrl_c(server, user, second, requests=LISTS + 6)
    twice = asked_twice(server.requests())
    server.start()
    return Story(user, session.name, in_prompts, in_pairs, twice, text)


@pytest.fixture(scope="package")
def listed(story: Story) -> list[str]:
    """The lines of the list of the story's sessions, by the module's own command line."""
    ended = story.user.run("list", program=(sys.executable, "-m", "flows.checkpoint"))
    assert (ended.code, ended.err) == (0, "")
    return ended.out.splitlines()


@pytest.fixture(scope="package")
def generation(
    tmp_path_factory: pytest.TempPathFactory, prefect_url: str, server: Model, story: Story
) -> tuple[User, Ended]:
    """A run that nothing disturbed, by the command of the specification, and how it ended."""
    where = tmp_path_factory.mktemp("undisturbed")
    home = str(where / "prefect")
    user = User.made(where, PREFECT_API_URL=prefect_url, PREFECT_HOME=home).in_one_process()
    user.write("config.toml", story.config)
    server.start()
    return user, vellumforge2(user, "run", "--config", "config.toml")


@pytest.fixture(scope="package")
def undisturbed(generation: tuple[User, Ended]) -> Path:
    """The session of that run."""
    (session,) = generation[0].sessions()
    return session


@pytest.fixture(scope="package")
def resumed(
    tmp_path_factory: pytest.TempPathFactory, server: Model, story: Story, undisturbed: Path
) -> tuple[User, Ended, list[str]]:
    """The story's session, resumed to its end: whose it is, how that ended, what was asked for meanwhile."""
    assert undisturbed.is_dir()
    user = story.copy(tmp_path_factory.mktemp("resumed") / "user")
    server.start()
    ended = vellumforge2(user, "checkpoint", "resume", story.name, "--json")
    return user, ended, [request["kind"] for request in server.requests()]


@pytest.fixture(scope="package")
def resumed_with(
    tmp_path_factory: pytest.TempPathFactory, server: Model, story: Story, undisturbed: Path
) -> Mapping[str, tuple[User, Ended]]:
    """What happens to copies of the story's session, by what was done to them; all at the same time."""
    assert undisturbed.is_dir()
    where = tmp_path_factory.mktemp("resumed-with")
    resume = ("checkpoint", "resume", story.name)
    commands: dict[str, tuple[str, ...]] = {
        "torn files": resume,
        "a checkpoint ahead of the dataset": resume,
        "no room for the checkpoint": resume,
        "a new session": ("run",),
        "a new session with other counts": ("run", "--set", "generation.num_subtopics=2"),
    }
    server.start()
    running = {}
    for number, (case, words) in enumerate(commands.items()):
        user = story.copy(where / str(number))
        _spoil(user.folder / "output" / story.name, case)
        running[case] = (user, user.start(*words, "--json", program=PROGRAM))
    return {case: (user, process.end()) for case, (user, process) in running.items()}


def _spoil(session: Path, case: str) -> None:
    checkpoint = session / "checkpoint.json"
    match case:
        case "torn files":
            for path in (checkpoint, session / "dataset.jsonl"):
                content = path.read_bytes()
                path.write_bytes(content[: len(content) // 2])
        case "a checkpoint ahead of the dataset":
            document = checkpoint_of(session)
            every = {str(prompt["ID"]): True for prompt in document["prompts"]}
            document |= {"current_phase": "complete", "completed_job_ids": every}
            checkpoint.write_text(json.dumps(document))
        case "no room for the checkpoint":
            # What is renamed onto a folder fails, as it does on a full disk, and also for root.
            checkpoint.unlink()
            checkpoint.mkdir()

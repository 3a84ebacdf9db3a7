"""The flow `generate`: subtopics, prompts, pairs, dataset. `python -m flows.generate` runs it here."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Before anything else is imported: `--help` answers at once, and Prefect finds its settings made.
    from flows.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))

import logging
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows import display
from flows.console import Console, current
from flows.opening import opened
from flows.order import take_order
from flows.stages import find_all_subtopics, make_all_pairs, write_all_prompts
from tasks.core.config.models import Config  # noqa: TC001 - Prefect reads the flow's annotations
from tasks.core.errors import UnfinishedError
from tasks.core.models import Phase
from tasks.core.summary import Stopwatch, summarize

if TYPE_CHECKING:
    from tasks.core.run import Run
    from tasks.core.session.session import Session
    from tasks.core.summary import Summary

log = logging.getLogger("vellumforge.generate")


@flow(name="generate", persist_result=False)
async def generate(
    config: str = "config.toml",
    settings: Config | None = None,
    env_file: str | None = None,
    overrides: dict[str, Any] | None = None,
    fresh: bool = False,  # noqa: FBT001, FBT002 - a switch in the form of Prefect's UI
) -> Summary:
    """Generate a preference dataset.

    Args:
        config: Path of the configuration file.
        settings: The configuration itself; then the file is not read.
        env_file: Path of the file with API keys; left out, `.env` is read when there is one.
        overrides: Settings by dotted key that win over the file and the environment.
        fresh: Draw a new seed: other answers to the same questions, all of them paid for.

    Returns:
        The numbers of the run.

    Raises:
        ConfigError: The configuration cannot be used.
        PhaseError: A phase could not go on.
        UnfinishedError: The run came to its end, and some rows did not come about.
        RunInterrupted: The run was stopped by a signal.
    """
    console = current.get(None) or Console()
    with console.work():
        order = take_order(config, settings, env_file=env_file, overrides=overrides, fresh=fresh)
        console.seed = order.config.generation.seed
        async with opened(order, console) as (run, session), display.shown(console.progress):
            for warning in order.warnings:
                log.warning(warning)
            summary = console.summary = await _stages(run, session)
        if not summary.complete:
            raise UnfinishedError(summary.shortfall())
    return summary


async def _stages(run: Run, session: Session) -> Summary:
    """Phase after phase; the session folder is finished here, whatever Prefect's server does meanwhile."""
    watch = Stopwatch()
    finished = False
    state = session.checkpoint.state
    try:
        state.subtopics = await find_all_subtopics(run)
        await session.enter(Phase.PROMPTS)
        found, state.jobs = await write_all_prompts(run, state.subtopics)
        state.failed_subtopics = [entry.subtopic.name for entry in found if not entry.prompts]
        state.prompt_success_rate = 1 - len(state.failed_subtopics) / len(found)
        await session.enter(Phase.PAIRS)
        outcomes = await make_all_pairs(run, session, state.jobs)
        state.failures = sum(len(outcome.failures) for outcome in outcomes)
        finished = not state.failures
    finally:
        # Also after an interruption or a failure: what is there is put in order, and can be used.
        await session.finish(complete=finished)
    return summarize(run, session, state.jobs, outcomes, watch)

"""A run in this process: Prefect's settings, the embedded server where there is no other, their end."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shlex
import sys
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment
from flows.console import Console, current
from flows.demo import DEMO_LATENCY_MS, DEMO_PORT, demo_settings
from flows.embedded import EmbeddedServer, settle
from flows.opening import take_order
from flows.terminal import PROGRAM, say, show_records
from tasks.core.errors import PhaseError, RunInterrupted, UnfinishedError, VellumforgeError
from tasks.core.llm.demo import Behaviour, DemoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from tasks.core.summary import Summary

HOME = ".prefect"
"""The folder, inside the output folder, in which the embedded Prefect server keeps its data."""

GC_THRESHOLD = 50_000
"""Objects between two searches for garbage; a thousand jobs in flight hold more than Python's 700."""

SETTLE_SECONDS = 10.0
"""How long the end of a run may wait until Prefect has recorded it."""


def run_here(
    *,
    config: str,
    env_file: str | None,
    overrides: Mapping[str, Any],
    fresh: bool,
    demo: bool,
    show: Callable[[Summary], None],
    verbose: bool,
) -> int:
    """Check what is given, run the flow `generate` in this process, and show its summary.

    Args:
        config: Path of the configuration file; not read with `demo`.
        env_file: Path of the file with API keys, or None for `.env` where there is one.
        overrides: Settings by dotted key that win over file and environment.
        fresh: Whether a new seed is drawn.
        demo: Whether the demo's model server and settings are used.
        show: Shows the summary, as soon as there is one.
        verbose: Whether log records of level INFO are shown.

    Returns:
        0 when every row came about.

    Raises:
        ConfigError: Something given cannot be used; nothing was created.
        VellumforgeError: What ended the run.
    """
    parameters: dict[str, Any] = {"env_file": env_file, "fresh": fresh}
    # Checked here as well as in the flow: before anything is created and before Prefect is imported.
    if demo:
        settings = demo_settings("http://127.0.0.1/v1", overrides)
    else:
        settings = take_order(config, env_file=env_file, overrides=overrides).config
        parameters |= {"config": config, "overrides": dict(overrides)}
    show_records(verbose=verbose)
    _allow_many_connections()
    home = environment.set_defaults(Path(settings.output.folder) / HOME)
    server = None if environment.configured_api_url() else EmbeddedServer(home)
    with server or nullcontext():
        if server is not None:
            os.environ.update(server.client_settings)
        generate = _import_flow()
        if server is not None:
            server.wait_ready()
        ending = asyncio.run(_run(generate, parameters, overrides if demo else None, show))
    if isinstance(ending.error, PhaseError | UnfinishedError | RunInterrupted):
        again = _again(demo=demo, config=config, env_file=env_file, overrides=overrides, seed=ending.seed)
        ending.error.add_note(f"to go on, paying only for what is missing: {again}")
    if not ending.recorded:
        # A regular exit would wait for Prefect's queue, which nobody takes any more.
        code = say(ending.error) if ending.error else 0
        sys.stdout.flush()
        os._exit(code)
    if ending.error:
        raise ending.error
    return 0


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a run ended, and whether Prefect recorded it."""

    error: VellumforgeError | None
    seed: int | None
    recorded: bool


async def _run(
    generate: Any,
    parameters: dict[str, Any],
    demo: Mapping[str, Any] | None,
    show: Callable[[Summary], None],
) -> _Ending:
    console = Console()
    current.set(console)
    async with AsyncExitStack() as stack:
        if demo is not None:
            behaviour = Behaviour(latency_ms=DEMO_LATENCY_MS)
            server = await stack.enter_async_context(DemoServer(behaviour, port=DEMO_PORT))
            parameters["settings"] = demo_settings(server.base_url, demo)
        error, flow_runs = await _end_of(generate, parameters, console)
    if console.summary is not None:
        show(console.summary)
    recorded = await settle(flow_runs, console.progress.blocks, SETTLE_SECONDS)
    return _Ending(error, console.seed, recorded)


async def _end_of(
    generate: Any, parameters: dict[str, Any], console: Console
) -> tuple[VellumforgeError | None, list[UUID]]:
    """Run the flow to its end; returns what ended it, if not its last line, and the ids of its runs."""
    flow_runs: list[UUID] = []
    try:
        state = await generate(**parameters, return_state=True)
        flow_runs.append(state.state_details.flow_run_id)
        await state.result()
    except VellumforgeError as error:
        return error, flow_runs
    except asyncio.CancelledError:
        # The grace of an interruption has passed.
        try:
            console.stop.check()
        except RunInterrupted as error:
            return error, flow_runs
        raise
    return None, flow_runs


def _again(
    *, demo: bool, config: str, env_file: str | None, overrides: Mapping[str, Any], seed: int | None
) -> str:
    """The command that goes on with the same run, with the same seed."""
    settings = dict(overrides) | ({"generation.seed": seed} if seed else {})
    words = [PROGRAM, "run", *(["--demo"] if demo else ["--config", config])]
    if env_file is not None:
        words += ["--env-file", env_file]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def _import_flow() -> Any:
    """The flow, imported while the server starts, and not before its settings are made."""
    # What is imported stays: looking for garbage in it meanwhile, and ever after, is time lost.
    gc.disable()
    from flows.generate import generate  # noqa: PLC0415

    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    gc.enable()
    return generate


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: a thousand jobs have two thousand connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

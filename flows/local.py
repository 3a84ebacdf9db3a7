"""A run in this process: Prefect's settings, the embedded server where there is no other, their end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import shlex
import sys
import time
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flows import environment
from flows.api import check_api
from flows.console import SIGNALS, Console, current
from flows.demo import DEMO_LATENCY_MS, DEMO_PORT, demo_settings
from flows.embedded import UI_IS_BEHIND, EmbeddedServer, settle
from flows.hub import at_the_end
from flows.opening import check_order
from flows.order import take_order
from flows.overrides import write_override
from flows.terminal import PROGRAM, say, show_records
from tasks.core.errors import LossError, PhaseError, RunInterrupted, UnfinishedError, VellumforgeError
from tasks.core.llm.demo import Behaviour, DemoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flows.hub import AtTheEnd, HubWish
    from flows.order import Order
    from flows.terminal import Shown

log = logging.getLogger("vellumforge.local")

HOME = ".prefect"
"""The folder, inside the output folder, in which the embedded Prefect server keeps its data."""

GC_THRESHOLD = 50_000
"""Objects between two searches for garbage; a thousand jobs in flight hold more than Python's 700."""

END_SECONDS = 10.0
"""How long the end of a run may wait until Prefect has recorded it, all in all."""


class Errand(Protocol):
    """What the command line asks for, and the flow that does it."""

    @property
    def demo(self) -> bool:
        """Whether the demo's model server is wanted."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Settings by dotted key."""

    async def checked(self) -> tuple[Path, AtTheEnd | None]:
        """The output folder, and what follows a complete run, once nothing speaks against the errand."""

    def flow(self) -> Any:
        """The flow; imported when it is asked for."""

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""

    def again(self, session: str, *, further: bool = False) -> str:
        """The command that goes on; `session` is "" when there is none yet.

        Args:
            session: The session's name.
            further: Whether it asks for further samples of answers that cannot be used.
        """


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for.

    Attributes:
        config: Path of the configuration file; None for `config.toml`, and where there is none, for the
            settings that a resumed session began with.
        env_file: Path of the file with API keys, or None for `.env` where there is one.
        overrides: Settings by dotted key that win over file and environment.
        fresh: Whether a new seed is drawn.
        demo: Whether the demo's model server and settings are used; then no file is read.
        resume: Name of the session to resume, or "".
        accept_changes: Whether it is resumed although settings differ.
        hub: Where the finished dataset is uploaded to; None for nowhere.
        only: Which failures of that session are asked again; empty for all that is missing.
        further: Whether further samples are asked for where only answers are missing that cannot be used.
    """

    config: str | None = None
    env_file: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    demo: bool = False
    resume: str = ""
    accept_changes: bool = False
    hub: HubWish | None = None
    only: tuple[str, ...] = ()
    further: bool = False

    async def order(self) -> Order:
        """The wish, read and checked: what the flow does too, before anything is created.

        Raises:
            UsageError: Something given cannot be used.
        """
        settings = demo_settings(f"http://127.0.0.1:{DEMO_PORT}/v1", self.overrides) if self.demo else None
        return await take_order(self.config, settings, **self._common())

    async def checked(self) -> tuple[Path, AtTheEnd | None]:
        """The output folder, and the upload that follows where one is asked for.

        Raises:
            UsageError: Something given cannot be used, or there is no token for the upload.
        """
        order = await self.order()
        await check_order(order)
        upload = None
        if self.hub is not None:
            upload = at_the_end(
                self.hub,
                order.config,
                config_file=self.config,
                env_file=self.env_file,
                overrides=self.overrides,
            )
        return Path(order.config.output.folder), upload

    def flow(self) -> Any:
        """The flow `generate`."""
        from flows.generate import generate  # noqa: PLC0415 - Prefect finds its settings made

        return generate

    def again(self, session: str, *, further: bool = False) -> str:
        """The command that goes on with the same session, or runs the same again when there is none yet."""
        if further and session and not self.demo:
            words = [PROGRAM, "retry", session]
        elif self.demo or not session:
            words = [PROGRAM, "run", *(["--demo"] if self.demo else [])]
            words += ["--resume", session] if session else []
        else:
            words = [PROGRAM, "checkpoint", "resume", session]
        if self.config is not None and not self.demo:
            words += ["--config", self.config]
        if self.env_file is not None:
            words += ["--env-file", self.env_file]
        for key, value in self.overrides.items():
            words += ["--set", write_override(key, value)]
        return shlex.join(words)

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""
        return {"config": self.config or "", **self._common()}

    def _common(self) -> dict[str, Any]:
        return {
            "env_file": self.env_file or "",
            "overrides": {} if self.demo else dict(self.overrides),
            "fresh": self.fresh,
            "resume": self.resume,
            "accept_changes": self.accept_changes,
            "only": list(self.only),
            "further": self.further,
        }


def run_here(wish: Errand, *, show: Callable[[Shown], None], verbose: bool) -> int:
    """Check what is given, run its flow in this process, and show its summary.

    Args:
        wish: What is given.
        show: Shows the summary, as soon as there is one.
        verbose: Whether log records of level INFO are shown.

    Returns:
        0 when every row came about.

    Raises:
        ConfigError: Something given cannot be used; nothing was created.
        VellumforgeError: What ended the run.
    """
    output, upload = asyncio.run(wish.checked())
    show_records(verbose=verbose)
    _allow_many_connections()
    home = environment.set_defaults(output / HOME)
    url = environment.configured_api_url()
    server = None if url else EmbeddedServer(home)
    with server or nullcontext():
        if server is not None:
            os.environ.update(server.client_settings)
        flow = _import_flow(wish)
        if server is not None:
            server.wait_ready()
        elif url:
            asyncio.run(check_api(url))
        error = asyncio.run(_run(flow, wish, show, upload))
    if error:
        raise error
    return 0


class PrefectError(VellumforgeError):
    """Prefect did not begin the run, although its server was there."""


async def _run(
    flow: Any, wish: Errand, show: Callable[[Shown], None], upload: AtTheEnd | None
) -> VellumforgeError | None:
    """Run the flow to its end and show its summary; returns what ended it, if not its last line."""
    console = Console()
    current.set(console)
    async with AsyncExitStack() as stack:
        parameters = wish.parameters()
        if wish.demo:
            behaviour = Behaviour(latency_ms=DEMO_LATENCY_MS)
            server = await stack.enter_async_context(DemoServer(behaviour, port=DEMO_PORT))
            parameters["settings"] = demo_settings(server.base_url, wish.overrides)
        flow_run = asyncio.create_task(flow(**parameters, return_state=True))
        over = asyncio.create_task(console.over.wait())
        await asyncio.wait({flow_run, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
    for number in SIGNALS:
        # The files are closed: from here on nothing needs an orderly end.
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 128 + number)
    if console.summary is not None:
        show(console.summary)
    recorded = await _recorded(flow_run, console, time.monotonic() + END_SECONDS)
    error = _known(console.error)
    if isinstance(error, PhaseError | UnfinishedError | RunInterrupted) or (error and console.session):
        _add_notes(error, wish, console.session)
    if upload is not None:
        error = await asyncio.to_thread(upload, console.session, error)
    if not recorded:
        # Closing the loop and a regular exit would wait for Prefect's queue, which nobody takes any more.
        code = say(error) if error else 0
        sys.stdout.flush()
        os._exit(code)
    return error


def _add_notes(error: VellumforgeError, wish: Errand, session: str) -> None:
    """Say below an error how to resume it."""
    spent = isinstance(error, UnfinishedError) and error.spent and not wish.demo
    if session and (spent or isinstance(error, LossError)):
        error.add_note(f"to see what was answered: {PROGRAM} failures {shlex.quote(session)} --show")
    if spent:
        error.add_note(f"to ask for further answers in their place: {wish.again(session, further=True)}")
    else:
        error.add_note(f"to go on, paying only for what is missing: {wish.again(session)}")


async def _recorded(flow_run: asyncio.Task[Any], console: Console, deadline: float) -> bool:
    """Whether Prefect has recorded, before the deadline, how the flow's run and its task runs ended.

    Raises:
        PrefectError: The run never began.
    """
    _, waiting = await asyncio.wait({flow_run}, timeout=deadline - time.monotonic())
    if waiting:
        log.warning("%s: it does not answer", UI_IS_BEHIND)
        return False
    if flow_run.cancelled():
        return False
    error = flow_run.exception()
    if error is None:
        ids = [flow_run.result().state_details.flow_run_id]
        return await settle(ids, console.progress.blocks, deadline - time.monotonic())
    reason = " ".join(str(error).split()) or type(error).__name__
    if not console.begun:
        raise PrefectError(
            f"Prefect cannot run the flow: {reason}; nothing was paid for. "
            "Set PREFECT_API_URL to a server that runs, or to nothing for one of our own"
        ) from error
    if error is not console.error:
        log.warning("%s: %s", UI_IS_BEHIND, reason)
    return False


def _known(error: BaseException | None) -> VellumforgeError | None:
    """What ended the work, if not its last line; a defect is raised as it is."""
    if error is None or isinstance(error, VellumforgeError):
        return error
    raise error


def _import_flow(wish: Errand) -> Any:
    """The flow, imported while the server starts, and not before its settings are made."""
    # What is imported stays: looking for garbage in it meanwhile, and ever after, is time lost.
    gc.disable()
    flow = wish.flow()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    gc.enable()
    return flow


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: a thousand jobs have two thousand connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems name a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

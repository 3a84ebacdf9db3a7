"""A run in this process: Prefect's settings, the embedded server where there is no other, their end."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import resource
import shlex
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flows.process import settings as environment
from flows.process.console import SIGNALS, Console, current, show_records
from flows.process.demo import DEMO_LATENCY_MS, DEMO_PLAIN_LENGTH, DEMO_PORT, demo_settings
from flows.process.end import UI_IS_BEHIND
from flows.process.server import EmbeddedServer, check_api, is_full, no_room, settle
from flows.process.terminal import PROGRAM, all_said, say
from tasks.core.demo.server import Behaviour, DemoServer
from tasks.core.errors import LossError, PhaseError, RunInterrupted, UnfinishedError, VellumforgeError
from tasks.core.printable import reason_of
from tasks.core.traffic.stop import Deadline, awake, standstills

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from flows.process.terminal import Shown

log = logging.getLogger("vellumforge.local")

HOME = ".prefect"
"""The folder, inside the output folder, in which the embedded Prefect server keeps its data."""

GC_THRESHOLD = 50_000
"""Objects between two searches for garbage; a thousand jobs in flight hold more than Python's 700."""

END_SECONDS = 10.0
"""How long the end of a run may wait until Prefect has recorded it, all in all."""


AtTheEnd = Callable[[str, VellumforgeError | None], VellumforgeError | None]
"""What follows a complete run, given its session and what ended it; gives what went wrong, if anything."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was asked for, read and checked.

    Attributes:
        output: The output folder.
        checked: What the flow is handed; None where it checks for itself.
        upload: What follows a complete run, if anything does.
    """

    output: str
    checked: Any = None
    upload: AtTheEnd | None = None


class Hosted(Protocol):
    """What the command line asks for."""

    @property
    def demo(self) -> bool:
        """Whether the demo's model server is wanted."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings by dotted key that win over the file."""

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""

    def again(self, session: str, *, further: bool = False) -> str:
        """The command that goes on; `session` is "" when there is none yet.

        Args:
            session: The session's name.
            further: Whether it asks for further samples of answers that cannot be used.
        """


def run_here(
    request: Hosted,
    prepare: Coroutine[Any, Any, Prepared],
    flow: Callable[[], Any],
    *,
    show: Callable[[Shown], None],
    verbose: bool,
) -> int:
    """Check what is asked for, run its flow in this process, and show its summary.

    Args:
        request: What is asked for.
        prepare: Checks it.
        flow: Gives the flow that does it; it imports Prefect, and is asked when Prefect's settings are made.
        show: Shows the summary, as soon as there is one.
        verbose: Whether log records of level INFO are shown.

    Returns:
        0 when every row came about.

    Raises:
        ConfigError: Something given cannot be used; nothing was created.
        VellumforgeError: What ended the run.
    """
    prepared = asyncio.run(prepare)
    show_records(verbose=verbose)
    _allow_many_connections()
    home = environment.set_defaults(Path(prepared.output) / HOME)
    url = environment.configured_api_url()
    server = None if url else EmbeddedServer(home)
    with server or nullcontext():
        if server is not None:
            os.environ.update(server.client_settings)
        imported = _imported(flow)
        if server is not None:
            server.wait_ready()
        elif url:
            asyncio.run(check_api(url))
        error = asyncio.run(_run(imported, request, prepared, show, server))
    if error:
        raise error
    return 0


async def run_within(request: Hosted, prepared: Prepared, flow: Callable[[], Any]) -> Console:
    """Run a flow in a process that is somebody else's: its signals, limits and exit are left alone.

    An embedded server, where there is no other, is started by the first run and ends with the process.

    Args:
        request: What is asked for.
        prepared: The same, checked.
        flow: Gives the flow that does it, as for `run_here`.

    Returns:
        What the run left: its summary, and the name of its session.

    Raises:
        VellumforgeError: What ended the run.
    """
    _OWN.forget_dead()
    home = environment.set_defaults(Path(prepared.output) / HOME)
    if url := environment.configured_api_url():
        imported = flow()
        await check_api(url)
    else:
        imported = await _OWN.start(home, flow)
        await _OWN.mark_lost()
    console = Console(prepared.checked, takes_signals=False)
    flow_run = await _carry_out(imported, request, console)
    await _recorded(flow_run, console, prepared)
    flow_run.cancel()
    error = _known(console.error)
    if error and console.session:
        _add_notes(error, request, console.session)
    if prepared.upload is not None:
        error = await asyncio.to_thread(prepared.upload, console.session, error)
    if error:
        raise error
    return console


class _OwnServer:
    """The embedded server of a process that is somebody else's: one for all its runs, while it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: EmbeddedServer | None = None
        self._before: dict[str, str | None] = {}

    async def start(self, home: Path, flow: Callable[[], Any]) -> Any:
        """Start it, where no other run did, and give the flow, which is imported meanwhile.

        Raises:
            EmbeddedServerError: It does not come up; then the environment is as it was.
        """
        server = self._begun(home)
        try:
            imported = flow()
            await asyncio.to_thread(server.wait_ready)
        finally:
            # One that does not come up stops itself.
            self.forget_dead()
        return imported

    def _begun(self, home: Path) -> EmbeddedServer:
        with self._lock:
            if self._server is not None and self._server.runs:
                return self._server
            server = EmbeddedServer(home)
            server.start()
            atexit.register(server.stop)
            self._server = server
            self._before = {name: os.environ.get(name) for name in server.client_settings}
            os.environ.update(server.client_settings)
            environment.read_anew()
            return server

    async def mark_lost(self) -> None:
        """Set to Crashed what processes that are gone left as Running."""
        if self._server is not None:
            await self._server.mark_lost()

    def forget_dead(self) -> None:
        """Where it is dead, restore the environment, but not what was set since."""
        with self._lock:
            if self._server is None or self._server.runs:
                return
            server, self._server = self._server, None
            atexit.unregister(server.stop)
            ours = server.client_settings
            for name, value in self._before.items():
                if os.environ.get(name) != ours[name]:
                    continue
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            environment.read_anew()


_OWN = _OwnServer()


class PrefectError(VellumforgeError):
    """Prefect did not begin the run, although its server was there."""


async def _run(
    flow: Any,
    request: Hosted,
    prepared: Prepared,
    show: Callable[[Shown], None],
    server: EmbeddedServer | None,
) -> VellumforgeError | None:
    """Run the flow to its end and show its summary; returns what ended it, if not its last line."""
    console = Console(prepared.checked)
    # Beside the run: whoever was killed before does not hold up who comes now.
    marking = {asyncio.create_task(server.mark_lost())} if server else set()
    flow_run = await _carry_out(flow, request, console)
    for number in SIGNALS:
        # The files are closed: from here on nothing needs an orderly end.
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 128 + number)
    if console.summary is not None:
        show(console.summary)
    recorded = await _recorded(flow_run, console, prepared)
    if marking:
        await asyncio.wait(marking, timeout=END_SECONDS if recorded else 0.0)
    error = _known(console.error)
    if isinstance(error, PhaseError | UnfinishedError | RunInterrupted) or (error and console.session):
        _add_notes(error, request, console.session)
    if prepared.upload is not None:
        error = await asyncio.to_thread(prepared.upload, console.session, error)
    if not recorded:
        if server is not None:
            server.note_end(_known(console.error))
        # Closing the loop and a regular exit would wait for Prefect's queue, which nobody takes any more.
        os._exit(all_said(say(error) if error else 0))
    return error


async def _carry_out(flow: Any, request: Hosted, console: Console) -> asyncio.Task[Any]:
    """Run the flow until its work is over; in the task that is returned, Prefect may still record that."""
    async with AsyncExitStack() as stack:
        parameters = request.parameters()
        if request.demo:
            behaviour = Behaviour(latency_ms=DEMO_LATENCY_MS, plain_length=DEMO_PLAIN_LENGTH)
            server = await stack.enter_async_context(DemoServer(behaviour, port=DEMO_PORT))
            parameters["settings"] = demo_settings(server.base_url, request.settings)
        # The flow finds it, and nobody else who runs one in this task later.
        token = current.set(console)
        flow_run = asyncio.create_task(flow(**parameters, return_state=True))
        current.reset(token)
        over = asyncio.create_task(console.over.wait())
        try:
            await asyncio.wait({flow_run, over}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Whoever cancels the run waits until its files are in order.
            flow_run.cancel()
            await asyncio.wait({flow_run})
            raise
        finally:
            over.cancel()
    return flow_run


def _add_notes(error: VellumforgeError, request: Hosted, session: str) -> None:
    """Say below an error how to resume it."""
    used_up = isinstance(error, UnfinishedError) and error.tries_used_up and not request.demo
    if session and (used_up or isinstance(error, LossError)):
        error.add_note(f"to see what was answered: {PROGRAM} failures {shlex.quote(session)} --show")
    if used_up:
        error.add_note(f"to ask for further answers in their place: {request.again(session, further=True)}")
    else:
        error.add_note(f"to go on, paying only for what is missing: {request.again(session)}")


async def _recorded(flow_run: asyncio.Task[Any], console: Console, prepared: Prepared) -> bool:
    """Whether Prefect has recorded, in `END_SECONDS`, how the flow's run and its task runs ended.

    Raises:
        PrefectError: The run never began.
        EmbeddedServerError: The same, for want of room on the disk.
    """
    with standstills():
        deadline = awake() + END_SECONDS
        with suppress(TimeoutError):
            async with Deadline(END_SECONDS):
                await asyncio.wait({flow_run})
        if not flow_run.done():
            log.warning("%s: it does not answer", UI_IS_BEHIND)
            return False
        if flow_run.cancelled():
            return False
        error = flow_run.exception()
        if error is None:
            ids = [flow_run.result().state_details.flow_run_id]
            return await settle(ids, console.progress.blocks, deadline - awake())
    reason = reason_of(error)
    home = Path(prepared.output) / HOME
    if not console.begun and home.exists() and is_full(home):
        raise no_room(home) from error
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


def _imported(flow: Callable[[], Any]) -> Any:
    """The flow, imported while the server starts, and not before its settings are made."""
    # What is imported stays: looking for garbage in it meanwhile, and ever after, is time lost.
    gc.disable()
    found = flow()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    gc.enable()
    return found


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: a thousand jobs have two thousand connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems name a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""The page of a run in Prefect's UI: its name, a progress bar a phase, and in the end what it came to.

All of it is written beside the work, now and then, and none of it is waited for longer than a few seconds:
a server that is slow, refuses or is gone costs the page, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.artifacts import ProgressArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.states import Cancelled, Failed

from flows.pages.artifacts import artifacts_of, outcome_of, title
from flows.process.end import state_after
from flows.process.progress import Rate, describe
from tasks.core.models import Phase
from tasks.core.printable import escaped, reason_of, shown_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prefect.artifacts import Artifact
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State

    from flows.pages.artifacts import Outcome
    from flows.setup import OpenRun
    from tasks.core.config.settings import Config
    from tasks.core.errors import VellumforgeError
    from tasks.core.progress import Progress


log = logging.getLogger("vellumforge.page")

UPDATE_SECONDS = 3.0
CLOSE_SECONDS = 4.0
"""How long the end of a run may wait for its page. A worker kills 30 s after a cancel."""

PHASES = (Phase.SUBTOPICS, Phase.PROMPTS, Phase.PAIRS)

_GIVEN_BY_PREFECT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+", re.IGNORECASE)


class Page:
    """The page of one flow run.

    Args:
        flow_run: The run's id, "" where there is none.
        name: The name that it has.
    """

    def __init__(self, flow_run: str, name: str) -> None:
        self._flow_run = UUID(flow_run) if flow_run else None
        self._name = name
        self._bars: dict[Phase, UUID] = {}
        self._full: set[Phase] = set()
        self._named = False
        self._over = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    @asynccontextmanager
    async def follows(self, work: OpenRun) -> AsyncIterator[None]:
        """Show the run's name and progress from here on; after the block, note what the run came to."""
        if self._flow_run is None:
            yield
            return
        began = time.time()
        self._name = run_name(self._name, work.run.config, work.session.name)
        self._writing = asyncio.create_task(self._write(work.run.progress))
        try:
            yield
        finally:
            self._outcome = await outcome_of(work, began)

    async def close(self, error: BaseException | None) -> None:
        """Write what the run came to, or give it up; to be called when everything else is done.

        Args:
            error: What ended the run, if not its last line.
        """
        if self._writing is None:
            return
        self._error = error
        self._over.set()
        try:
            await asyncio.wait({self._writing}, timeout=CLOSE_SECONDS)
        finally:
            self._writing.cancel()

    async def _write(self, progress: Progress) -> None:
        """Keep the page up to date until the run is over, then finish it."""
        rate = Rate()
        while True:
            try:
                async with get_client() as client:
                    while not self._over.is_set():
                        await self._show(client, progress, rate)
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._over.wait(), UPDATE_SECONDS)
                    await self._show(client, progress, rate)
                    for artifact in artifacts_of(self._outcome, self._error) if self._outcome else ():
                        await self._create(client, artifact)
                    return
            except Exception as failure:  # noqa: BLE001 - whatever is wrong with the page, the work goes on
                reason = reason_of(failure)
                log.info("Prefect's page of this run is behind: %s", reason)
            await asyncio.sleep(UPDATE_SECONDS)

    async def _show(self, client: PrefectClient, progress: Progress, rate: Rate) -> None:
        """Name the run, once, and bring the bars to where their phases are."""
        if not self._named and self._flow_run is not None:
            await client.update_flow_run(self._flow_run, name=self._name)
            self._named = True
        for phase in PHASES:
            if phase in progress.seconds and phase not in self._full:
                text = f"{phase}: done in {progress.seconds[phase]:,.1f} s"
                await self._show_bar(client, phase, 100.0, text)
                self._full.add(phase)
        if progress.phase in PHASES:
            text = describe(progress, rate.update(progress, time.monotonic()))
            share = 100 * progress.done / progress.total if progress.total else 0.0
            await self._show_bar(client, progress.phase, min(share, 100.0), text)

    async def _show_bar(self, client: PrefectClient, phase: Phase, percent: float, text: str) -> None:
        known = self._bars.get(phase)
        text = escaped(text)
        if known is not None:
            await client.update_artifact(known, ArtifactUpdate(data=percent, description=text))
            return
        bar = ProgressArtifact(key=str(phase), progress=percent, description=text)
        self._bars[phase] = await self._create(client, bar)

    async def _create(self, client: PrefectClient, artifact: Artifact) -> UUID:
        # Else it would be found out from a context that the end of the run may have closed.
        artifact.flow_run_id = self._flow_run
        return (await artifact.acreate(client)).id


def run_name(given: str, config: Config, session: str) -> str:
    """The name of a run: what it generates and where, unless somebody gave it a name of its own.

    Args:
        given: The name that it has.
        config: Its configuration.
        session: Its session's name.
    """
    ours = f"{title(config)} · {session}"
    return ours if not given or given.endswith(session) or _GIVEN_BY_PREFECT.fullmatch(given) else given


def failed(error: VellumforgeError) -> State[Any]:
    """The state of a run that this ended, for its flow to return: Cancelled if it was told to stop.

    An error that a flow raises is logged with a traceback, which says nothing to whom it is shown, and
    written into the result storage, as a pickle by default.
    Whoever awaits the flow is raised it all the same.
    """
    made = Cancelled if state_after(error) == "Cancelled" else Failed
    return made(message="\n".join(map(shown_line, error.lines)), data=error)

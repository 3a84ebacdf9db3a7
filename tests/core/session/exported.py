"""Sessions that a real run over a scripted chat server made, and their archives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.forecast.survey import survey
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.run import open_run
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.models import Phase, Purpose
from tasks.core.portable.archive import export_session
from tasks.core.progress import Progress
from tasks.core.secrets import Keys
from tasks.core.session.record import record_session
from tasks.core.session.session import open_session
from tasks.core.traffic.stop import Stop
from tests.core.running import ChatServer, configured

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.session.record import SessionRecord
    from tests.core.running import Chat


@dataclass(frozen=True, slots=True)
class Made:
    """A session as a run left it.

    Attributes:
        config: What it was made with.
        folder: Its folder.
        record: Its record.
        calls: How many calls were paid for.
    """

    config: Config
    folder: Path
    record: SessionRecord
    calls: int


def ledger_at(output: Path) -> str:
    """The URL of an output folder's ledger."""
    return f"sqlite:///{output}/ledger.db"


async def writing(chat: Chat) -> str | list[str]:
    """Models with which nothing is wrong; their long answers are kept compressed."""
    if chat.purpose is Purpose.SUBTOPICS:
        return ["Tides", "Storms", "Harbours"][: int(chat.text.split()[0])]
    if chat.purpose is Purpose.PROMPTS:
        return [f"Tell of {chat.subject}, {word}." for word in ("by day", "by night")]
    if chat.purpose is Purpose.JUDGE:
        return json.dumps({"style": 4, "depth": 3})
    return f"{chat.purpose} of {chat.subject}: the lamp burnt all night, and the ships came home. " * 40


async def make_session(output: Path, *, half: bool = False) -> Made:
    """Run a small dpo pipeline into a session under `output`; `half` ends it after the first job."""
    async with ChatServer(writing) as server:
        config = configured(
            server.base_url, output__folder=str(output), generation__enable_checkpointing=True
        )
        folder, record = await run_session(config, slice(1) if half else slice(None))
    return Made(config, folder, record, len(server.asked))


async def run_session(config: Config, part: slice) -> tuple[Path, SessionRecord]:
    """Run the pipeline into a new session, of whose jobs only a part is done."""
    progress = Progress()
    async with await Ledger.open(ledger_url(config)) as ledger:
        with open_session(config, progress, text="# ours\n", overridden={}, ledger=ledger.id) as session:
            async with open_run(
                config, Keys({}, {}), session=session.record.id, ledger=ledger, stop=Stop(), progress=progress
            ) as run:
                state = session.checkpoint.state
                state.subtopics = await find_subtopics(run)
                subtopics = [Subtopic(place, name) for place, name in enumerate(state.subtopics)]
                found = (await complete_prompts(run, await write_prompts(run, subtopics))).found
                state.jobs = jobs_of(run, found)
                await session.enter(Phase.PAIRS)
                outcome = await make_pairs(run, state.jobs[part], session.keep)
            complete = part == slice(None) and not outcome.failures
            await session.finish(complete=complete)
            await record_session(ledger, session.name, session.record)
    return session.folder, session.record


async def export(made: Made, target: Path) -> int:
    """Export a session as the command does."""
    async with await Ledger.open(ledger_at(made.folder.parent)) as ledger:
        walked = await survey(made.config, ledger)
        return await export_session(
            target,
            made.folder,
            made.record,
            ledger,
            keys=sorted(walked.keys),
            questions=sorted(walked.questions),
            jobs=None,
        )

"""A session's files cut at every 64th byte: a resume loses nothing, repeats nothing and pays for the rest."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import SessionError
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.run import open_run
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.models import Phase, Purpose
from tasks.core.progress import Progress
from tasks.core.secrets import Keys
from tasks.core.session.folder import find_session
from tasks.core.session.record import record_session, restore_record
from tasks.core.session.resuming import check_resumption, find_resumption
from tasks.core.session.session import open_session
from tasks.core.traffic.stop import Stop
from tests.core.running import ChatServer, configured
from tests.core.session.exported import run_session, writing

if TYPE_CHECKING:
    from tasks.core.config.settings import Config
    from tests.core.running import Chat

STEP = 64
DATASETS = ("dataset.jsonl", "dataset_reasoning.jsonl")


@dataclass(frozen=True, slots=True)
class Case:
    """A session that is cut: its finished part, and whether it is complete."""

    part: slice
    complete: bool


CASES = {"interrupted": Case(slice(1), complete=False), "complete": Case(slice(None), complete=True)}


async def brief(chat: Chat) -> str | list[str]:
    """Models whose answers are short, so that the cuts are few."""
    if chat.purpose in {Purpose.CHOSEN, Purpose.REJECTED}:
        return f"{chat.purpose} of {chat.subject}: the lamp burnt all night."
    return await writing(chat)


@pytest.mark.parametrize("name", [*DATASETS, "checkpoint.json", "session.json"])
@pytest.mark.parametrize("state", CASES)
async def test_a_file_that_is_cut_anywhere_is_made_whole(tmp_path: Path, state: str, name: str) -> None:
    case = CASES[state]
    async with ChatServer(brief) as server:

        def config_for(output: Path) -> Config:
            return configured(
                server.base_url,
                output__folder=str(output),
                generation__enable_checkpointing=True,
                generation__enable_reasoning_capture=True,
            )

        whole, _ = await run_session(config_for(tmp_path / "whole"), slice(None))
        expected = [(whole / dataset).read_bytes() for dataset in DATASETS]
        calls = len(server.asked)
        folder, _ = await run_session(config_for(tmp_path / "untouched"), case.part)
        missing = 2 * calls - len(server.asked)
        assert (missing == 0) is case.complete
        content = (folder / name).read_bytes()
        assert len(content) > STEP
        for size in range(0, len(content), STEP):
            output = tmp_path / "output"
            shutil.copytree(tmp_path / "untouched", output)
            (output / folder.name / name).write_bytes(content[:size])
            before = len(server.asked)
            await resume(config_for(output), folder.name, deliberately=case.complete)
            assert len(server.asked) - before == missing, size
            made = [(output / folder.name / dataset).read_bytes() for dataset in DATASETS]
            assert made == expected, size
            shutil.rmtree(output)


async def test_pipes_in_the_place_of_its_files_stop_no_session(tmp_path: Path) -> None:
    async with ChatServer(brief) as server:
        config = configured(
            server.base_url,
            output__folder=str(tmp_path / "output"),
            generation__enable_checkpointing=True,
        )
        folder, _ = await run_session(config, slice(None))
        expected, calls = (folder / "dataset.jsonl").read_bytes(), len(server.asked)
        for name in ("checkpoint.json", "session.json", "config.toml.bak", "session.log"):
            (folder / name).unlink(missing_ok=True)
            os.mkfifo(folder / name)
        await resume(config, folder.name, deliberately=True)
        assert ((folder / "dataset.jsonl").read_bytes(), len(server.asked)) == (expected, calls)
        (folder / "dataset.jsonl").unlink()
        os.mkfifo(folder / "dataset.jsonl")
        with pytest.raises(SessionError, match="it is a pipe or a device, and no file"):
            await resume(config, folder.name, deliberately=True)


async def resume(config: Config, name: str, *, deliberately: bool) -> None:
    """Resume a session as the flow does, without Prefect."""
    progress = Progress()
    async with await Ledger.open(ledger_url(config)) as ledger:
        folder = find_session(Path(config.output.folder), name)
        await restore_record(folder, ledger)
        resumption = find_resumption(folder)
        await check_resumption(resumption, config, ledger, accept_changes=deliberately)
        with open_session(
            config, progress, text="", overridden={}, ledger=ledger.id, resumption=resumption
        ) as session:
            assert not resumption.foreign
            async with open_run(
                config, Keys({}, {}), session=session.record.id, ledger=ledger, stop=Stop(), progress=progress
            ) as run:
                state = session.checkpoint.state
                state.subtopics = await find_subtopics(run)
                subtopics = [Subtopic(place, subtopic) for place, subtopic in enumerate(state.subtopics)]
                state.jobs = jobs_of(
                    run, (await complete_prompts(run, await write_prompts(run, subtopics))).found
                )
                await session.enter(Phase.PAIRS)
                await make_pairs(run, state.jobs, session.keep)
            await session.finish(complete=True)
            await record_session(ledger, session.name, session.record)

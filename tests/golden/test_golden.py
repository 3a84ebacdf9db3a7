"""What an older version paid for is read for nothing, and comes out the same to the byte.

Nobody listens at the models' address. Sessions that were not complete are resumed in
`tests/flows/test_golden.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tasks.core.exchange.request import ChatRequest
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.models import Purpose
from tasks.core.progress import Progress
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.record import settings_of
from tasks.core.session.resuming import find_resumption, survey_session
from tasks.core.session.session import open_session
from tests.golden.cases import CASES, WRITTEN, expected, requests_of, session_of, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.session.resuming import Resumption

COMPLETE = [name for name, case in CASES.items() if case.complete]


@dataclass(frozen=True)
class Kept:
    """An unpacked case: its folder, its session and the configuration with the ledger where it now lies."""

    case: Path
    folder: Path
    resumption: Resumption
    config: Config


@pytest.fixture
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """The case that the test names."""
    case = unpack(request.param, tmp_path)
    folder = session_of(case)
    resumption = find_resumption(folder)
    settings = settings_of(resumption.record)
    assert settings is not None, "this version does not take the settings that the session began with"
    output = settings.output.model_copy(update={"folder": str(case / "output")})
    return Kept(case, folder, resumption, settings.model_copy(update={"output": output}))


cases = pytest.mark.parametrize("kept", COMPLETE, indirect=True)
every = pytest.mark.parametrize("kept", CASES, indirect=True)


@every
def test_the_keys_are_the_same(kept: Kept) -> None:
    for row in requests_of(kept.case):
        key = row.pop("key")
        messages = tuple((role, content) for role, content in row.pop("messages"))
        request = ChatRequest(Purpose(row.pop("purpose")), messages=messages, **row)
        assert request.key.hex() == key


@every
async def test_the_settings_still_ask_the_same_questions(kept: Kept) -> None:
    async with await Ledger.open(ledger_url(kept.config)) as ledger:
        found = await survey_session(kept.resumption.record, kept.config, ledger)
    rows = requests_of(kept.case)
    assert {key.hex() for key in found.keys} == {row["key"] for row in rows}
    assert +found.reused == Counter(row["purpose"] for row in rows)


@cases
async def test_a_complete_session_is_written_anew_for_nothing(kept: Kept) -> None:
    wanted = expected(kept.case)
    for name in WRITTEN:
        (kept.folder / name).unlink(missing_ok=True)
    async with await Ledger.open(ledger_url(kept.config)) as ledger:
        with open_session(
            kept.config, Progress(), text="", overridden={}, ledger=ledger.id, resumption=kept.resumption
        ) as session:
            found = await survey_session(kept.resumption.record, kept.config, ledger, session.keep)
            await session.finish(complete=True)
    assert +found.to_pay == {}
    assert expected(kept.case) == wanted
    checkpoint = read_checkpoint(kept.folder)
    assert checkpoint is not None
    assert [job.id for job in found.jobs] == list(range(len(found.jobs)))
    assert len(found.jobs) == found.done == len(checkpoint.completed)

"""What looks after a folder beside a session at work takes nothing from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.crash.care import KILLS, ROUNDS_A_RUN, rehearse

if TYPE_CHECKING:
    from pathlib import Path


def test_care_beside_a_session_that_is_killed_and_resumed_costs_nothing(
    tmp_path: Path, prefect_url: str
) -> None:
    report = rehearse(rounds=ROUNDS_A_RUN, seed=1, folder=tmp_path, PREFECT_API_URL=prefect_url)
    assert not report.broken(), "\n".join([*report.lines(), *report.broken()])
    assert (report.rounds, report.kills) == (ROUNDS_A_RUN, KILLS)
    assert report.removed, "prunes that remove nothing show nothing"
    assert report.cut, "commands that are never killed show nothing"

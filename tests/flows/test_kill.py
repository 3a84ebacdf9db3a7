"""SIGKILL at any moment loses at most the calls in flight, and the dataset is as if nothing had happened."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.crash.kill import rehearse
from tests.flows.command import config, model, outlives

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import User


def test_killed_in_every_phase(tmp_path: Path, prefect_url: str) -> None:
    report = rehearse("dpo", kills=10, seed=1, folder=tmp_path, PREFECT_API_URL=prefect_url)
    assert not report.broken(), report.lines()
    assert report.kills.total() == 10
    assert {"subtopics", "prompts", "prose"} <= set(report.kills)
    assert sum(report.in_flight), "kills that lose nothing show nothing"


def test_killed_while_answers_are_judged(tmp_path: Path, prefect_url: str) -> None:
    report = rehearse("mo-dpo", kills=3, seed=7, folder=tmp_path, PREFECT_API_URL=prefect_url)
    assert not report.broken(), report.lines()
    assert report.kills.total() == 3


def test_a_killed_group_leaves_no_embedded_server(lone_user: User) -> None:
    with model(latency_ms=60_000.0) as server:
        lone_user.write("config.toml", config(server.url))
        process = lone_user.start()
        assert server.until_requests(1, process)
        servers = process.children()
        assert servers
        process.kill(group=True)
        assert process.end().code == -signal.SIGKILL
        assert not outlives(servers, 5)

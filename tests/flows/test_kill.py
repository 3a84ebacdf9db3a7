"""A run killed at any moment loses at most the calls in flight; resumed, it is as if nothing had happened."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.crash.blows import Kind
from tests.crash.kill import rehearse
from tests.flows.command import config, flow_run_states, model, outlives, until

if TYPE_CHECKING:
    from tests.crash.report import Report
    from tests.flows.command import User

KILLS = {"dpo": 7, "mo-dpo": 4}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> dict[str, Report]:
    """Rehearsals of two modes; mostly they wait, so they do it at the same time."""
    with ThreadPoolExecutor() as pool:
        rehearsals = {
            mode: pool.submit(
                rehearse,
                mode,
                kills=number,
                seed=2,
                folder=tmp_path_factory.mktemp(mode),
                PREFECT_API_URL=prefect_url,
            )
            for mode, number in KILLS.items()
        }
        return {mode: rehearsal.result() for mode, rehearsal in rehearsals.items()}


@pytest.mark.parametrize(("mode", "kills"), KILLS.items())
def test_kills_lose_and_repeat_nothing(reports: dict[str, Report], mode: str, kills: int) -> None:
    report = reports[mode]
    assert not report.broken(), "\n".join([*report.history, *report.lines(), *report.broken()])
    assert report.kills.total() == kills
    assert report.in_flight, "kills that lose nothing show nothing"


def test_kills_of_every_kind_hit_every_phase(reports: dict[str, Report]) -> None:
    kills = [kill for report in reports.values() for kill in report.kills]
    assert {kind for kind, _ in kills} == set(Kind)
    assert {"start", "subtopics", "prompts", "pairs"} <= {phase for _, phase in kills}


def test_a_killed_group_leaves_no_embedded_server_and_no_run_that_seems_to_go_on(lone_user: User) -> None:
    """The next run in the folder sets the killed one to Crashed, and leaves one alone that goes on."""
    home = lone_user.folder / "output" / ".prefect"
    with model(latency_ms=60_000.0) as server:
        lone_user.write("config.toml", config(server.url, more="[execution]\ngrace_seconds = 0.1"))
        killed = lone_user.start()
        assert server.until_requests(1, killed)
        servers = killed.children()
        assert servers
        others = lone_user.start("--fresh")
        assert server.until_requests(2, others)
        killed.kill(group=True)
        assert killed.end().code == -signal.SIGKILL
        assert not outlives(servers, 5)
        assert flow_run_states(home) == ["RUNNING", "RUNNING"]

        following = lone_user.start("--fresh")
        assert server.until_requests(3, following), following.end()
        until(
            lambda: flow_run_states(home) == ["CRASHED", "RUNNING", "RUNNING"], "what was killed is shown so"
        )
        for process in (others, following):
            process.send(signal.SIGTERM)
            ended = process.end()
            assert ended.code == 128 + signal.SIGTERM, ended.err
        assert flow_run_states(home) == ["CRASHED", "CANCELLED", "CANCELLED"]
        assert not [*(home / "owners").iterdir()]

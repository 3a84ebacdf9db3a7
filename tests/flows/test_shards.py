"""Pairs on several workers: the dataset is that of one machine, whoever is killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.flows.cluster import cluster, kill
from tests.flows.command import CHECKPOINT, asked_twice, config, free_port, model, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flows.cluster import Cluster
    from tests.flows.command import Model, Process, User

SUBTOPICS, PROMPTS = 6, 10
PAIRS = SUBTOPICS * PROMPTS
CONCURRENCY = 3
IN_FLIGHT = 2 * CONCURRENCY
"""Calls of one process at once."""
SHARDS = 2


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def server() -> Iterator[Model]:
    with model() as found:
        yield found


@pytest.fixture
def parent(machines: Cluster, request: pytest.FixtureRequest) -> Iterator[User]:
    """The machine that the run is started on; at the end no worker is left."""
    user = machines.machine(request.node.name[:40])
    yield user
    machines.close()
    for pid in user.processes():
        kill(pid)


def started(user: User, machines: Cluster, server: Model, *, latency_ms: float, more: str = "") -> Process:
    """A run over shards with a new ledger."""
    server.start(latency_ms=latency_ms)
    name = user.folder.parent.name
    ledger = machines.database.make_database(name)
    user.write(
        "config.toml",
        config(
            server.url,
            subtopics=SUBTOPICS,
            prompts=PROMPTS,
            concurrency=CONCURRENCY,
            more=f'[output]\nledger = "{ledger}"\n[execution]\nshards = {SHARDS}\n{more}',
        ),
    )
    return user.start("--json")


@pytest.fixture(scope="module")
def alone(machines: Cluster, server: Model) -> bytes:
    """The dataset of one machine, with the same answers."""
    user = machines.machine("alone")
    user.write(
        "config.toml",
        config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=4 * CONCURRENCY),
    )
    server.start()
    assert user.run().code == 0
    return dataset(user)


def dataset(user: User) -> bytes:
    (session,) = user.sessions()
    return (session / "dataset.jsonl").read_bytes()


def until_pairs(server: Model, process: Process, number: int) -> None:
    """Wait until so many answers of pairs were asked for."""

    def there() -> bool:
        assert process.running, process.end().err
        return int(server.stats()["by_purpose"].get("prose", 0)) >= number

    until(there, "requests for pairs")


def test_a_worker_is_killed_and_another_comes_late(
    machines: Cluster, server: Model, parent: User, alone: bytes
) -> None:
    process = started(parent, machines, server, latency_ms=400)
    machines.start_worker("first")
    until_pairs(server, process, PAIRS // 3)
    machines.kill_worker("first")
    machines.start_worker("second")
    ended = process.end()
    assert (ended.code, ended.summary["rows"], ended.summary["failures"]) == (0, PAIRS, 0), ended.err
    assert "it is given to another worker" in ended.err
    again = asked_twice(server.requests())
    assert len(again) <= SHARDS * IN_FLIGHT
    assert ended.summary["paid"] == len(server.requests()) - len(again)
    assert dataset(parent) == alone


def test_a_parent_that_is_interrupted_calls_its_shards_off_and_one_that_is_killed_finds_them(
    machines: Cluster, server: Model, parent: User, alone: bytes
) -> None:
    process = started(parent, machines, server, latency_ms=400)
    machines.start_worker("steady")
    until_pairs(server, process, PAIRS // 4)
    process.send(signal.SIGTERM)
    assert process.end().code == 128 + signal.SIGTERM
    until(lambda: server.stats()["in_flight"] == 0, "the shards' end")
    paid = server.requests()
    assert not asked_twice(paid)

    server.start(latency_ms=1000)
    (session,) = parent.sessions()
    process = parent.start("resume", session.name, program=CHECKPOINT)
    until_pairs(server, process, PAIRS // 4)
    rival = parent.start("resume", session.name, program=CHECKPOINT)
    refused = rival.end()
    assert refused.code == 1, refused.err
    assert "Traceback" not in refused.err

    process.kill(group=True)
    process.end()
    ended = parent.start("resume", session.name, "--json", program=CHECKPOINT).end()
    assert ended.code == 0, ended.err
    assert ended.summary["rows"] == PAIRS
    assert not asked_twice(paid + server.requests()), "the shards went on"
    assert dataset(parent) == alone


def test_without_a_deployment_nothing_is_paid_for(machines: Cluster, server: Model, parent: User) -> None:
    process = started(parent, machines, server, latency_ms=0, more='work_pool = "nobodys"\n')
    ended = process.end()
    assert ended.code == 2
    assert "needs a deployment of generate-shard on the work pool nobodys" in " ".join(ended.err.split())
    assert "prefect deploy --all" in ended.err
    assert server.stats()["requests"] == 0


def test_shards_need_a_ledger_that_all_can_reach(parent: User) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    parent.write("config.toml", config(url, more="[execution]\nshards = 2\n"))
    ended = parent.run()
    assert ended.code == 2
    assert "output.ledger: is ''; execution.shards needs one for all machines" in ended.err

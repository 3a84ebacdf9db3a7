"""Pairs on several workers: `python -m tests.benchmarks.shards [CASE …]`.

A PostgreSQL ledger, a Prefect server, workers in homes of their own, and the demo model server with a
latency of one second, all on this machine. Cases, each with a ledger of its own:

- `alone`: the run without shards, whose dataset is the measure of all others.
- `one`, `three`: as many shards, as many workers, undisturbed.
- `killed`: three shards and workers; one worker's machine is killed in mid-run, and one worker comes late.
- `limited`: the same, with a limit of requests a minute for each model; the most that came in any minute.

Nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.pipeline import machine
from tests.flows.cluster import cluster
from tests.flows.command import asked_twice, config, model, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.flows.cluster import Cluster
    from tests.flows.command import Model, Process

PAIRS = 6000
CONCURRENCY = 64
LATENCY_MS = 1000
CALLS_OF_A_JOB = 2
LIMIT = 3000
ONE_SHARD = ("--limit", "1")
"""A worker takes as many runs as it may; the machines here have room for one."""
PATIENCE = 1200.0


class Case:
    """One run in the cluster."""

    def __init__(self, name: str, machines: Cluster, server: Model, *, pairs: int, shards: int) -> None:
        self.name = name
        self._machines = machines
        self._server = server
        self._pairs = pairs
        self._shards = shards
        self.user = machines.machine(name)

    def start(self, *, limit: int = 0) -> Process:
        """Start the run."""
        self._server.start(latency_ms=LATENCY_MS)
        ledger = self._machines.database.make_database(f"ledger_{self.name}")
        limits = f'\n[provider_rate_limits]\n"{self._server.url}" = {limit}\n' if limit else ""
        more = f'[output]\nledger = "{ledger}"\n[execution]\nshards = {self._shards}\n{limits}'
        text = config(
            self._server.url,
            subtopics=self._pairs // 20,
            prompts=20,
            concurrency=CONCURRENCY,
            more=more,
        )
        self.user.write("config.toml", text)
        return self.user.start("--json")

    def asked_for_pairs(self) -> int:
        """Requests for chosen and rejected answers so far."""
        return int(self._server.stats()["by_purpose"].get("prose", 0))

    def report(self, process: Process, measure: bytes | None) -> bytes:
        """Wait for the end and print what there is to be said; the dataset."""
        ended = process.end(PATIENCE)
        (session,) = self.user.sessions()
        dataset = (session / "dataset.jsonl").read_bytes()
        requests = self._server.requests()
        summary: dict[str, Any] = ended.summary if ended.out else {}
        same = "" if measure is None else f", {'identical' if dataset == measure else 'ANOTHER dataset'}"
        print(
            f"{self.name}: exit {ended.code}, {summary.get('rows')} rows{same}; pairs phase "
            f"{summary['phase_seconds']['pairs']:.1f} s, pairs at the model {span(requests):.1f} s; "
            f"{len(requests)} requests, {len(asked_twice(requests))} paid twice",
            flush=True,
        )
        if ended.code:
            print(ended.err)
        return dataset

    def busiest(self) -> int:
        """The most requests that arrived within any minute."""
        window: deque[float] = deque()
        most = 0
        for request in self._server.requests():
            window.append(request["arrived"])
            while window[0] <= window[-1] - 60:
                window.popleft()
            most = max(most, len(window))
        return most


def span(requests: Sequence[dict[str, Any]]) -> float:
    """Seconds from the first request for a pair to the last answer."""
    prose = [request for request in requests if request["kind"] == "prose"]
    return float(max(request["ended"] for request in prose) - prose[0]["arrived"]) if prose else 0.0


def main() -> None:
    """Run the cases that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = ("alone", "one", "three", "killed", "limited")
    parser.add_argument("cases", nargs="*", choices=names, default=names, metavar="CASE")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    arguments = parser.parse_args()
    print(machine())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(model())
        machines = stack.enter_context(cluster(folder))
        measure = None
        for name in arguments.cases:
            shards = {"alone": 0, "one": 1}.get(name, 3)
            case = Case(name, machines, server, pairs=arguments.pairs, shards=shards)
            late = name in {"killed", "limited"}
            for number in range(shards - late):
                machines.start_worker(f"{name}-{number}", *ONE_SHARD)
            process = case.start(limit=LIMIT if name == "limited" else 0)
            if late:
                disturb(case, machines, process, arguments.pairs)
            dataset = case.report(process, measure)
            measure = measure or dataset
            if name == "limited":
                print(f"limited: at most {case.busiest()} requests in any minute, of {LIMIT} allowed")
            machines.close()


def disturb(case: Case, machines: Cluster, process: Process, pairs: int) -> None:
    """Kill one worker's machine when a third is done; then let the late one come."""
    third = pairs * CALLS_OF_A_JOB // 3

    def far_enough() -> bool:
        return not process.running or case.asked_for_pairs() > third

    until(far_enough, "a third of the pairs", PATIENCE)
    machines.kill_worker(f"{case.name}-0")
    in_flight = case.asked_for_pairs()
    machines.start_worker(f"{case.name}-late", *ONE_SHARD)
    print(
        f"{case.name}: a worker killed after {in_flight} requests; "
        f"at most {CONCURRENCY * CALLS_OF_A_JOB} of them were its own in flight",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""What Prefect's server makes of a large run: `python -m tests.benchmarks.server [--pairs 10000]`.

The pipeline against the demo model server without latency, once on the embedded server and once on a
separate one with the settings of `deployments/server.env`. When all is over the server's own database is
read: whether it has every task run, by name and as Completed, that the blocks of the run are. Beside it:
the CPU time of server and client, and how much the database grew. A run of one pair comes first, so that
making the database is in no figure. CPU is sampled; the last 0.2 s may be missing. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dotenv import dotenv_values

from flows.process.run import HOME
from tasks.core.generation.run import cut, pair_block_size, prompt_block_size
from tests.benchmarks.pipeline import CONFIG, PROMPTS_PER_SUBTOPIC, machine
from tests.flows.command import ROOT, User, model, prefect_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONCURRENCY = 256
PATIENCE = 1200.0
SAMPLE_SECONDS = 0.2
SHOWN = 20
COMPLETED = ("COMPLETED", "Completed")
TICKS = os.sysconf("SC_CLK_TCK")
MB = 1e6

TaskRun = tuple[str, str, str]
"""Its name, and the type and the name of its state."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was used so far.

    Attributes:
        time: When, in seconds since the epoch.
        server: CPU seconds of the server and its children; `client`: of the client alone.
        database: Bytes of `prefect.db` and its write-ahead log.
    """

    time: float
    server: float
    client: float
    database: int


class Watch:
    """Samples server, client and database while they are there; a process that ended keeps its last value."""

    def __init__(self, client: int, servers: Callable[[], Sequence[int]], database: Path) -> None:
        self._client = client
        self._servers = servers
        self._database = database
        self._cpu: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            servers = [pid for server in self._servers() for pid in [server, *descendants(server)]]
            for pid in {self._client, *servers}:
                with suppress(OSError):  # it ended
                    self._cpu[pid] = cpu_seconds(pid)
            client = self._cpu.get(self._client, 0.0)
            server = sum(self._cpu.values()) - client
            self.samples.append(Sample(time.time(), server, client, size(self._database)[1]))
            if self._over.wait(SAMPLE_SECONDS):
                return

    def since(self, moment: float) -> tuple[float, float]:
        """CPU seconds of server and client from a moment to the end."""
        first = next(sample for sample in reversed(self.samples) if sample.time <= moment)
        last = self.samples[-1]
        return last.server - first.server, last.client - first.client


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, in user and in system mode."""
    # The name before the last parenthesis may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def size(database: Path) -> tuple[int, int]:
    """Bytes of a database, and of it with its write-ahead log."""
    alone = log = 0
    with suppress(FileNotFoundError):
        alone = database.stat().st_size
        log = database.with_name(f"{database.name}-wal").stat().st_size
    return alone, alone + log


def expected_names(pairs: int) -> list[str]:
    """The names of the task runs that a run of so many pairs has."""
    subtopics, prompts = shape(pairs)
    jobs = subtopics * prompts
    names = ["subtopics", "duplicates and shortages"]
    parts = [("subtopic", part) for part in cut(range(subtopics), prompt_block_size(subtopics))]
    parts += [("job", part) for part in cut(range(jobs), pair_block_size(jobs))]
    for word, part in parts:
        first, last = part[0], part[-1]
        names.append(f"{word} {first}" if first == last else f"{word}s {first}-{last}")
    return names


def shape(pairs: int) -> tuple[int, int]:
    """Subtopics, and prompts of each."""
    prompts = min(PROMPTS_PER_SUBTOPIC, pairs)
    return -(-pairs // prompts), prompts


def recorded(database: Path) -> tuple[str, float, list[TaskRun]]:
    """The state of the latest flow run, when it began in seconds since the epoch, and its task runs."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        flow_run, state, began = connection.execute(
            "SELECT id, state_name, start_time FROM flow_run ORDER BY start_time DESC LIMIT 1"
        ).fetchone()
        task_runs = connection.execute(
            "SELECT name, state_type, state_name FROM task_run WHERE flow_run_id = ?", (flow_run,)
        ).fetchall()
    return state, datetime.fromisoformat(began).replace(tzinfo=UTC).timestamp(), task_runs


def compare(pairs: int, found: Sequence[TaskRun]) -> list[str]:
    """What there is to be said of the two lists of task runs, as lines."""
    expected = Counter((name, *COMPLETED) for name in expected_names(pairs))
    server = Counter(found)
    agree = (expected & server).total()
    lines = [f"task runs: {expected.total()} of ours, {server.total()} of the server's, {agree} agree"]
    for whose, rest in (("only ours", expected - server), ("only the server's", server - expected)):
        names = [f"{name} [{state}]" for name, _, state in sorted(rest.elements(), key=str)]
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"  {whose}: {'; '.join(names[:SHOWN])}{more}")
    return lines


def configure(user: User, pairs: int, url: str) -> str:
    """Write the configuration of a run of so many pairs, and return the file's name."""
    subtopics, prompts = shape(pairs)
    text = CONFIG.format(
        subtopics=subtopics,
        prompts=prompts,
        concurrency=CONCURRENCY,
        mode="dpo",
        checkpoints="true",
        judge="false",
        folder="output",
        url=url,
    )
    return user.write(f"pairs-{pairs}.toml", text).name


def measure(user: User, pairs: int, home: Path, server: User | None, **variables: str) -> Callable[[], None]:
    """Run so many pairs; returns what prints the figures, to be called when the server has ended.

    Args:
        user: Who runs it.
        pairs: How many.
        home: The home of the Prefect server.
        server: As whom a separate server runs; None for the embedded one.
        variables: The client's settings.
    """
    database = home / "prefect.db"
    with model(latency_ms=0) as models:
        user.run("--config", configure(user, 1, models.url), "--json", **variables)
        before = size(database)
        process = user.start("--config", configure(user, pairs, models.url), "--json", **variables)
        with Watch(process.pid, process.children if server is None else server.processes, database) as watch:
            ended = process.end(PATIENCE)
    summary: dict[str, Any] = ended.summary if ended.out else {}

    def report() -> None:
        after = size(database)
        state, flow_began, task_runs = recorded(database)
        print(f"exit {ended.code}, {summary.get('rows')} rows in {summary.get('seconds', 0):.1f} s, {state}")
        print("\n".join(compare(pairs, task_runs)))
        of_work = watch.since(flow_began)[0], float(summary.get("cpu_seconds", 0))
        of_process = watch.since(watch.samples[0].time)
        for name, (of_server, of_client) in (("of the processes", of_process), ("of the flow run", of_work)):
            ratio = f"{of_server / of_client:.2f}" if of_client else "-"
            print(f"CPU {name}: server {of_server:.1f} s, client {of_client:.1f} s, ratio {ratio}")
        most = max(sample.database for sample in watch.samples)
        print(
            f"prefect.db: {before[0] / MB:.1f} MB before, {after[0] / MB:.1f} MB after; with -wal: "
            f"{before[1] / MB:.1f} MB before, {after[1] / MB:.1f} MB after, {most / MB:.1f} MB at most"
        )
        # Reports of progress are of no use here, warnings are.
        print(*(line for line in ended.err.splitlines() if " calls paid" not in line), sep="\n", flush=True)

    return report


def main() -> None:
    """Run on both servers and print what each made of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    pairs = parser.parse_args().pairs
    print(f"{machine()}; {pairs:,} pairs", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print("\nembedded server", flush=True)
        user = User.made(Path(folder) / "embedded")
        measure(user, pairs, user.folder / "output" / HOME, None)()
        print("separate server", flush=True)
        user = User.made(Path(folder) / "separate")
        home = Path(folder) / "server"
        settings: dict[str, Any] = dotenv_values(ROOT / "deployments" / "server.env")
        with prefect_server(home, **settings) as url:
            report = measure(user, pairs, home, User(home, home, {}), PREFECT_API_URL=url)
        report()


if __name__ == "__main__":
    main()

"""Kill runs with SIGKILL and finish them: `python -m tests.crash.kill --mode dpo --kills 20 --seed 1`.

The command line runs as a process against the demo model server in another. It is killed when the server
has received a seeded random number of calls, spread over all phases, and started again with the same
configuration until it is done. The dataset must be that of an undisturbed run, byte for byte, and no call
whose answer was kept may be made again. Exit code 1 when that does not hold.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.flows.command import User, asked_twice, config, model, outlives, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.flows.command import Model

CONCURRENCY = 6
SUBTOPICS = 10
PROMPTS = 3
CALLS_OF_A_JOB = {"sft": 1, "dpo": 2, "kto": 2, "mo-dpo": 3}
"""Calls that a slot of `generation.concurrency` has in flight at most, the judge's slot included."""
SERVER_GONE_SECONDS = 5.0
# Slow enough to be killed in mid-work, and with answers that have to be asked for again.
BEHAVIOUR = {"latency_ms": 150.0, "refuse": 0.1, "bad": 0.1, "repeat": 0.1, "empty": 0.05}


@dataclass
class Report:
    """What came of it; `calls` are those that the undisturbed run paid for.

    Attributes:
        rows: Rows of the finished dataset.
        duplicates: Rows beyond those of the undisturbed run that are there more than once.
        missing: Rows of the undisturbed run that are not there.
        identical: Whether the datasets are the same, byte for byte.
        kills: Kills by the kind of the last call that had arrived, "start" when none had.
        calls: Calls that the work needs.
        paid: Calls that arrived at the server.
        twice: Calls that arrived a further time.
        in_flight: For each kill, the calls that had arrived and whose answers were not kept.
        kept_again: Calls made although their answers were kept.
        orphans: Embedded Prefect servers left behind.
    """

    mode: str
    rows: int = 0
    duplicates: int = 0
    missing: int = 0
    identical: bool = False
    kills: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    paid: int = 0
    twice: int = 0
    in_flight: list[int] = field(default_factory=list)
    kept_again: int = 0
    orphans: int = 0

    def broken(self) -> list[str]:
        """The laws that do not hold."""
        most = CONCURRENCY * CALLS_OF_A_JOB[self.mode]
        laws = {
            "the dataset is not that of the undisturbed run": not self.identical,
            "rows are double": self.duplicates > 0,
            "rows are missing": self.missing > 0,
            "more calls were paid for twice than were in flight": self.twice > sum(self.in_flight),
            "calls were made although their answers were kept": self.kept_again > 0,
            f"a kill lost more than the {most} calls that can be in flight": max(self.in_flight, default=0)
            > most,
            "embedded servers were left behind": self.orphans > 0,
        }
        return [law for law, is_broken in laws.items() if is_broken]

    def lines(self) -> list[str]:
        """The figures, a line each."""
        where = ", ".join(f"{count} in {kind}" for kind, count in self.kills.items())
        same = "the same as" if self.identical else "NOT the same as"
        most = max(self.in_flight, default=0)
        return [
            f"{self.mode}: {self.kills.total()} kills ({where})",
            f"{self.rows} rows, {self.duplicates} duplicates, {self.missing} missing",
            f"the dataset is {same} that of the undisturbed run",
            f"{self.paid} calls paid for where {self.calls} were needed, {self.twice} of them twice",
            f"{sum(self.in_flight)} calls in flight at the kills, at most {most} at one",
            f"{self.kept_again} calls made although kept, {self.orphans} embedded servers left behind",
        ]


def rehearse(mode: str, *, kills: int, seed: int, folder: Path, **variables: str) -> Report:
    """Run undisturbed, then with kills, and compare.

    Args:
        mode: The dataset mode.
        kills: How often the program is killed.
        seed: Seed of when and how.
        folder: An empty folder.
        variables: Environment variables of the runs, e.g. a Prefect server's address.
    """
    chance = random.Random(seed)
    report = Report(mode)
    with model(**BEHAVIOUR) as server:
        text = config(
            server.url,
            mode=mode,
            subtopics=SUBTOPICS,
            prompts=PROMPTS,
            concurrency=CONCURRENCY,
            generation="subtopic_chunk_size = 3",
            models="max_retries = 4",
        )
        calm = _user(folder / "calm", text, variables)
        expected = _finish(calm)
        needed = server.requests()
        report.calls = len(needed)
        restless = _user(folder / "restless", text, variables)
        for point in _points(Counter(request["kind"] for request in needed), kills, chance):
            _kill_at(point, restless, server, report, group=chance.random() < 0.5)
        _compare(_finish(restless), expected, report)
        requests = server.requests()[report.calls :]
        report.paid = len(requests)
        report.twice = len(asked_twice(requests))
    return report


def _user(folder: Path, text: str, variables: dict[str, str]) -> User:
    user = User.made(folder, **variables)
    user.write("config.toml", text)
    return user


def _finish(user: User) -> bytes:
    """Run until all is done; the dataset."""
    ended = user.run()
    assert ended.code == 0, ended.err
    return (user.sessions()[-1] / "dataset.jsonl").read_bytes()


def _points(kinds: Counter[str], kills: int, chance: random.Random) -> list[int]:
    """Numbers of calls after which to kill, ascending: a third of them in each phase, also before it."""
    subtopics, prompts, total = kinds["subtopics"], kinds["prompts"], kinds.total()
    phases = [(0, subtopics), (subtopics + 1, subtopics + prompts), (subtopics + prompts + 1, total)]
    return sorted(chance.randint(*phases[number % len(phases)]) for number in range(kills))


def _kill_at(point: int, user: User, server: Model, report: Report, *, group: bool) -> None:
    """Start the program and kill it when `point` different calls have arrived; note what was in flight."""
    before = len(server.requests())
    kept = _kept(user)
    process = user.start()
    # What was in flight at earlier kills arrives again first.
    if not server.until_requests(report.calls + point + sum(report.in_flight), process):
        ended = process.end()
        raise AssertionError(f"it ended before it was killed, with {ended.code}: {ended.err}")
    children = process.children()
    process.kill(group=group)
    process.end()
    until(lambda: server.stats()["in_flight"] == 0, "the server's last answer")
    requests = server.requests()
    arrived = {request["key"] for request in requests[before:]}
    report.kept_again += len(arrived & kept)
    report.in_flight.append(len(arrived - _kept(user)))
    report.kills[requests[-1]["kind"] if len(requests) > report.calls else "start"] += 1
    report.orphans += len(outlives(children, SERVER_GONE_SECONDS))


def _kept(user: User) -> set[str]:
    """The keys of the calls whose answers are in the ledger."""
    path = user.folder / "output" / "ledger.db"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchall():
            return set()
        return {key.hex() for (key,) in database.execute("SELECT key FROM calls")}


def _compare(dataset: bytes, expected: bytes, report: Report) -> None:
    found, wanted = Counter(dataset.splitlines()), Counter(expected.splitlines())
    report.identical = dataset == expected
    report.rows = found.total()
    report.duplicates = sum(count - 1 for row, count in found.items() if count > max(1, wanted[row]))
    report.missing = (wanted - found).total()


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse as the command line says, print the figures; 1 when a law does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mode", choices=CALLS_OF_A_JOB, default="dpo")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    with tempfile.TemporaryDirectory() as folder:
        report = rehearse(folder=Path(folder), **options)
    broken = report.broken()
    print("\n".join([*report.lines(), *(f"BROKEN: {law}" for law in broken)]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

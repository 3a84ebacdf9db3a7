"""Fill the disk under runs and go on when there is room: `python -m tests.crash.full --fills 20 --seed 1`.

The output folder, with the ledger, the session and the data of Prefect's embedded server, is a small disk.
When the model server has received a seeded random number of calls it is made full: the run must end by
itself, in order. Then it is given room and the session is resumed, until it is done. The dataset must be
that of an undisturbed run, byte for byte, and no call whose answer was kept may be made again. Exit code 1
when that does not hold.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.disk import SmallDisk
from tests.flows.command import PROGRAM, User, asked_twice, config, model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.flows.command import Ended, Model, Process

CONCURRENCY = 4
SUBTOPICS = 6
PROMPTS_A_FILL = 4
"""Prompts a subtopic for each time that the disk is full, so that there is work left for the last one."""
CALLS_OF_A_JOB = {"sft": 1, "dpo": 2, "kto": 2, "mo-dpo": 3}
"""Calls that a slot of `generation.concurrency` has in flight at most, the judge's slot included."""
MOST_LEFT = 32_768
"""Bytes that are left on the disk at most: room for a few answers."""
LATENCY_MS = 100.0


@dataclass
class Report:
    """What came of it.

    Attributes:
        calls: Calls that the work needs.
        paid: Calls that arrived at the server.
        twice: Calls that arrived a further time.
        lost: For each fill, the calls that had arrived when the run had ended and whose answers are not kept.
        ends: What the runs on the full disk ended with.
        identical: Whether the dataset is that of the undisturbed run.
    """

    mode: str
    calls: int = 0
    paid: int = 0
    twice: int = 0
    lost: list[int] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    identical: bool = False

    def broken(self) -> list[str]:
        """The laws that do not hold."""
        most = CONCURRENCY * CALLS_OF_A_JOB[self.mode]
        said = [ended.err for ended in self.ends]
        laws = {
            "the dataset is not that of the undisturbed run": not self.identical,
            "a call was made although its answer was kept": self.twice > sum(self.lost),
            f"more than the {most} calls in flight were lost at once": max(self.lost, default=0) > most,
            "a run on a full disk did not end with 1": any(ended.code != 1 for ended in self.ends),
            "a run did not say in a line what is wrong": any(
                err.count("vellumforge2: ") not in {1, 2} or "cannot be written" not in err for err in said
            ),
            "there was a traceback": any("Traceback" in err for err in said),
        }
        return [law for law, is_broken in laws.items() if is_broken]

    def lines(self) -> list[str]:
        """The figures, a line each."""
        return [
            f"{self.mode}: the disk was full {len(self.ends)} times",
            f"the dataset is {'the same as' if self.identical else 'NOT'} that of the undisturbed run",
            f"{self.paid} calls paid for where {self.calls} were needed, {self.twice} of them twice",
            f"{sum(self.lost)} answers lost, at most {max(self.lost, default=0)} at once",
        ]


def rehearse(mode: str, *, fills: int, seed: int, folder: Path, **variables: str) -> Report:
    """Run undisturbed, then on a disk that is full again and again, and compare.

    Args:
        mode: The dataset mode.
        fills: How often the disk is filled.
        seed: Seed of when, and of the room that is left.
        folder: An empty folder.
        variables: Environment variables of the runs, e.g. a Prefect server's address.

    Raises:
        NoSmallDiskError: There can be no such disk on this system.
    """
    chance = random.Random(seed)
    report = Report(mode)
    user, calm = User.made(folder / "full", **variables), User.made(folder / "calm", **variables)
    with SmallDisk(user.folder / "output") as disk, model(latency_ms=LATENCY_MS) as server:
        prompts = PROMPTS_A_FILL * (1 + fills)
        text = config(server.url, mode=mode, subtopics=SUBTOPICS, prompts=prompts, concurrency=CONCURRENCY)
        for someone in (calm, user):
            someone.write("config.toml", text)
        assert calm.run().code == 0
        report.calls = len(server.requests())
        server.start(latency_ms=LATENCY_MS)
        for number in range(fills):
            # The first time while prompts are asked for, then in mid-pairs.
            calls = chance.randint(2, SUBTOPICS) if number == 0 else SUBTOPICS + chance.randint(1, SUBTOPICS)
            ended, kept = _fill_under_a_run(user, disk, server, calls=calls, left=chance.randrange(MOST_LEFT))
            report.ends.append(ended)
            report.lost.append(len(server.requests()) - sum(report.lost) - kept)
        ended = _begin(user, disk).end()
        assert ended.code == 0, ended.err
        requests = server.requests()
        report.paid, report.twice = len(requests), len(asked_twice(requests))
        (session,) = disk.folder.glob("session_*")
        (undisturbed,) = calm.sessions()
        name = "dataset.jsonl"
        report.identical = (session / name).read_bytes() == (undisturbed / name).read_bytes()
    return report


def _begin(user: User, disk: SmallDisk) -> Process:
    """Start a run, or the resume of what it began."""
    sessions = [path.name for path in disk.folder.glob("session_*")]
    if not sessions:
        return disk.seen_by(user).start()
    return disk.seen_by(user).start("checkpoint", "resume", *sessions, program=PROGRAM)


def _fill_under_a_run(
    user: User, disk: SmallDisk, server: Model, *, calls: int, left: int
) -> tuple[Ended, int]:
    """Fill the disk once so many calls of a run have arrived; its end, and the answers that are kept then."""
    process = _begin(user, disk)
    if server.until_requests(len(server.requests()) + calls, process):
        disk.fill(left)
    ended = process.end()
    disk.make_room()
    return ended, _kept(disk.folder)


def _kept(output: Path) -> int:
    """How many answers the ledger holds; read in a copy, for SQLite resolves the way to a disk of others."""
    with tempfile.TemporaryDirectory() as folder:
        for path in output.glob("ledger.db*"):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder, "ledger.db"))) as database:
            found: int = database.execute("SELECT count(*) FROM calls").fetchone()[0]
            return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=CALLS_OF_A_JOB, default="dpo")
    parser.add_argument("--fills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = rehearse(chosen.mode, fills=chosen.fills, seed=chosen.seed, folder=Path(folder))
    print("\n".join(report.lines()))
    for law in report.broken():
        print(f"BROKEN: {law}")
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())

"""Look after a folder beside a session at work: `python -m tests.crash.care --rounds 100 --seed 1`.

A session is made, and killed five times and resumed. Beside it, in the same folder and over the same ledger,
go rounds of export, import, merge, clean, prune and salvage of another session, of which every fourth command
is killed too and done again. Nothing that is paid for may be lost: the dataset must be that of an undisturbed
run, byte for byte, with no call made again but those in flight at the kills, and no command may fail or leave
anything behind. Exit code 1 when that does not hold; then the folder stays and is named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.files import LEFT, PART
from tests.crash.left import kept_calls
from tests.flows.command import PROGRAM, User, asked_twice, config, model, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.flows.command import Model, Process

KILLS = 5
ROUNDS_A_RUN = 10
SUBTOPICS = 4
PROMPTS = 3
CONCURRENCY = 2
LATENCY_MS = 250.0
KILLED_OF = 4
"""Of so many commands one is killed."""
LONGEST_LIFE = 0.4
"""Seconds after which a command is killed that is to be."""

OLD = "session_2020-01-01T00-00-00"
TWIN = "session_2020-01-01T00-00-01"
MERGED = "session_2020-01-01T00-00-02"
"""Names older than that of the session at work, which `clean --keep-last 1` spares."""
ARCHIVE = "old.zip"
SAVED = "saved.db"


@dataclass
class Report:
    """What came of it.

    Attributes:
        rounds: Rounds of commands.
        commands: Commands that ended by themselves.
        cut: Commands that were killed.
        kills: How often a session at work was killed.
        removed: Rounds whose pruning removed something beside it.
        calls: Calls that the sessions need.
        paid: Calls that arrived at the server.
        twice: Calls that arrived a further time.
        in_flight: Calls that had arrived at a kill and whose answers were not kept.
        faults: What went wrong, in words.
    """

    rounds: int = 0
    commands: int = 0
    cut: int = 0
    kills: int = 0
    removed: int = 0
    calls: int = 0
    paid: int = 0
    twice: int = 0
    in_flight: int = 0
    faults: list[str] = field(default_factory=list)

    def broken(self) -> list[str]:
        """The laws that do not hold."""
        again = "more calls were paid for twice than were in flight"
        return [*([again] if self.twice > self.in_flight else []), *self.faults]

    def lines(self) -> list[str]:
        """The figures, a line each."""
        return [
            f"{self.rounds} rounds: {self.commands} commands, {self.cut} more killed",
            f"{self.removed} prunes removed something",
            f"{self.kills} kills of the session at work, {self.in_flight} calls in flight at them",
            f"{self.paid} calls paid, {self.calls} needed, {self.twice} paid twice",
        ]


def rehearse(*, rounds: int, seed: int, folder: Path, **variables: str) -> Report:
    """Run undisturbed, then with kills and beside rounds of commands, and compare.

    Args:
        rounds: How many rounds; every tenth begins with a new folder.
        seed: Seed of when what is killed.
        folder: An empty folder.
        variables: Environment variables of the runs, e.g. a Prefect server's address.
    """
    report, chance = Report(), random.Random(seed)
    variables = {"PREFECT_HOME": str(folder / "prefect"), **variables}
    with model(latency_ms=LATENCY_MS) as server:
        calm = User.made(folder / "calm", **variables)
        calm.write("config.toml", _text(server))
        ended = calm.run()
        assert ended.code == 0, ended.err
        needed = {request["key"] for request in server.requests()}
        expected = (calm.sessions()[0] / "dataset.jsonl").read_bytes()
        _make_old(calm, server)
        while report.rounds < rounds:
            user = User.made(folder / f"run-{report.rounds}", **variables)
            user.write("config.toml", _text(server))
            shutil.copy(calm.folder / ARCHIVE, user.folder)
            number = min(ROUNDS_A_RUN, rounds - report.rounds)
            before = len(server.requests())
            work = _Work(user, server, needed, report, chance)
            with ThreadPoolExecutor(1) as pool:
                care = pool.submit(_Care(user, report, random.Random(chance.random())).go, number)
                work.go()
                care.result()
            requests = server.requests()[before:]
            report.calls += len(needed)
            report.paid += len(requests)
            report.twice += len(asked_twice(requests))
            report.faults += _faults(user, needed, expected, {request["key"] for request in requests})
    return report


def _text(server: Model) -> str:
    return config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, concurrency=CONCURRENCY)


def _make_old(user: User, server: Model) -> None:
    """The archive of another session, of models that the one at work does not ask."""
    text = config(server.url, subtopics=1, prompts=2).replace("-writer", "-beginner")
    user.write("old.toml", text)
    ended = user.run("--config", "old.toml", "--output", "old")
    assert ended.code == 0, ended.err
    (session,) = user.sessions("old")
    words = ("checkpoint", "export", session.name, "--output", "old", "--to", ARCHIVE)
    ended = user.run(*words, program=PROGRAM)
    assert ended.code == 0, ended.err


def _faults(user: User, needed: set[str], expected: bytes, asked: set[str]) -> list[str]:
    output = user.folder / "output"
    session = _session_at_work(user)
    left = [
        path.name for path in output.rglob(".*") if path.name.startswith(LEFT) or path.name.endswith(PART)
    ]
    left += [path.name for path in user.folder.glob(f".*{PART}")]
    laws = {
        "the dataset is not that of the undisturbed run": session is None
        or (session / "dataset.jsonl").read_bytes() != expected,
        "answers are lost": not needed <= kept_calls(user),
        "calls were made that the undisturbed run does not make": not asked <= needed,
        f"something was left behind: {left}": bool(left),
    }
    return [f"{user.folder}: {law}" for law, is_broken in laws.items() if is_broken]


def _session_at_work(user: User) -> Path | None:
    return next((path for path in user.sessions() if path.name not in {OLD, TWIN, MERGED}), None)


class _Work:
    """The session that is killed and resumed."""

    def __init__(
        self, user: User, server: Model, needed: set[str], report: Report, chance: random.Random
    ) -> None:
        self._user = user
        self._server = server
        self._needed = needed
        self._report = report
        self._chance = chance

    def go(self) -> None:
        """Begin it, kill it as often as wanted, and bring it to its end."""
        for kill in range(KILLS):
            kept, before = kept_calls(self._user), len(self._server.requests())
            process = self._start()
            # Each leaves something to those after it.
            most = max(1, len(self._needed - kept) // (KILLS + 1 - kill))
            if self._server.until_requests(before + self._chance.randint(1, most), process):
                process.kill()
            process.end()
            until(lambda: self._server.stats()["in_flight"] == 0, "the server's last answer")
            asked = {request["key"] for request in self._server.requests()[before:]}
            self._report.kills += 1
            self._report.in_flight += len(asked - kept_calls(self._user))
            if asked & kept:
                self._report.faults.append(f"{len(asked & kept)} calls were made although they were kept")
        ended = self._start().end()
        if ended.code:
            self._report.faults.append(f"the session cannot be finished: {ended.err}")

    def _start(self) -> Process:
        session = _session_at_work(self._user)
        if session is None:
            return self._user.start("run", program=PROGRAM)
        return self._user.start("checkpoint", "resume", session.name, program=PROGRAM)


class _Care:
    """The commands beside it."""

    def __init__(self, user: User, report: Report, chance: random.Random) -> None:
        self._user = user
        self._report = report
        self._chance = chance

    def go(self, rounds: int) -> None:
        """Go so many rounds; the last command is one that is not killed."""
        output = self._user.folder / "output"
        saved = self._user.folder / SAVED
        # Before it is there, `clean --keep-last 1` would spare another.
        until(lambda: _session_at_work(self._user) is not None, "the session at work")
        for _ in range(rounds):
            self._do("checkpoint", "import", ARCHIVE, "--name", OLD, done=(output / OLD).exists)
            self._do("checkpoint", "export", OLD, "--to", "again.zip")
            self._do("checkpoint", "import", ARCHIVE, "--name", TWIN, done=(output / TWIN).exists)
            self._do("checkpoint", "merge", OLD, TWIN, "--into", MERGED, done=(output / MERGED).exists)
            self._do("ledger", "salvage", "--into", SAVED, done=saved.exists)
            saved.unlink(missing_ok=True)
            self._do("checkpoint", "clean", "--older-than", "0s", "--keep-last", "1")
            said = self._do("ledger", "prune")
            self._report.removed += not said.startswith("0 of")
            self._report.rounds += 1
        self._do("checkpoint", "list", killed=False)

    def _do(self, *words: str, done: Callable[[], bool] = lambda: False, killed: bool = True) -> str:
        """Run a command, which may be killed and is then done again; returns what it said."""
        if killed and self._chance.randrange(KILLED_OF) == 0:
            process = self._user.start(*words, program=PROGRAM)
            time.sleep(self._chance.random() * LONGEST_LIFE)
            with suppress(ProcessLookupError):  # it has ended already
                process.kill()
            self._report.cut += process.end().code < 0
            if done():
                return ""
        ended = self._user.run(*words, program=PROGRAM)
        self._report.commands += 1
        if ended.code:
            self._report.faults.append(f"`{' '.join(words)}` ended with {ended.code}: {ended.err}")
        return ended.out


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse as the command line says, print the figures; 1 when a law does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="care-"))
    report = rehearse(rounds=chosen.rounds, seed=chosen.seed, folder=folder)
    print("\n".join(report.lines()))
    broken = report.broken()
    if broken:
        print("\n".join([*(f"BROKEN: {law}" for law in broken), f"the files are in {folder}"]))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

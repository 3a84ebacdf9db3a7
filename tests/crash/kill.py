"""Kill runs and resume them: `python -m tests.crash.kill --mode dpo --kills 20 --seed 1`.

The command line runs as a process against the demo model server in another. At seeded random moments of all
phases it gets a SIGKILL, a SIGTERM, or a SIGKILL to its whole process group; then its session is resumed,
again and again until it is complete, and when kills are left the next run begins with an empty ledger. Every
dataset must be that of an undisturbed run, byte for byte; no call whose answer was kept may be made again;
a SIGTERM must end in order. Exit code 1 when that does not hold; then the folder stays and is named.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.blows import LATENCY, LONG_GRACE, PHASE_OF, Kind, Started, Times, plan
from tests.crash.left import is_complete, kept_calls, opened_at, sessions_of
from tests.crash.report import Report
from tests.flows.command import CHECKPOINT, POLL, User, asked_twice, config, model, outlives, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.blows import Blow
    from tests.flows.command import Ended, Model, Process

log = logging.getLogger("tests.crash.kill")

CONCURRENCY = 6
CALLS_OF_A_JOB = {"sft": 1, "dpo": 2, "kto": 2, "mo-dpo": 3} | dict.fromkeys(
    ("candidates", "panel", "pairwise", "checklist"), 3
)
"""Calls that a slot of `generation.concurrency` has in flight at most, the judge's slot included."""
MODES = {"candidates": "mo-dpo", "panel": "mo-dpo", "pairwise": "dpo", "checklist": "kto"}
"""The dataset mode of what is none of its own."""
SECOND = (
    '[models.second]\nbase_url = "URL"\nmodel_name = "second"\nrate_limit_per_minute = 0\nmax_retries = 8\n'
)
MORE = {
    "candidates": '[candidates]\ncount = 3\nchoose = "best_random"\n',
    "panel": f'[judging]\nmodels = ["judge", "second"]\nagree = 1\n{SECOND}',
    "pairwise": f'[judging]\nmodels = ["judge", "second"]\nmode = "pairwise"\n{SECOND}',
    "checklist": '[judging]\nmode = "checklist"\n[candidates]\ncount = 2\nchoose = "best_worst"\n',
}
"""What stands in their configuration besides."""
SUBTOPICS = 10
PROMPTS = 3
KILLS_OF_A_RUN = 10
MODES_AT_ONCE = 2
GONE_SECONDS = 5.0
"""How long an embedded server may live on without its run."""

# With answers that have to be asked for again.
BEHAVIOUR = {"latency_ms": LATENCY * 1000, "refuse": 0.1, "bad": 0.1, "repeat": 0.1, "empty": 0.05}


@dataclass(frozen=True)
class Calm:
    """The undisturbed run: its dataset, and its calls by key with the kind of each."""

    dataset: bytes
    calls: dict[str, str]


def rehearse(mode: str, *, kills: int, seed: int, folder: Path, **variables: str) -> Report:
    """Run undisturbed, then with kills until there were as many as wanted, and compare.

    Args:
        mode: The dataset mode, or what is none of its own: see `MORE`.
        kills: How often the program is killed.
        seed: Seed of when and how.
        folder: An empty folder.
        variables: Environment variables of the runs, e.g. a Prefect server's address.
    """
    with model(**BEHAVIOUR) as server:
        return _Rehearsal(mode, server, folder, random.Random(f"{mode} {seed}"), variables).go(kills)


class _Rehearsal:
    """The runs of one mode against one server."""

    def __init__(
        self, mode: str, server: Model, folder: Path, chance: random.Random, variables: dict[str, str]
    ) -> None:
        self._server = server
        self._folder = folder
        self._chance = chance
        # One home for all runs: it is slow to make, and has nothing of theirs that counts.
        self._variables = {"PREFECT_HOME": str(folder / "prefect"), **variables}
        self._text = config(
            server.url,
            mode=MODES.get(mode, mode),
            more=MORE.get(mode, "").replace("URL", server.url),
            subtopics=SUBTOPICS,
            prompts=PROMPTS,
            concurrency=CONCURRENCY,
            generation="subtopic_chunk_size = 3",
            # So many tries that none of the faults above can outlast them, whatever port the server has.
            models="max_retries = 8",
        )
        if mode in MORE:
            self._text = self._text.replace("enabled = false", "enabled = true")
        self._report = Report(mode)
        self._calm, self._times = self._undisturbed()

    def go(self, kills: int) -> Report:
        """Kill so often; every run is brought to its end."""
        report = self._report
        while (left := kills - report.kills.total()) > 0:
            report.runs += 1
            user, before = self._user(f"run-{report.runs}"), len(self._server.requests())
            for blow in plan(self._chance, min(left, KILLS_OF_A_RUN)):
                if is_complete(user):
                    break
                self._strike(blow, user)
            self._bring_to_end(user)
            requests = self._server.requests()[before:]
            report.calls += len(self._calm.calls)
            report.paid += len(requests)
            report.twice += len(asked_twice(requests))
            report.needless += len({request["key"] for request in requests} - set(self._calm.calls))
            report.sessions += len(sessions_of(user)) - 1
            report.empty += len(user.sessions()) - len(sessions_of(user))
            report.torn += len(list(user.folder.glob("output/*/.*.part")))
            report.orphans += len(outlives(user.processes(), GONE_SECONDS))
            self._compare((sessions_of(user)[-1] / "dataset.jsonl").read_bytes())
        return report

    def _user(self, name: str) -> User:
        user = User.made(self._folder / name, **self._variables)
        user.write("config.toml", self._text)
        return user

    def _undisturbed(self) -> tuple[Calm, Times]:
        user, server = self._user("calm"), self._server
        began = last = time.monotonic()
        process = user.start()
        assert server.until_requests(1, process), process.end().err
        lead, seen = time.monotonic() - began, 1
        while process.running:
            if (arrived := server.stats()["requests"]) > seen:
                seen, last = arrived, time.monotonic()
            time.sleep(POLL)
        tail = time.monotonic() - last
        ended = process.end()
        assert ended.code == 0, ended.err
        calls = {request["key"]: request["kind"] for request in server.requests()}
        dataset = (user.sessions()[0] / "dataset.jsonl").read_bytes()
        return Calm(dataset, calls), Times(lead, tail)

    def _strike(self, blow: Blow, user: User) -> None:
        """Start the run or resume its session, kill it, and note what that did."""
        server, report = self._server, self._report
        kept, opened, before = kept_calls(user), opened_at(user), len(server.requests())
        missing = Counter(kind for key, kind in self._calm.calls.items() if key not in kept)
        process = _start(user, "--set", f"execution.grace_seconds={blow.grace}")
        hit = Started(process, user, server, missing, self._times).until(blow)
        if hit:
            _kill(process, blow.kind)
        ended = process.end()
        until(lambda: server.stats()["in_flight"] == 0, "the server's last answer")
        requests = server.requests()[before:]
        arrived, kept_after = {request["key"] for request in requests}, kept_calls(user)
        lost = len(arrived - kept_after)
        report.kept_again += len(arrived & kept)
        if ended.code == 0 and not hit:
            # It was over before its moment came; nothing is in flight then, and a kill is owed.
            report.faults += [f"{lost} calls are lost of a run that nothing disturbed"] if lost else []
            return
        report.in_flight += lost
        report.most_in_flight = max(report.most_in_flight, lost)
        if is_complete(user):
            phase = "end"
        elif opened_at(user) == opened:
            phase = "start"
        elif not set(self._calm.calls) - kept_after:
            phase = "projection"
        else:
            phase = PHASE_OF[requests[-1]["kind"]] if requests else "replay"
        report.kills[blow.kind, phase] += 1
        faults = _faults(blow, ended, phase, lost)
        if lost > (most := CONCURRENCY * CALLS_OF_A_JOB[report.mode]):
            faults.append(f"no more than {most} calls can be in flight")
        said = f"{report.mode}, run {report.runs}: {blow}: hit {phase}, code {ended.code}, {lost} in flight"
        report.history.append(said)
        log.info(said)
        report.faults += [f"{said}: {fault}" for fault in faults]

    def _bring_to_end(self, user: User) -> None:
        """Resume until complete; then another resume has nothing to do and says so."""
        if not is_complete(user):
            ended = _start(user).end()
            if ended.code:
                self._report.faults.append(f"run {self._report.runs} cannot be finished: {ended.err}")
        ended = _start(user).end()
        if ended.code != 2 or "is complete" not in ended.err:
            self._report.faults.append(f"run {self._report.runs} is not complete: {ended.err}")

    def _compare(self, dataset: bytes) -> None:
        report, expected = self._report, self._calm.dataset
        found, wanted = Counter(dataset.splitlines()), Counter(expected.splitlines())
        report.rows += found.total()
        report.duplicates += sum(count - 1 for row, count in found.items() if count > max(1, wanted[row]))
        report.missing += (wanted - found).total()
        report.different += dataset != expected


def _start(user: User, *options: str) -> Process:
    """Resume the session; run when there is none yet."""
    sessions = sessions_of(user)
    if not sessions:
        return user.start(*options)
    return user.start("resume", sessions[-1].name, *options, program=CHECKPOINT)


def _kill(process: Process, kind: Kind) -> None:
    if kind is Kind.TERM:
        process.send(signal.SIGTERM)
    else:
        process.kill(group=kind is Kind.GROUP)


def _faults(blow: Blow, ended: Ended, phase: str, lost: int) -> list[str]:
    """What is wrong with how a killed run ended."""
    if blow.kind is not Kind.TERM:
        return [] if ended.code == -signal.SIGKILL or phase == "end" else [f"it ended itself: {ended.err}"]
    faults = []
    # Before Prefect is there, nothing runs that could be ended in order; a complete run ends as it likes.
    unheard = phase in {"start", "end"} and ended.code in {-signal.SIGTERM, 0}
    if ended.code != 128 + signal.SIGTERM and not unheard:
        faults.append(f"a SIGTERM ends with 143, not with {ended.code}: {ended.err}")
    if ended.code == 128 + signal.SIGTERM and phase != "end" and "to go on, paying only" not in ended.err:
        faults.append(f"it does not say how to resume: {ended.err}")
    if lost and blow.grace == LONG_GRACE:
        faults.append("calls were given up although there was time for them")
    if "Traceback" in ended.err:
        faults.append(ended.err)
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse as the command line says, print the figures; 1 when a law does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--mode", choices=[*CALLS_OF_A_JOB, "all"], default="all", help="all: kills shared out"
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print every kill")
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    modes = tuple(CALLS_OF_A_JOB) if options.mode == "all" else (options.mode,)
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    reports: list[Report] = []
    with ThreadPoolExecutor(MODES_AT_ONCE) as pool:
        shares = [options.kills // len(modes) + (i < options.kills % len(modes)) for i in range(len(modes))]
        for report in pool.map(
            lambda mode, kills: rehearse(mode, kills=kills, seed=options.seed, folder=folder / mode),
            modes,
            shares,
        ):
            reports.append(report)
            print("\n".join(report.lines()), flush=True)
    total = reduce(add, reports)
    total.mode = "all"
    if len(reports) > 1:
        print("\n".join(total.lines()))
    broken = total.broken()
    if broken:
        print("\n".join([*(f"BROKEN: {law}" for law in broken), f"the files are in {folder}"]))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

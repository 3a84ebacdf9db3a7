"""Cut a session's files everywhere and resume it: `python -m tests.crash.torn --step 64`.

A run is interrupted in mid-pairs. From then on, one file at a time is cut at every 64th byte, in a copy of
its folder, and the copy is resumed through the command line: `dataset.jsonl`, `dataset_reasoning.jsonl`,
`checkpoint.json`, `session.json`, and the results of tasks that Prefect keeps. Each resume must pay for
what was missing and nothing else, and end with the datasets of the undisturbed run. Exit code 1 when one
does not.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, User, config, model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.flows.command import Model

SUBTOPICS = 2
PROMPTS = 2
CALLS = 1 + SUBTOPICS + 2 * SUBTOPICS * PROMPTS
"""Calls of a whole run: subtopics, prompts, and two answers a job."""
INTO_PAIRS = 1 + SUBTOPICS + 4
SLOW = 300.0
"""Milliseconds an answer takes where the run is interrupted."""
DATASETS = ("dataset.jsonl", "dataset_reasoning.jsonl")
FILES = (*DATASETS, "checkpoint.json", "session.json")
RESULTS = "prefect/storage"
"""Where the results of tasks are, in the working folder."""

PHASES = ("subtopics", "prompts", "pairs")


@dataclass
class Report:
    """What came of it.

    Attributes:
        cuts: How often each file was cut.
        wrong: What was not as it should be, a line each.
    """

    cuts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def rehearse(folder: Path, *, step: int = 64, most: int | None = None, **variables: str) -> Report:
    """Interrupt a run, cut its files, resume each time, and compare.

    Args:
        folder: An empty folder.
        step: Bytes between two cuts of a file.
        most: Cuts to be made at most, spread over all files; None for all of them.
        variables: Environment variables of the runs, e.g. a Prefect server's address.
    """
    report = Report()
    calm = User.made(folder / "calm", **variables)
    user = User.made(folder / "torn", **variables, PREFECT_HOME=str(folder / "torn/work/prefect"))
    with model(latency_ms=SLOW) as server:
        text = config(
            server.url,
            subtopics=SUBTOPICS,
            prompts=PROMPTS,
            concurrency=2,
            generation="enable_reasoning_capture = true",
        )
        for someone in (calm, user):
            someone.write("config.toml", text)
        assert calm.run().code == 0
        expected = _datasets(calm)
        server.start(latency_ms=SLOW)
        process = user.start()
        assert server.until_requests(INTO_PAIRS, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        missing = CALLS - len(server.requests())
        untouched = folder / "untouched"
        shutil.copytree(user.folder, untouched)
        places = _places(untouched, user.sessions()[0].name, step)
        # Evenly spread where not all are wanted, the first one included.
        chosen = places[:: -(-len(places) // most)] if most else places
        for path, size in chosen:
            shutil.rmtree(user.folder)
            shutil.copytree(untouched, user.folder)
            (user.folder / path).write_bytes((untouched / path).read_bytes()[:size])
            report.cuts[path.name.partition("-")[0]] += 1
            report.wrong += [
                f"{path} cut at {size}: {what}" for what in _resume(user, server, missing, expected)
            ]
    return report


def _places(untouched: Path, session: str, step: int) -> list[tuple[Path, int]]:
    """Every cut: a file, relative to the working folder, and the bytes that are left of it."""
    paths = [untouched / "output" / session / name for name in FILES]
    # One of each kind stands for all: they differ in a number.
    results = [min((untouched / RESULTS).glob(f"{phase}-*")) for phase in PHASES]
    return [
        (path.relative_to(untouched), size)
        for path in [*paths, *results]
        for size in range(0, path.stat().st_size, step)
    ]


def _resume(user: User, server: Model, missing: int, expected: list[bytes]) -> list[str]:
    """Resume the session; what was not as it should be."""
    server.start()
    (session,) = user.sessions()
    ended = user.run("checkpoint", "resume", session.name, program=PROGRAM)
    if (ended.code, ended.err) != (0, ""):
        return [f"exit code {ended.code}: {ended.err}"]
    paid = len(server.requests())
    wrong = [] if paid == missing else [f"{paid} calls paid for where {missing} were missing"]
    if user.sessions() != [session] or _datasets(user) != expected:
        wrong.append("the datasets are not those of the undisturbed run")
    return wrong


def _datasets(user: User) -> list[bytes]:
    (session,) = user.sessions()
    return [(session / name).read_bytes() for name in DATASETS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", type=int, default=64, help="bytes between two cuts of a file")
    parser.add_argument("--most", type=int, help="cuts at most, spread over all files")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = rehearse(Path(folder), step=chosen.step, most=chosen.most)
    for name, count in report.cuts.items():
        print(f"{name}: cut {count} times")
    print(f"{report.cuts.total()} resumes, {len(report.wrong)} of them wrong")
    for line in report.wrong:
        print(f"WRONG: {line}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

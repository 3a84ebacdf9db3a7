"""How soon a resume pays for something new: `python -m tests.benchmarks.resume --pairs 10010`.

A run is killed with SIGKILL when about ten of its pairs are left, and resumed; the figure is the time from
the start of the process to the first call that arrives, beside that of a new run (`--fresh`) in a copy of
the same folder, so that Prefect's database is there for both. They are repeated in turn; nothing is
asserted.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.flows.command import CHECKPOINT, MODULE, User, config, model, outlives, rows_of, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.flows.command import Model

LEFT = 20
"""Calls that are left at the kill: two a pair."""


def main() -> None:
    """Measure as the command line says, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_010)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, model() as server:
        prompts = 10
        text = config(
            server.url, subtopics=options.pairs // prompts, prompts=prompts, concurrency=64, mode="dpo"
        )
        begun = User.made(Path(folder) / "begun")
        begun.write("config.toml", text)
        process = begun.start()
        # Every subtopic is one call, and the list of them a few.
        needed = options.pairs * 2 + options.pairs // prompts
        assert server.until_requests(needed - LEFT, process)
        # Its Prefect server too, whose files are copied below.
        children = process.children()
        process.kill(group=True)
        process.end()
        assert outlives(children, 10.0) == []
        until(lambda: server.stats()["in_flight"] == 0, "the server's last answer")
        session = begun.sessions()[-1]
        print(f"{len(rows_of(session)):,} of {options.pairs:,} rows were in the dataset at the kill")
        new, resumed = [], []
        for number in range(options.times):
            new.append(_first_call(server, _copied(begun, f"new-{number}"), "--fresh", program=MODULE))
            copy = _copied(begun, f"again-{number}")
            resumed.append(_first_call(server, copy, "resume", session.name, program=CHECKPOINT))
            print(f"  new run {new[-1]:.2f} s, resume {resumed[-1]:.2f} s", flush=True)
    middle, other = statistics.median(resumed), statistics.median(new)
    print(f"first new call: resume {middle:.2f} s, new run {other:.2f} s, {middle - other:+.2f} s (medians)")


def _copied(user: User, name: str) -> User:
    copy = User.made(user.folder.parents[1] / name)
    shutil.copytree(user.folder, copy.folder, dirs_exist_ok=True)
    return copy


def _first_call(server: Model, user: User, *arguments: str, program: Sequence[str]) -> float:
    """Seconds from the start of the process to its first call."""
    before = server.stats()["requests"]
    began = time.monotonic()
    process = user.start(*arguments, program=program)
    assert server.until_requests(before + 1, process)
    seconds = time.monotonic() - began
    process.kill(group=True)
    process.end()
    until(lambda: server.stats()["in_flight"] == 0, "the server's last answer")
    return seconds


if __name__ == "__main__":
    main()

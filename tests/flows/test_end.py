"""The end of a process that a worker started for a run, and what it says until then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows.process.end import IN_WORKER

ROOT = Path(__file__).parents[2]
RUN = "8d2a7f1c"
LONG = 100_000
"""More characters than a pipe holds."""

SPEAKER = f"""
import sys
from pathlib import Path

from rich.console import Console

from flows.process.end import bounded_end

with bounded_end({RUN!r}):
    print("begun", flush=True)
    sys.stdin.readline()
    for stream in (sys.stdout, sys.stderr):
        for _ in range(3):
            Console(file=stream, width={LONG}, highlight=False).print("x" * {LONG})
    Path(sys.argv[1]).write_text("went on")
print("over")
"""
"""What a run does, by the library by which Prefect logs; it goes on when it is told to."""


def speaker(kept: Path) -> subprocess.Popen[str]:
    """A process like one that a worker started, which has begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAKER, str(kept)],
        cwd=ROOT,
        env={**os.environ, IN_WORKER: RUN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_a_run_goes_on_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """As when its worker was killed: it has calls in flight, and is told to stop in a moment."""
    kept = tmp_path / "kept"
    process = speaker(kept)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait() == 0
    assert kept.read_text() == "went on"


def test_whoever_reads_gets_all_that_a_run_said(tmp_path: Path) -> None:
    out, err = speaker(tmp_path / "kept").communicate("\n")
    assert (out, err) == (("x" * LONG + "\n") * 3 + "over\n", ("x" * LONG + "\n") * 3)

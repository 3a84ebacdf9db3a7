"""How fast the pipeline is: `python -m tests.benchmarks.pipeline --pairs 10000 --concurrency 256`.

Each case runs the command line in a process of its own against the demo model server in another, first
with an empty ledger and then again with the full one. Figures are the program's own (`--json`): wall time
of each phase, CPU time of the client process while it worked, its peak memory; starting Prefect's server
is not in them. Beside them stands what surrounds the work: the time from the command to the first request,
from the last answer to the exit, and that of the whole process. `--commands` adds what the commands over a
session take, each in a process of its own, and the size of the ledger. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS_PER_SUBTOPIC = 50
CONFIG = """
[generation]
main_topic = "What a benchmark asks"
num_subtopics = {subtopics}
num_prompts_per_subtopic = {prompts}
concurrency = {concurrency}
dataset_mode = "{mode}"
enable_checkpointing = {checkpoints}
checkpoint_interval = 10

[output]
folder = "{folder}"

[models.main]
base_url = "{url}"
model_name = "strong"
rate_limit_per_minute = 0

[models.rejected]
base_url = "{url}"
model_name = "weak"
rate_limit_per_minute = 0

[models.judge]
enabled = {judge}
base_url = "{url}"
model_name = "critic"
rate_limit_per_minute = 0
"""

Figures = dict[str, Any]
PROGRAM = (sys.executable, "-c", "import sys; from flows.commands.app import main; sys.exit(main())")


def main() -> None:
    """Run the cases that the command line names, print a table, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000])
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument(
        "--length", type=float, default=1.0, help="answers are so many times as long as usual"
    )
    parser.add_argument("--mode", choices=["sft", "dpo", "kto", "mo-dpo"], default="dpo")
    parser.add_argument("--no-checkpoints", action="store_true")
    parser.add_argument("--commands", action="store_true", help="also time the commands over a session")
    parser.add_argument("--json", type=Path, default=Path("benchmark.json"), help="where the figures go")
    options = parser.parse_args()
    results = []
    print(HEADER)
    for pairs in options.pairs:
        for figures in measure(pairs, options):
            results.append(figures)
            print(line(figures), flush=True)
    for figures in results:
        if "commands" in figures:
            size = f"{figures['ledger_bytes_a_pair']:,.0f} bytes a pair in the ledger"
            print(f"\n{figures['pairs']:,} pairs, {size}")
            print("\n| command | s | CPU s | peak MB |\n|:--|--:|--:|--:|")
            for name, of in figures["commands"].items():
                took = f"{of['seconds']:.1f} | {of['cpu_seconds']:.1f} | {of['peak_memory_mb']:.0f}"
                print(f"| {name} | {took} |")
    document = {"machine": machine(), "results": results}
    options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{document['machine']}; figures in {options.json}")


def measure(pairs: int, options: argparse.Namespace) -> list[Figures]:
    """The figures of a first run and of its complete re-run."""
    with tempfile.TemporaryDirectory() as folder, server(options.latency_ms, options.length) as url:
        prompts = min(PROMPTS_PER_SUBTOPIC, pairs)
        config = Path(folder) / "config.toml"
        text = CONFIG.format(
            subtopics=-(-pairs // prompts),
            prompts=prompts,
            concurrency=options.concurrency,
            mode=options.mode,
            checkpoints="false" if options.no_checkpoints else "true",
            judge="true" if options.mode == "mo-dpo" else "false",
            folder=Path(folder) / "output",
            url=url,
        )
        config.write_text(text, encoding="utf-8")
        common = {"pairs": pairs, "concurrency": options.concurrency, "latency_ms": options.latency_ms}
        found = [common | {"run": name} | run(config, url) for name in ("first", "again")]
        if options.commands:
            found[0]["commands"] = commands(config, Path(folder) / "output")
            found[0]["ledger_bytes_a_pair"] = (Path(folder) / "output" / "ledger.db").stat().st_size / pairs
        return found


def commands(config: Path, output: Path) -> dict[str, Figures]:
    """What each command over a session takes: seconds, CPU seconds, and its peak memory in MB."""
    first, second = sorted(folder.name for folder in output.glob("session_*"))
    wanted = {
        "inspect": ["checkpoint", "inspect", first],
        "diff": ["checkpoint", "diff", first, second],
        "lint": ["lint", first],
        "report": ["report", first],
        "export trl": ["export", first, "--format", "trl", "--into", str(output / "exported")],
        "archive": ["checkpoint", "export", first, "--to", str(output / "moved.zip")],
    }
    found = {}
    for name, words in wanted.items():
        began = time.monotonic()
        process = subprocess.Popen([*PROGRAM, *words, "--config", str(config)], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"{name} ended with {status}"
        process.returncode = 0
        found[name] = {
            "seconds": time.monotonic() - began,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_memory_mb": usage.ru_maxrss / 1024,
        }
    return found


@contextmanager
def server(latency_ms: float, length: float = 1.0) -> Iterator[str]:
    """The demo model server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "tasks.core.demo.server", "--port", "0", "--with-parent"]
    command += ["--latency-ms", str(latency_ms), "--length", str(length)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def run(config: Path, url: str) -> Figures:
    """One run of the command line: its summary's figures, and what surrounds them, in seconds."""
    command = [sys.executable, "-m", "flows.generate", "--config", str(config), "--json"]
    # Whatever server the environment names, the figures are those of the embedded one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    before = len(requests(url))
    began = time.monotonic()
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    ended = time.monotonic()
    summary: Figures = json.loads(process.stdout)
    # The clock is one for all processes of a machine.
    made = requests(url)[before:]
    first, last = (
        (min(each["arrived"] for each in made), max(each["ended"] for each in made)) if made else (0, 0)
    )
    around = {"start_seconds": first - began, "end_seconds": ended - last} if made else {}
    return summary | around | {"process_seconds": ended - began}


def requests(url: str) -> list[dict[str, Any]]:
    """The requests that the model server has had."""
    with urlopen(url.removesuffix("/v1") + "/requests") as answer:  # noqa: S310 - of loopback
        found: list[dict[str, Any]] = json.load(answer)
        return found


COLUMNS = (
    "pairs",
    "concurrency",
    "latency",
    "run",
    "start s",
    "subtopics s",
    "prompts s",
    "pairs s",
    "finish s",
    "all s",
    "end s",
    "process s",
    "pairs/s",
    "CPU ms a pair",
    "peak MB",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'|'.join(':--' if name == 'run' else '--:' for name in COLUMNS)}|"


def line(figures: Figures) -> str:
    """A case as a row of the table."""
    phases = figures["phase_seconds"]
    finish = figures["seconds"] - sum(phases.values())
    cells = [
        f"{figures['pairs']:,}",
        f"{figures['concurrency']:,}",
        f"{figures['latency_ms']:g} ms",
        figures["run"],
        shown(figures, "start_seconds"),
        *(f"{phases[phase]:.1f}" for phase in ("subtopics", "prompts", "pairs")),
        f"{finish:.1f}",
        f"{figures['seconds']:.1f}",
        shown(figures, "end_seconds"),
        shown(figures, "process_seconds"),
        f"{figures['pairs'] / figures['seconds']:,.0f}",
        f"{1000 * figures['cpu_seconds'] / figures['pairs']:.2f}",
        f"{figures['peak_memory_mb']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def shown(figures: Figures, name: str) -> str:
    """One figure; nothing where a run asked for nothing."""
    return f"{figures[name]:.1f}" if name in figures else ""


def machine() -> str:
    """The machine in one line."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()

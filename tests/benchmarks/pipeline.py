"""How fast the pipeline is: `python -m tests.benchmarks.pipeline --pairs 10000 --concurrency 256`.

Each case runs the command line in a process of its own against the demo model server in another, first
with an empty ledger and then again with the full one. Figures are the program's own (`--json`): wall time
of each phase, CPU time of the client process while it worked, its peak memory; starting Prefect's server
is not in them. Nothing is asserted.
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
from pathlib import Path
from typing import Any

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


def main() -> None:
    """Run the cases that the command line names, print a table, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000])
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--mode", choices=["sft", "dpo", "kto", "mo-dpo"], default="dpo")
    parser.add_argument("--no-checkpoints", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("benchmark.json"), help="where the figures go")
    options = parser.parse_args()
    results = []
    print(HEADER)
    for pairs in options.pairs:
        for figures in measure(pairs, options):
            results.append(figures)
            print(line(figures), flush=True)
    document = {"machine": machine(), "results": results}
    options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{document['machine']}; figures in {options.json}")


def measure(pairs: int, options: argparse.Namespace) -> list[Figures]:
    """The figures of a first run and of its complete re-run."""
    with tempfile.TemporaryDirectory() as folder, server(options.latency_ms) as url:
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
        return [common | {"run": name} | run(config) for name in ("first", "again")]


class server:  # noqa: N801 - used as a context manager, like a function
    """The demo model server in a process of its own; gives its base URL."""

    def __init__(self, latency_ms: float) -> None:
        command = [sys.executable, "-m", "tasks.core.demo.server", "--port", "0", "--with-parent"]
        self._command = [*command, "--latency-ms", str(latency_ms)]

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def run(config: Path) -> Figures:
    """One run of the command line: its summary's figures, and the wall time of the whole process."""
    command = [sys.executable, "-m", "flows.generate", "--config", str(config), "--json"]
    began = time.monotonic()
    # Whatever server the environment names, the figures are those of the embedded one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    summary: Figures = json.loads(process.stdout)
    return summary | {"process_seconds": time.monotonic() - began}


HEADER = (
    "| pairs | concurrency | latency | run | subtopics s | prompts s | pairs s | finish s | all s "
    "| pairs/s | CPU ms a pair | peak MB |\n|--:|--:|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def line(figures: Figures) -> str:
    """A case as a row of the table."""
    phases = figures["phase_seconds"]
    finish = figures["seconds"] - sum(phases.values())
    cells = [
        f"{figures['pairs']:,}",
        f"{figures['concurrency']:,}",
        f"{figures['latency_ms']:g} ms",
        figures["run"],
        *(f"{phases[phase]:.1f}" for phase in ("subtopics", "prompts", "pairs")),
        f"{finish:.1f}",
        f"{figures['seconds']:.1f}",
        f"{figures['pairs'] / figures['seconds']:,.0f}",
        f"{1000 * figures['cpu_seconds'] / figures['pairs']:.2f}",
        f"{figures['peak_memory_mb']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """The machine in one line."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()

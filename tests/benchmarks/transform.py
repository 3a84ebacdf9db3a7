"""What memory a transform needs: `python -m tests.benchmarks.transform --rows 20000 200000`.

Each case runs `vellumforge2 transform` in a process of its own against the demo model server in another;
peak memory and CPU time are those that its summary gives. Memory must not grow with the input. With
`--again`, each case is run a second time, with everything in the ledger. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.lint import WORDS
from tests.benchmarks.pipeline import machine, server

CONFIG = """
[generation]
main_topic = "What a benchmark asks"
num_subtopics = 1
num_prompts_per_subtopic = 1
concurrency = {concurrency}

[output]
folder = "{folder}"

[models.main]
base_url = "{url}"
model_name = "strong"
rate_limit_per_minute = 0
max_output_tokens = 64

[models.rejected]
base_url = "{url}"
model_name = "weak"
rate_limit_per_minute = 0
max_output_tokens = 64
"""

HEADER = "| rows | input MB | run | all s | rows/s | CPU ms a row | peak MB |\n|--:|--:|:--|--:|--:|--:|--:|"


def main() -> None:
    """Run the cases that the command line names, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl")
    parser.add_argument("--again", action="store_true", help="a second run, from the ledger")
    options = parser.parse_args()
    print(HEADER)
    peaks: dict[str, list[float]] = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder, server(0.0) as url:
            where = Path(folder)
            path = where / f"input.{options.format}"
            write(path, rows)
            text = CONFIG.format(concurrency=options.concurrency, folder=where / "output", url=url)
            (where / "config.toml").write_text(text, encoding="utf-8")
            for name in ("first", "again") if options.again else ("first",):
                found = run(where, path)
                assert found["rows"] == rows
                peaks.setdefault(name, []).append(found["peak_memory_mb"])
                megabytes = path.stat().st_size / 1e6
                print(
                    f"| {rows:,} | {megabytes:,.0f} | {name} | {found['process_seconds']:.1f} "
                    f"| {rows / found['seconds']:,.0f} | {1000 * found['cpu_seconds'] / rows:.2f} "
                    f"| {found['peak_memory_mb']:.0f} |",
                    flush=True,
                )
    for name, needed in peaks.items():
        print(f"{name}: the last needs {needed[-1] / needed[0]:.2f} times the memory of the first")
    print(machine())


def write(path: Path, rows: int) -> None:
    """Write rows of sft of about a kilobyte each."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in made(rows))
        return
    import pyarrow as pa  # noqa: PLC0415 - only where it is wanted
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = pa.schema([("instruction", pa.string()), ("output", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 10_000):
            some = list(made(min(10_000, rows - start), start))
            writer.write_table(pa.Table.from_pylist(some, schema))


def made(rows: int, start: int = 0) -> Any:
    """The rows, one at a time."""
    chance = random.Random(start)
    for number in range(start, start + rows):
        prompt = f"Task {number}: {' '.join(chance.choices(WORDS, k=20))}"
        yield {"instruction": prompt, "output": " ".join(chance.choices(WORDS, k=150)) + "."}


def run(folder: Path, path: Path) -> dict[str, Any]:
    """One run of the command: its summary's figures, and the wall time of the whole process."""
    words = "import sys; from flows.commands.app import main; sys.exit(main())"
    command = [sys.executable, "-c", words, "transform", "--mode", "sft-to-dpo", "--json"]
    command += ["--config", str(folder / "config.toml")]
    command += ["--input", str(path), "--output", str(folder / "out.jsonl")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    began = time.monotonic()
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    summary: dict[str, Any] = json.loads(process.stdout)
    return summary | {"process_seconds": time.monotonic() - began}


if __name__ == "__main__":
    main()

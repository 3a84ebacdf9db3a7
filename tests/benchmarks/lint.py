"""What lint costs: `python -m tests.benchmarks.lint --pairs 10000`.

CPU time of this process for a file of judged pairs of some three thousand characters a side, with typography
beyond ASCII; its peak memory. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.lint.linter import lint_file

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = (
    "the keeper of a lighthouse wrote down what had been seen that night and nobody believed it until "
    "\N{LEFT DOUBLE QUOTATION MARK}ships came\N{RIGHT DOUBLE QUOTATION MARK} home \N{EN DASH} though "
    "it\N{RIGHT SINGLE QUOTATION MARK}s never quite so simple on the island without their crews"
)
WORDS = TEXT.split()


def main() -> None:
    """Lint files of the sizes that the command line names, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000])
    options = parser.parse_args()
    print("| pairs | MB | CPU s | CPU ms a pair | peak MB |\n|--:|--:|--:|--:|--:|")
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dataset.jsonl"
            write(path, pairs)
            began = time.process_time()
            report = lint_file(path, max_tokens=4096)
            seconds = time.process_time() - began
            assert report.samples == pairs
            size = path.stat().st_size / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"| {pairs:,} | {size:,.0f} | {seconds:.2f} | {1000 * seconds / pairs:.3f} | {peak:.0f} |",
            flush=True,
        )


def write(path: Path, pairs: int, prompts: Sequence[str] = ()) -> None:
    """Write a file of judged pairs, with prompts of random words where none are given."""
    chance = random.Random(pairs)
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            sides = [
                "\n\n".join(" ".join(chance.choices(WORDS, k=60)).capitalize() + "." for _ in range(9))
                for _ in range(2)
            ]
            words = f"Prompt {number}: {' '.join(chance.choices(WORDS, k=20))}"
            row = {"prompt": prompts[number] if prompts else words}
            row |= {"chosen": sides[0], "rejected": sides[1]}
            totals = {
                "chosen_score_total": chance.uniform(3, 5),
                "rejected_score_total": chance.uniform(1, 4),
            }
            file.write(json.dumps(row | totals, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""What a report costs: `python -m tests.benchmarks.report --pairs 10000`.

CPU time of this process for the report of a file of judged pairs of some 3,000 characters a side, its
peak memory, and the size of the page. Lint, which a run has done before, comes first and is not in that
time. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from tasks.core.lint.linter import lint_file
from tasks.core.report.page import write_report
from tests.benchmarks.lint import write
from tests.core.report.made import facts, judged_rows


def main() -> None:
    """Make reports of files of the sizes that the command line names, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10, 10_000])
    options = parser.parse_args()
    print("| pairs | MB | CPU s | CPU ms a pair | peak MB | page KB |\n|--:|--:|--:|--:|--:|--:|")
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "dataset.jsonl"
            write(path, pairs)
            lint = lint_file(path)
            began = time.process_time()
            report = write_report(folder, facts(judged_rows(4)), lint)
            seconds = time.process_time() - began
            size, page = path.stat().st_size / 1e6, report.stat().st_size / 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        each = 1000 * seconds / pairs
        print(
            f"| {pairs:,} | {size:,.0f} | {seconds:.2f} | {each:.3f} | {peak:.0f} | {page:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()

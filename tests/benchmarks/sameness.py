"""What finding near-duplicates takes: `python -m tests.benchmarks.sameness`.

CPU time of this process for 5,000 prompts with 200 near-duplicates planted among them, by threshold, with the
share that is found and the share of other prompts taken for one. Then prompts that are made from one
template: CPU time and memory by their number, and the share of those that is found of which one word was
changed. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from tasks.core.sameness import Sieve
from tests.core.near_duplicates import (
    PLANTED,
    PROMPTS,
    TEMPLATES,
    THRESHOLD,
    found_and_false,
    from_template,
    planted_prompts,
)

SIZES = (1_000, 2_000, 4_000, 10_000, 100_000)


def main() -> None:
    """Look for what is planted, and print a row of a table for each threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.8, 0.7, 0.6])
    parser.add_argument("--from-template", type=int, nargs="*", default=SIZES)
    options = parser.parse_args()
    prompts, planted = planted_prompts(0)
    print(f"{PROMPTS:,} prompts, {PLANTED} of them planted")
    print("| threshold | found | false | CPU s |\n|--:|--:|--:|--:|")
    for threshold in options.thresholds:
        began = time.process_time()
        found, false = found_and_false(prompts, planted, threshold)
        seconds = time.process_time() - began
        print(f"| {threshold:.2f} | {found:.1%} | {false:.2%} | {seconds:.2f} |", flush=True)
    print("\n| template | prompts | kept | found | CPU s | CPU us a prompt | MB |")
    print("|:--|--:|--:|--:|--:|--:|--:|")
    for kind in TEMPLATES:
        for count in options.from_template:
            prompts, planted = from_template(kind, count, 0)
            before, began = _memory(), time.process_time()
            sieve = Sieve(THRESHOLD)
            kept = len(sieve.fresh(prompts))
            seconds, taken = time.process_time() - began, _memory() - before
            found = 1 - len(sieve.fresh(planted)) / len(planted)
            each = 1e6 * seconds / count
            print(
                f"| {kind} | {count:,} | {kept:,} | {found:.1%} | {seconds:.2f} | {each:.0f} | {taken:.0f} |",
                flush=True,
            )


def _memory() -> float:
    """What this process has in memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    main()

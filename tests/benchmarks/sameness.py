"""What finding near-duplicates takes: `python -m tests.benchmarks.sameness`.

CPU time of this process for 5,000 prompts with 200 near-duplicates planted among them, by threshold, with the
share that is found and the share of other prompts taken for one. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time

from tests.core.near_duplicates import PLANTED, PROMPTS, found_and_false, planted_prompts


def main() -> None:
    """Look for what is planted, and print a row of a table for each threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.8, 0.7, 0.6])
    options = parser.parse_args()
    prompts, planted = planted_prompts(0)
    print(f"{PROMPTS:,} prompts, {PLANTED} of them planted")
    print("| threshold | found | false | CPU s |\n|--:|--:|--:|--:|")
    for threshold in options.thresholds:
        began = time.process_time()
        found, false = found_and_false(prompts, planted, threshold)
        seconds = time.process_time() - began
        print(f"| {threshold:.2f} | {found:.1%} | {false:.2%} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()

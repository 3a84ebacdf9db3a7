"""What a report costs: `python -m tests.benchmarks.report --pairs 10000`.

CPU time of this process for the report of a file of judged pairs of some 3,000 characters a side, how much
of that is for subtopics and the most alike prompts, its peak memory, and the size of the page. The dataset is
read, and looked at by lint, before; that has a column of its own. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.demo.text import Kind, list_items
from tasks.core.models import Job
from tasks.core.report.page import Review, write_report
from tasks.core.report.tally import cover, find_alike
from tests.benchmarks.lint import write
from tests.core.report.made import facts, judged_rows

if TYPE_CHECKING:
    from tasks.core.report.tally import ReportFacts


def main() -> None:
    """Make reports of files of the sizes that the command line names, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10, 10_000])
    options = parser.parse_args()
    print(
        "| pairs | MB | read CPU s | CPU s | of it alike | CPU ms a pair | peak MB | page KB |\n"
        + "|--:" * 8
        + "|"
    )
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "dataset.jsonl"
            known = made_facts(pairs)
            write(path, pairs, [job.prompt for job in known.jobs])
            began = time.process_time()
            review = Review(folder, known.jobs)
            review.go_on()
            read = time.process_time() - began
            began = time.process_time()
            report = write_report(folder, known, review)
            seconds = time.process_time() - began
            tally = review.tally()
            began = time.process_time()
            cover(known, tally)
            find_alike([job.prompt for job in tally.kept])
            alike = time.process_time() - began
            size, page = path.stat().st_size / 1e6, report.stat().st_size / 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        each, times = 1000 * seconds / pairs, f"{read:.2f} | {seconds:.2f} | {alike:.2f}"
        print(f"| {pairs:,} | {size:,.0f} | {times} | {each:.3f} | {peak:.0f} | {page:.0f} |", flush=True)


def made_facts(pairs: int) -> ReportFacts:
    """What is known of a session of so many prompts, 20 of a subtopic, as the demo model writes them."""
    jobs: list[Job] = []
    while len(jobs) < pairs:
        name = f"subtopic {len(jobs) // 20}"
        prompts = list_items(Kind.PROMPTS, name, min(20, pairs - len(jobs)), name.encode())
        jobs += [Job(len(jobs) + place, "Lighthouses", name, prompt) for place, prompt in enumerate(prompts)]
    shares = Counter(job.sub_topic for job in jobs)
    return facts(judged_rows(4), jobs=jobs, subtopics=list(shares), shares=shares, wanted=pairs)


if __name__ == "__main__":
    main()

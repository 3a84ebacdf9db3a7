"""What a run came to, for people."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.cost import Payment, cost_document
from tasks.core.export.rows import TRL
from tasks.core.generation.losses import what_helps
from tasks.core.models import UNUSABLE, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.core.generation.run import Run
    from tasks.core.generation.waves import Made
    from tasks.core.session.session import Session

NO_MORE = "the model had no more that are new"

FIRST_ROW_LENGTH = 600
"""Characters of the first row that are shown."""


@dataclass(frozen=True, slots=True)
class Summary(Payment):
    """The numbers of a finished run.

    Attributes:
        folder: The session folder.
        mode: The dataset mode.
        rows: Rows in the dataset.
        jobs: Prompts that were answered, or should have been.
        wanted: Pairs that the configuration asks for.
        kept: Pairs that there are.
        lost: Prompts that yielded no usable pair, by cause, the most frequent first:
            jobs = kept + lost + failures where only jobs failed.
        dropped: Prompts that were left out before they were answered, as `duplicate` or `near_duplicate`.
        missing: Pairs that are wanted and for which there is no prompt.
        refused: Questions that a server refuses for good, where pairs are missing; a resume asks them again.
        unreadable: Subtopics that were answered without a list of prompts, where pairs are missing.
        spent: Whether that is because max_prompts_per_pair is reached.
        failures: Things that failed in this run and may come about in the next, subtopics and jobs.
        causes: The same by cause, the most frequent first.
        truncated: Chosen answers that stopped at the token limit.
        seconds: Wall time, from the first question to the finished files.
        phase_seconds: Wall time of each phase.
        cpu_seconds: CPU time of this process meanwhile.
        peak_memory_mb: The most memory that this process held so far, in MB.
        first_row: The dataset's first row as JSON, "" when there is none.
        usd: The same in US dollars, or None.
        calls_of_unknown_price: Calls of this run that `usd` does not hold, or not wholly.
        session: What all runs of the session paid for, as `Bill.document` gives it.
        session_cost: Its cost in words, or "".
        lint: What lint found in the dataset, as `Report.figures` gives it; empty when it was not looked at.
        lint_line: All its findings on one line, or "".
        report: The page about the dataset, or "" where it was not written.
        left_out: What the models were found not to take, each in one line.
        exported: The rows of each configuration that was written for trainers; empty without that format.
        opinions: How often judges agree, as `Opinions.document` gives it; empty where there is one opinion.
        opinion_lines: The same in words.
        example: A prompt that yielded no usable pair because its answers cannot be used, with the last of
            them, on one line; "" when there is none.
    """

    folder: str
    mode: str
    rows: int
    jobs: int
    wanted: int
    kept: int
    lost: Mapping[str, int]
    dropped: Mapping[str, int]
    missing: int
    refused: int
    unreadable: int
    spent: bool
    failures: int
    causes: Mapping[str, int]
    truncated: int
    seconds: float
    phase_seconds: Mapping[str, float]
    cpu_seconds: float
    checkpoint_cpu_seconds: float
    peak_memory_mb: float
    first_row: str
    usd: float | None
    calls_of_unknown_price: int
    session: Mapping[str, Any]
    session_cost: str
    lint: Mapping[str, Any]
    lint_line: str
    report: str
    exported: Mapping[str, int]
    example: str = ""
    left_out: Sequence[str] = ()
    opinions: Mapping[str, int] = field(default_factory=dict)
    opinion_lines: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether as many pairs as are wanted came about or, where nothing is replaced, were kept out."""
        return not self.failures and not self.missing

    @property
    def tries_used_up(self) -> bool:
        """Whether all that is missing are answers that cannot be used, with every allowed try paid for.

        A resume would read the same ones; a retry asks for further ones.
        """
        if self.failures:
            return UNUSABLE.issuperset(self.causes)
        return self.missing > 0 and bool(self.unreadable or not UNUSABLE.isdisjoint(self.lost))

    def shortfall(self) -> str:
        """Why the run is not complete, in one line."""
        missing = [f"{_counted(self.failures, 'failure')} ({in_words(self.causes)})"] if self.failures else []
        if self.spent:
            missing.append(
                f"{self.kept:,} of {_counted(self.wanted, 'pair')} after {self.jobs:,} prompts, as many as "
                "generation.max_prompts_per_pair allows; raise it and resume"
            )
        elif self.missing:
            why = "" if self.failures else f" ({self._why()})"
            missing.append(f"{_counted(self.missing, 'prompt')} of {self.wanted:,} missing{why}")
        written = f"{_counted(self.rows, 'row')} {'is' if self.rows == 1 else 'are'} written"
        parts = [f"finished with {' and '.join(missing)}", written, *self._advice()]
        return "; ".join(parts)

    def _advice(self) -> list[str]:
        """What helps where every allowed try brought an answer that cannot be used, with one of them."""
        if not self.tries_used_up:
            return []
        cause = next((cause for cause in (*self.causes, *self.lost) if cause in UNUSABLE), "no_list")
        parts = ["every try that max_retries allows is paid for, and cannot be used"]
        parts += [f"for example {self.example}"] if self.example else []
        return parts + [f"what helps: {words}" for words in [what_helps(cause)] if words]

    def lines(self) -> list[str]:
        """The summary as lines of text, the numbers first."""
        rows = _counted(self.rows, "row")
        lines = [f"{rows} ({self.mode}) in {self.seconds:.1f} s: {self.folder}/dataset.jsonl"]
        lines.append(self.payment("run with --fresh for other answers to the same questions"))
        if (calls := self.session["calls"]) > self.paid:
            money = f": {self.session_cost}" if self.session_cost else ""
            lines.append(f"the session paid for {calls:,} calls in all its runs{money}")
        lines += self.left_out
        lines += self._losses()
        lines += self.opinion_lines
        if self.truncated:
            lines.append(
                f"{self.truncated:,} chosen answers stop at the token limit; a higher max_output_tokens helps"
            )
        if self.failures:
            lines.append(f"{_counted(self.failures, 'failure')}, listed in {self.folder}/session.log")
        if self.missing and not self.spent:
            lines.append(f"{self.wanted - self.missing:,} prompts of {self.wanted:,}: {self._why()}")
        if self.exported:
            lines.append(f"for trainers: {self.folder}/{TRL} ({in_words(self.exported)} rows)")
        if self.lint_line:
            lines.append(f"{self.lint_line}; see vellumforge2 lint {Path(self.folder).name}")
        if self.report:
            lines.append(f"to look at, in a browser: {self.report}")
        return lines

    def _why(self) -> str:
        """Why prompts are missing."""
        if self.refused:
            return f"{_counted(self.refused, 'question')} refused; a resume asks again"
        if self.unreadable:
            return f"{_counted(self.unreadable, 'subtopic')} answered without a list of prompts"
        return "requests for others failed" if self.failures else NO_MORE

    def _losses(self) -> list[str]:
        """The prompts that yielded no usable pair, and why; the duplicates."""
        lines = []
        if self.lost:
            lost = sum(self.lost.values())
            asked = f"{self.jobs:,} prompts for {self.kept:,} pairs"
            lines.append(f"{asked}: {lost:,} yielded none ({in_words(self.lost)})")
        if self.dropped:
            lines.append(f"{in_words(self.dropped)} prompts were left out")
        return lines

    def excerpt(self) -> str:
        """The first row, cut to a readable length."""
        cut = len(self.first_row) > FIRST_ROW_LENGTH
        return self.first_row[:FIRST_ROW_LENGTH] + ("…" if cut else "")


def _example(run: Run) -> str:
    unusable = [loss for cause, loss in run.losses.examples.items() if cause in UNUSABLE]
    return unusable[0].example() if unusable else ""


def in_words(causes: Mapping[str, int]) -> str:
    """Numbers by cause as text: `2 timeout, 1 refused`."""
    return ", ".join(f"{count:,} {cause}" for cause, count in causes.items())


def _counted(number: int, word: str) -> str:
    """The number with its word: 1 row, 2 rows."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


class Stopwatch:
    """Wall and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds of wall time and of CPU time."""
        return time.monotonic() - self._wall, time.process_time() - self._cpu


def missing_from(run: Run, made: Made, *, taken_over: bool) -> int:
    """Pairs that are wanted and for which there is no prompt."""
    if taken_over:
        return 0
    lost = sum(made.lost.values()) if run.policy.replaces else 0
    return max(0, run.config.generation.wanted_pairs - len(made.jobs) + lost)


def is_complete(run: Run, made: Made, *, taken_over: bool) -> bool:
    """Whether a session has all its rows, or nothing more can come: the models had no more prompts.

    What failed, or was refused, may come about when it is asked again, and a retry asks for further answers
    in place of those that cannot be used.
    """
    if run.progress.failures or made.exhausted:
        return False
    return not ((made.refusals or made.unusable) and missing_from(run, made, taken_over=taken_over))


def summarize(
    run: Run,
    session: Session,
    made: Made,
    watch: Stopwatch,
    *,
    taken_over: bool = False,
) -> Summary:
    """The summary of a run whose session is finished.

    Args:
        run: The run.
        session: Its session.
        made: What came of its jobs.
        watch: Started with the run.
        taken_over: Whether the jobs came from elsewhere: then they are all that is wanted.
    """
    generation = run.config.generation
    progress, budget = run.progress, run.budget
    cost, usage = budget.run.cost(budget.prices), budget.run.usage()
    wanted = len(made.jobs) if taken_over else generation.wanted_pairs
    missing = missing_from(run, made, taken_over=taken_over)
    progress.begin(Phase.COMPLETE, 0)
    wall, cpu = watch.read()
    return Summary(
        folder=str(session.folder),
        mode=generation.dataset_mode,
        rows=progress.rows,
        jobs=len(made.jobs),
        wanted=wanted,
        kept=made.kept,
        lost=made.lost,
        dropped=made.dropped,
        missing=missing,
        refused=made.refusals if missing else 0,
        unreadable=made.unreadable if missing else 0,
        spent=made.exhausted,
        failures=progress.failures,
        causes=dict(progress.causes.most_common()),
        truncated=progress.truncated,
        opinions=progress.opinions.document(),
        opinion_lines=progress.opinions.lines(),
        paid=progress.paid.total(),
        reused=progress.reused.total(),
        prompt_tokens=progress.prompt_tokens,
        completion_tokens=progress.completion_tokens,
        unreported=usage.unreported,
        estimated_tokens=usage.estimated_tokens,
        seconds=wall,
        phase_seconds={str(phase): seconds for phase, seconds in progress.seconds.items()},
        cpu_seconds=cpu,
        checkpoint_cpu_seconds=session.checkpoint.cpu_seconds,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        first_row=session.dataset.first_row(),
        cost=cost.in_words,
        **cost_document(cost),
        session=budget.session.document(budget.prices),
        session_cost=budget.session.cost(budget.prices).in_words,
        lint=session.lint.figures() if session.lint else {},
        lint_line=session.lint.brief() if session.lint else "",
        report=str(session.report) if session.report else "",
        exported=session.exported.rows if session.exported else {},
        example=_example(run),
        left_out=run.gateway.left_out if run.gateway else (),
    )

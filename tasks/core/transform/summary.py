"""What a transform came to, for people."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.cost import Payment, cost_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.run import Run
    from tasks.core.transform.modes import Mode
    from tasks.core.transform.session import TransformSession

FIRST_ROW_LENGTH = 600
"""Characters of the first row that are shown."""


@dataclass(frozen=True, slots=True)
class TransformSummary(Payment):
    """The numbers of a finished transform.

    Attributes:
        folder: The session folder.
        mode: The mode.
        outputs: The files that were written.
        rows: Rows that were written.
        wanted: Rows of the input.
        skipped: Lines that were left out.
        failures: Rows that failed for good.
        causes: The same by cause, the most frequent first.
        truncated: Chosen answers that stopped at the token limit.
        seconds: Wall time.
        cpu_seconds: CPU time of this process meanwhile.
        peak_memory_mb: The most memory that this process held so far, in MB.
        first_row: The first row as JSON, "" when there is none.
        usd: The same in US dollars, or None.
        calls_of_unknown_price: Calls of this run that `usd` does not hold, or not wholly.
        session: What the run paid for, as `Bill.document` gives it.
    """

    folder: str
    mode: str
    outputs: tuple[str, ...]
    rows: int
    wanted: int
    skipped: int
    failures: int
    causes: Mapping[str, int]
    truncated: int
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    first_row: str
    usd: float | None
    calls_of_unknown_price: int
    session: Mapping[str, Any]

    @property
    def complete(self) -> bool:
        """Whether every row of the input became one."""
        return not self.failures

    def shortfall(self) -> str:
        """Why the transform is not complete, in one line."""
        causes = ", ".join(f"{count:,} {cause}" for cause, count in self.causes.items())
        return f"{self.failures:,} of {self.wanted:,} rows failed ({causes}); the others are written"

    def lines(self) -> list[str]:
        """The summary as lines of text, the numbers first."""
        lines = [f"{self.rows:,} of {self.wanted:,} rows ({self.mode}) in {self.seconds:.1f} s:"]
        lines[0] += f" {' and '.join(self.outputs)}"
        lines.append(self.payment("--set generation.seed=1 asks for others"))
        if self.skipped:
            lines.append(f"{self.skipped:,} bad lines were skipped, listed in {self.folder}/skipped.jsonl")
        if self.truncated:
            lines.append(
                f"{self.truncated:,} chosen answers stop at the token limit; a higher max_output_tokens helps"
            )
        if self.failures:
            lines.append(f"{self.failures:,} failures, listed in {self.folder}/session.log")
        return lines

    def excerpt(self) -> str:
        """The first row, cut to a readable length."""
        cut = len(self.first_row) > FIRST_ROW_LENGTH
        return self.first_row[:FIRST_ROW_LENGTH] + ("…" if cut else "")


def summarize_transform(
    run: Run,
    session: TransformSession,
    mode: Mode,
    *,
    outputs: list[str],
    wanted: int,
    taken: tuple[float, float],
) -> TransformSummary:
    """The summary of a transform whose files are written.

    Args:
        run: The run.
        session: Its session.
        mode: Its mode.
        outputs: The files that were written.
        wanted: Rows of the input.
        taken: Seconds of wall time and of CPU time.
    """
    progress, budget = run.progress, run.budget
    cost, usage = budget.run.cost(budget.prices), budget.run.usage()
    return TransformSummary(
        folder=str(session.folder),
        mode=mode.name,
        outputs=tuple(outputs),
        rows=progress.rows,
        wanted=wanted,
        skipped=session.skipped,
        failures=progress.failures,
        causes=dict(progress.causes.most_common()),
        truncated=progress.truncated,
        paid=progress.paid.total(),
        reused=progress.reused.total(),
        prompt_tokens=progress.prompt_tokens,
        completion_tokens=progress.completion_tokens,
        unreported=usage.unreported,
        estimated_tokens=usage.estimated_tokens,
        seconds=taken[0],
        cpu_seconds=taken[1],
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        first_row=session.first_row(),
        cost=cost.in_words,
        **cost_document(cost),
        session=budget.session.document(budget.prices),
    )

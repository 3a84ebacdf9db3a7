"""What a transform came to, and what of it is paid for, found without asking any model."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import MutableSet
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.cost import Payment, cost_document
from tasks.core.forecast.survey import Survey, SurveyRun
from tasks.core.transform.reading import MOST_ROWS, in_blocks
from tasks.core.transform.session import Transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from tasks.core.config.settings import Config
    from tasks.core.generation.run import Run
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.rows.transformed import Mode
    from tasks.core.transform.reading import Source
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


async def survey_rows(config: Config, source: Source, ledger: Ledger) -> Survey:
    """Do the work of a transform as far as it is paid for; nothing is asked, paid for or kept.

    Args:
        config: The configuration, with the settings of the mode.
        source: The input; its bad lines are passed over.
        ledger: The ledger.

    Returns:
        The counts. Rows that ask the same are one call, however far apart they stand; a call that follows
        from an answer that is not there yet is not counted. Keys are not handed out.

    Raises:
        UsageError: The input cannot be read.
        LedgerError: The ledger cannot be read.
    """
    with ExitStack() as stack:
        found = Survey(keys=stack.enter_context(KeysOnDisk()), missing=stack.enter_context(KeysOnDisk()))
        work = Transform(SurveyRun(config, ledger, found), source.mode)
        blocks = in_blocks(source.read(), MOST_ROWS, lambda _: None)
        while rows := await asyncio.to_thread(next, blocks, None):
            await work.work(rows)
            found.failures.clear()
    found.keys, found.missing = set(), set()
    return found


class KeysOnDisk(MutableSet[bytes]):
    """A set of keys in a temporary file of SQLite's: memory must not grow with the input.

    A context manager; the file has no name and is gone on leaving.
    """

    def __init__(self) -> None:
        # A file and not memory, for the name is empty; it is written to when SQLite's cache is full.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID")
        # One transaction for all of it.
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def __contains__(self, key: object) -> bool:
        return self._database.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone() is not None

    def __iter__(self) -> Iterator[bytes]:
        for (key,) in self._database.execute("SELECT key FROM keys"):
            yield key

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT count(*) FROM keys").fetchone()[0]
        return count

    def add(self, value: bytes) -> None:
        """Put a key in, if it is not there."""
        self._database.execute("INSERT OR IGNORE INTO keys VALUES (?)", (value,))

    def discard(self, value: bytes) -> None:
        """Take a key out, if it is there."""
        self._database.execute("DELETE FROM keys WHERE key = ?", (value,))

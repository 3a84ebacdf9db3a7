"""What a run leaves on its page in Prefect: a summary, its failures, its first rows, the way to its session.

The texts of models, servers and users are shown as they are and never read as markup: Prefect's pages read
Markdown. Nothing here speaks to Prefect's server; `flows.pages.run_page` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from prefect.artifacts import LinkArtifact, MarkdownArtifact, TableArtifact

from tasks.core.errors import LedgerError, UnfinishedError
from tasks.core.ledger.failures import last_failures
from tasks.core.lint.report import in_words
from tasks.core.portable.mirror import address
from tasks.core.printable import escaped, shown, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from prefect.artifacts import Artifact

    from flows.setup import OpenRun
    from tasks.core.chat.budget import SessionBudget
    from tasks.core.config.settings import Config
    from tasks.core.lint.report import Report
    from tasks.core.models import Failure
    from tasks.core.progress import Progress

MOST_FAILURES = 100
MOST_ROWS = 10
LONGEST_CELL = 120
"""Characters of a text in a table."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, complete or not.

    Attributes:
        config: Its configuration.
        folder: The session's folder.
        prompts: Prompts that there are.
        progress: The run's counters.
        budget: The accounts of the run and of its session.
        failures: The first of this run's failures.
        rows: The dataset's first rows, as JSON.
        lint: What lint found in the finished dataset, or None.
        report: The page about it, or None.
    """

    config: Config
    folder: Path
    prompts: int
    progress: Progress
    budget: SessionBudget
    failures: Sequence[Failure]
    rows: Sequence[str]
    lint: Report | None = None
    report: Path | None = None


def title(config: Config) -> str:
    """What is generated: `dpo · Fantasy Fiction`."""
    topic = " ".join(config.generation.main_topic.split())
    return f"{config.generation.dataset_mode} · {_cut(topic, 60)}"


async def outcome_of(work: OpenRun, since: float) -> Outcome:
    """What the run has come to, once its session is put in order.

    Args:
        work: The run, still open.
        since: When it began, in seconds since 1970.
    """
    run, session = work.run, work.session
    try:
        failures = await last_failures(run.ledger, run.session, since, MOST_FAILURES)
    except LedgerError:
        failures = []  # what ended the run says so
    try:
        rows = session.dataset.first_rows(MOST_ROWS)
    except OSError:
        rows = []
    return Outcome(
        config=run.config,
        folder=session.folder,
        prompts=len(session.checkpoint.state.jobs),
        progress=run.progress,
        budget=run.budget,
        failures=failures,
        rows=rows,
        lint=session.lint,
        report=session.report,
    )


def artifacts_of(outcome: Outcome, error: BaseException | None) -> list[Artifact]:
    """The artifacts of a run that has ended.

    Args:
        outcome: What it came to.
        error: What ended it, if not its last line.
    """
    name = outcome.folder.name
    made: list[Artifact] = [
        MarkdownArtifact(key="summary", markdown=summary(outcome, error), description=escaped(name))
    ]
    if outcome.failures:
        shown = len(outcome.failures)
        count = f"the first {shown} of {outcome.progress.failures:,}: " if shown == MOST_FAILURES else ""
        made.append(
            TableArtifact(
                key="failures",
                table=[_failure(item) for item in outcome.failures],
                description=escaped(f"{count}what could not be done; Retry asks for it again"),
            )
        )
    if outcome.rows:
        made.append(
            TableArtifact(
                key="first-rows",
                table=_rows(outcome.rows),
                description=escaped(
                    f"the first {len(outcome.rows)} of {outcome.progress.rows:,} rows; {name}"
                ),
            )
        )
    made.append(_link(outcome.folder))
    return made


def summary(outcome: Outcome, error: BaseException | None) -> str:
    """The summary as Markdown."""
    progress, budget = outcome.progress, outcome.budget
    paid = budget.run.usage()
    how = f"**Not complete:** {escaped(str(error) or type(error).__name__)}" if error else "**Complete.**"
    numbers = {
        "rows": f"{progress.rows:,}",
        "prompts": f"{outcome.prompts:,}",
        "pairs kept": f"{progress.kept:,} of {progress.wanted:,}" if progress.wanted else "",
        "failures": f"{progress.failures:,}" if progress.failures or not progress.lost else "",
        "prompts that yielded no usable pair": f"{progress.lost.total():,}" if progress.lost else "",
        "cut at the token limit": f"{progress.truncated:,}" if progress.truncated else "",
        "calls paid for": f"{paid.calls:,}",
        "answers reused from the ledger": f"{progress.reused.total():,}",
        "tokens in": paid.tokens_in,
        "tokens out": paid.tokens_out,
        "tokens not reported": paid.estimate_in_words,
        "cost of this run": budget.run.cost(budget.prices).in_words,
        "cost of the session": budget.session.cost(budget.prices).in_words,
    }
    numbers |= {f"seconds of {phase}": f"{seconds:,.1f}" for phase, seconds in progress.seconds.items()}
    parts = [f"# {escaped(title(outcome.config))}", how]
    parts.append(table(("", ""), [(name, value) for name, value in numbers.items() if value]))
    if progress.lost:
        lost = [(cause, f"{count:,}") for cause, count in progress.lost.most_common()]
        parts += ["## No pair, by cause", table(("cause", "prompts"), lost)]
    if progress.causes:
        causes = [(cause, f"{count:,}") for cause, count in progress.causes.most_common()]
        parts += ["## Failures by cause", table(("cause", "failures"), causes)]
    if outcome.lint is not None and outcome.lint.findings:
        parts += ["## Lint", _lint(outcome.lint)]
    if paid.calls:
        parts += ["## Paid for", _bill(budget)]
    parts += ["## Session", escaped(str(outcome.folder.absolute()))]
    if outcome.report is not None:
        parts.append(f"Report, to be opened in a browser: {escaped(str(outcome.report.absolute()))}")
    if outcome.config.output.mirror:
        parts.append(f"Mirror: {escaped(address(outcome.config.output.mirror, outcome.folder.name))}")
    if isinstance(error, UnfinishedError) and error.tries_used_up:
        parts.append(f"`vellumforge2 retry {outcome.folder.name}` asks for further answers in their place.")
    elif error:
        again = f"vellumforge2 checkpoint resume {outcome.folder.name}"
        parts.append(f"*Retry* asks only for what is missing, and so does `{again}`.")
    return "\n\n".join(parts) + "\n"


def _bill(budget: SessionBudget) -> str:
    """What this run paid for, by model and kind of call."""
    lines = [
        (
            model,
            purpose,
            f"{usage.calls:,}",
            usage.tokens_in,
            usage.tokens_out,
            budget.prices.cost(model, usage).in_words,
        )
        for model, purpose, usage in budget.run
    ]
    return table(("model", "call", "calls", "tokens in", "tokens out", "cost"), lines)


def _lint(report: Report) -> str:
    """What lint found, and what to do about it."""
    found = [(item.check, in_words(item, report.unit), item.advice) for item in report.findings]
    return table(("check", "found", "what to do"), found)


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "item": _cell(failure.item),
        "call": str(failure.purpose),
        "cause": _cell(failure.cause),
        "message": _cell(failure.message),
        "attempts": failure.attempts,
    }


def _rows(lines: Iterable[str]) -> list[dict[str, Any]]:
    return [{name: _cell(value) for name, value in orjson.loads(line).items()} for line in lines]


def _cell(value: Any) -> Any:
    """A value of a table; a text is cut, and what is nested is shown as JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(value if isinstance(value, str) else orjson.dumps(value).decode(), LONGEST_CELL)


def _cut(text: str, most: int) -> str:
    text = shown(text.replace("\0", ""))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _link(folder: Path) -> LinkArtifact:
    """The way to the session's folder."""
    return LinkArtifact(
        key="session",
        link=folder.absolute().as_uri(),
        link_text=folder.name,
        description="the folder, on the machine that ran the flow",
    )

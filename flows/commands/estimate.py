"""The commands that say what a run would cost and bring: `estimate`, `run --dry-run` and `preview`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from contextlib import asynccontextmanager
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.checking import check_run, check_transform
from flows.hosting import check_here
from flows.pages.secret_blocks import read_blocks
from flows.process import progress as display
from flows.process import settings as environment
from flows.process.console import Console, Screen, show_records
from flows.process.terminal import tell, tell_json
from flows.setup import check_ledger
from tasks.core import files
from tasks.core.cost import Cost, Usage, dollars
from tasks.core.errors import (
    BudgetError,
    EndpointError,
    PhaseError,
    RunInterrupted,
    UnfinishedError,
    UsageError,
)
from tasks.core.files import check_folder
from tasks.core.forecast.estimate import document_of, estimate, preview
from tasks.core.forecast.survey import survey
from tasks.core.generation.run import open_run
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import FILE_NAME, ledger_url
from tasks.core.ledger.sessions import observed_calls
from tasks.core.preflight import checked_first, small_keys
from tasks.core.questions import models_of
from tasks.core.session.ledger import is_missing
from tasks.core.session.resuming import survey_resumption
from tasks.core.transform.summary import survey_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flows.checking import CheckedRequest, CheckedTransform
    from flows.request import FlowRequest, RunRequest, TransformRequest
    from tasks.core.config.settings import Config
    from tasks.core.cost import Bill, Prices
    from tasks.core.forecast.estimate import Estimate, Outlook, Preview, Range
    from tasks.core.models import Job, Pair


WIDTH = 110
"""Columns of the table where standard output is no terminal."""


def estimate_here(request: RunRequest, *, json: bool) -> int:
    """Check what is given as a run would, and print what it would cost; nothing is made for it.

    Raises:
        UsageError: Something given cannot be used.
        LedgerError: The ledger cannot be read.
    """
    found = asyncio.run(_estimate(request))
    if json:
        tell_json(document_of(found))
    else:
        show_estimate(found)
    return 0


def estimate_transform_here(request: TransformRequest, *, json: bool) -> int:
    """Check what is given as a transform would, and print what it would cost; nothing is made for it.

    Raises:
        UsageError: Something given cannot be used, or lines of the input are bad.
        LedgerError: The ledger cannot be read.
    """
    checked, found = asyncio.run(_estimate_transform(request))
    rows, bad = checked.first_pass.rows, checked.first_pass.bad
    if json:
        document = {"mode": request.mode, "rows": rows, "skipped": bad} | document_of(found)
        tell_json(document)
        return 0
    skipped = f"; {bad:,} bad lines are skipped" if bad else ""
    tell(f"{rows:,} rows ({request.mode}){skipped}")
    show_estimate(found)
    return 0


async def _estimate_transform(request: TransformRequest) -> tuple[CheckedTransform, Estimate]:
    checked = await check_transform(request)
    config, source = checked.config, checked.source
    async with _ledger_as_it_is(config) as ledger:
        found = await survey_rows(config, source, ledger)
        purposes = [source.mode.purpose]
        seen = await observed_calls(ledger, small_keys(config, purposes))
        return checked, estimate(config, found, seen, purposes)


async def _estimate(request: RunRequest) -> Estimate:
    checked = await check_here(request)
    async with _ledger_as_it_is(checked.config) as ledger:
        if checked.resumption is not None:
            await check_ledger(checked)
        return await estimated(checked, ledger)


async def estimated(checked: CheckedRequest, ledger: Ledger) -> Estimate:
    """What going on with an order will take, as far as the ledger tells.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    config = checked.config
    if checked.prompts is not None:
        found = await survey(config, ledger, jobs=checked.prompts.jobs)
    elif checked.resumption is None or checked.resumption.foreign:
        found = await survey(config, ledger)
    else:
        found = await survey_resumption(checked.resumption.record, config, ledger)
    seen = await observed_calls(ledger, small_keys(config))
    return estimate(config, found, seen)


@asynccontextmanager
async def _ledger_as_it_is(config: Config) -> AsyncIterator[Ledger]:
    """The ledger; where there is none yet, an empty one elsewhere that is gone afterwards."""
    url = ledger_url(config)
    with files.folder_beside(Path(tempfile.gettempdir()), ".estimate.", files.SUFFIX) as elsewhere:
        if is_missing(url):
            url = url.set(database=str(elsewhere / FILE_NAME))
        async with await Ledger.open(url) as ledger:
            yield ledger


def output() -> Screen:
    """Standard output, for tables. What settings and models say is text, and no markup."""
    width = None if sys.stdout.isatty() else WIDTH
    return Screen(width=width, markup=False, highlight=False, emoji=False)


def show_estimate(found: Estimate) -> None:
    """Print an estimate on standard output: a line for each purpose, and their sum."""
    terminal = output()
    table = Table(box=SIMPLE_HEAD, show_footer=True, padding=(0, 1))
    totals = [found.total(lambda item: item.prompt_tokens), found.total(lambda item: item.completion_tokens)]
    columns = {
        "calls for": "all",
        "model": "",
        "in the ledger": f"{found.reused:,}",
        "to pay for": f"{found.to_pay:,}",
        "tokens in": _counts(totals[0]),
        "tokens out": _counts(totals[1]),
        "cost": _money(found),
    }
    for number, (title, footer) in enumerate(columns.items()):
        table.add_column(title, footer=footer, justify="left" if number < 2 else "right")  # noqa: PLR2004 - words
    for item in found.outlooks:
        table.add_row(
            item.purpose,
            item.model,
            f"{item.reused:,}",
            f"{item.to_pay:,}",
            _counts(item.prompt_tokens),
            _counts(item.completion_tokens),
            _money(item),
        )
    terminal.print(table)
    tell(*_notes(found))


def _counts(numbers: Range) -> str:
    """What is likely; where nothing was measured, from the least to the most."""
    if numbers.likely is not None:
        return f"{numbers.likely:,.0f}"
    return f"{numbers.low:,.0f} to {numbers.high:,.0f}"


def _money(item: Outlook | Estimate) -> str:
    """What is likely, if anything was measured, and the range."""
    low, likely, high = item.low, item.likely, item.high
    if not high.is_known:
        return "unknown"
    span = f"{dollars(low.usd)} to {dollars(high.usd)}" if high.usd else ""
    text = span if likely is None else f"{dollars(likely.usd)} ({span})" if span else dollars(likely.usd)
    return f"≥ {text}" if high.unknown else text


def _notes(found: Estimate) -> list[str]:
    notes = []
    guessed = dict.fromkeys(item.purpose for item in found.outlooks if item.to_pay and not item.measured)
    if guessed:
        notes.append(
            f"the ledger has no answers of this kind yet ({', '.join(guessed)}): the range is that of the "
            "templates and max_output_tokens; `vellumforge2 preview -n 5` measures them"
        )
    unpriced = sorted({item.model for item in found.outlooks if item.to_pay and item.high.unknown})
    if unpriced:
        notes.append(f'no price is set for {", ".join(unpriced)}: see [pricing."{unpriced[0]}"]')
    if not found.to_pay:
        notes.append("nothing is to be paid for: every answer is in the ledger")
    return notes


SESSION = "preview-"
"""How the ids begin under which the ledger has what previews paid for: no session's budget counts it."""

SHOWN = 1500
"""Characters of an answer that are shown."""


def preview_here(request: FlowRequest, number: int, *, json: bool, verbose: bool) -> int:
    """Make a few pairs, show them, and what the whole run would cost.

    Raises:
        UsageError: Something given cannot be used; nothing was paid for.
        UnfinishedError: Some of the pairs did not come about.
        VellumforgeError: What ended it.
    """
    if number < 1:
        raise UsageError(f"--number {number}: a preview has at least one pair")
    show_records(verbose=verbose)
    try:
        asyncio.run(_preview(request, number, json=json))
    except (PhaseError, BudgetError, EndpointError, RunInterrupted) as error:
        error.add_note("what was paid for is in the ledger; the same command goes on from there")
        raise
    return 0


async def _preview(request: FlowRequest, number: int, *, json: bool) -> None:
    console = Console()
    with console.work():
        checked = await check_run(request, blocks=read_blocks if environment.configured_api_url() else None)
        config = checked.config
        _check(checked)
        check_folder(Path(config.output.folder), writes=True)
        console.grace_seconds = config.execution.grace_seconds
        async with await Ledger.open(ledger_url(config)) as ledger:
            async with (
                open_run(
                    config,
                    checked.keys,
                    session=f"{SESSION}{uuid.uuid4()}",
                    ledger=ledger,
                    stop=console.stop,
                    progress=console.progress,
                ) as run,
                checked_first(run),
                display.shown(console.progress),
            ):
                given = None if checked.prompts is None else checked.prompts.jobs
                made = await preview(run, number, given=given)
            whole = await estimated(checked, ledger)
    (_show_json if json else _show)(made, run.budget.run, run.budget.prices, whole)
    if made.failures:
        raise UnfinishedError(
            f"{len(made.failures)} of {len(made.jobs)} pairs did not come about; the first failed with: "
            f"{made.failures[0].message}"
        )


def _check(checked: CheckedRequest) -> None:
    """Refuse what a preview cannot do.

    Raises:
        UsageError: It is one of a session that exists already, or a key is in a Prefect that does not run.
    """
    if checked.resumption is not None:
        raise UsageError("a preview is of a new session; leave generation.resume_from_session out")
    if not environment.configured_api_url() and any(
        model.api_key_block for model in models_of(checked.config).values()
    ):
        raise UsageError(
            "a preview starts no Prefect server, and api_key_block names a key that is kept in one; set "
            "PREFECT_API_URL to a server that runs, or name the key's variable with api_key_env"
        )


def _show(made: Preview, bill: Bill, prices: Prices, whole: Estimate) -> None:
    terminal = output()
    for job in made.jobs:
        terminal.print(_side_by_side(job, made.pairs.get(job.id), failed=job.id not in made.pairs))
    usage, cost = bill.usage(), bill.cost(prices).in_words
    money = f" for {cost}" if cost else ""
    tell(
        f"Paid for {usage.calls:,} calls ({usage.in_words()})"
        f"{money}; the whole run uses them and pays for the rest:"
    )
    show_estimate(whole)


def _side_by_side(job: Job, pair: Pair | None, *, failed: bool) -> Panel:
    """A pair with its prompt above it; what a model wrote is text, and no markup."""
    answers: Table | Text
    if pair is None:
        answers = Text("failed" if failed else "kept out by the judge's thresholds", style="italic")
    else:
        sides = [("chosen", pair.chosen, pair.chosen_scores)]
        if pair.rejected is not None:
            sides.append(("rejected", pair.rejected, pair.rejected_scores))
        answers = Table.grid(padding=(0, 2), expand=True)
        for _ in sides:
            answers.add_column(ratio=1)
        scores = [f", {scores.total:.1f} of 5" if scores else "" for _, _, scores in sides]
        titles = (f"{name}{score}" for (name, _, _), score in zip(sides, scores, strict=True))
        answers.add_row(*(Text(title, style="bold") for title in titles))
        answers.add_row(*(Text(_cut(text.content)) for _, text, _ in sides))
    body = Table.grid(padding=(0, 0, 1, 0), expand=True)
    body.add_row(Text(job.prompt))
    body.add_row(answers)
    return Panel(body, title=Text(f"{job.id}: {job.sub_topic}"), title_align="left")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _show_json(made: Preview, bill: Bill, prices: Prices, whole: Estimate) -> None:
    pairs = [_pair_document(job, made.pairs.get(job.id)) for job in made.jobs if job.id in made.pairs]
    document = {"pairs": pairs, "paid": bill.document(prices), "estimate": document_of(whole)}
    tell_json(document)


def _pair_document(job: Job, pair: Pair | None) -> dict[str, Any]:
    document: dict[str, Any] = {"job": job.id, "sub_topic": job.sub_topic, "prompt": job.prompt}
    document["kept"] = pair is not None
    if pair is not None:
        document["chosen"] = pair.chosen.content
        document["rejected"] = pair.rejected.content if pair.rejected else None
        for side, scores in (("chosen", pair.chosen_scores), ("rejected", pair.rejected_scores)):
            document[f"{side}_score"] = scores.total if scores else None
    return document


def spending_lines(spent: dict[str, Any]) -> list[str]:
    """What `Bill.document` gives, as lines: all of it, and where there are several, each of its items."""
    lines = ["", "Spending:", f"  Paid calls:        {_used(spent)}"]
    if cost := _cost(spent).in_words:
        lines.append(f"  Cost:              {cost}")
    if len(spent["items"]) > 1:
        for item in spent["items"]:
            cost = _cost(item).in_words
            lines.append(
                f"    {item['model']}, {item['purpose']}: {_used(item)}{f', {cost}' if cost else ''}"
            )
    return lines


def _used(item: dict[str, Any]) -> str:
    usage = Usage(**{field.name: item[field.name] for field in fields(Usage) if field.name in item})
    return f"{usage.calls:,} ({usage.in_words(cached=True)})"


def _cost(item: dict[str, Any]) -> Cost:
    return Cost(Decimal(str(item["usd"] or 0)), item["calls_of_unknown_price"])

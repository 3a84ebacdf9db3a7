"""What a run or a transform would cost, without beginning it: `vellumforge2 estimate`, and `--dry-run`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console as Terminal
from rich.table import Table

from flows.opening import check_order
from tasks.core.cost import dollars
from tasks.core.estimate import document_of, estimate
from tasks.core.llm.database import FILE_NAME, ledger_url
from tasks.core.llm.ledger import Ledger
from tasks.core.llm.ledger_records import observed_calls
from tasks.core.preflight import small_keys
from tasks.core.questions import purposes_of
from tasks.core.session.resuming import survey_resumption
from tasks.core.survey import survey
from tasks.core.transform.survey import survey_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import URL

    from flows.local import Wish
    from flows.order import Order
    from flows.transforming import TransformOrder, TransformWish
    from tasks.core.config.models import Config
    from tasks.core.estimate import Estimate, Outlook, Range

WIDTH = 110
"""Columns of the table where standard output is no terminal."""


def estimate_here(wish: Wish, *, json: bool) -> int:
    """Check what is given as a run would, and print what it would cost; nothing is made for it.

    Raises:
        UsageError: Something given cannot be used.
        LedgerError: The ledger cannot be read.
    """
    found = asyncio.run(_estimate(wish))
    if json:
        print(orjson.dumps(document_of(found)).decode())  # noqa: T201 - the command's output
    else:
        show_estimate(found)
    return 0


def estimate_transform_here(wish: TransformWish, *, json: bool) -> int:
    """Check what is given as a transform would, and print what it would cost; nothing is made for it.

    Raises:
        UsageError: Something given cannot be used, or lines of the input are bad.
        LedgerError: The ledger cannot be read.
    """
    order, found = asyncio.run(_estimate_transform(wish))
    rows, bad = order.checked.rows, order.checked.bad
    if json:
        document = {"mode": wish.mode, "rows": rows, "skipped": bad} | document_of(found)
        print(orjson.dumps(document).decode())  # noqa: T201 - the command's output
        return 0
    skipped = f"; {bad:,} bad lines are skipped" if bad else ""
    output().print(f"{rows:,} rows ({wish.mode}){skipped}", soft_wrap=True)
    show_estimate(found)
    return 0


async def _estimate_transform(wish: TransformWish) -> tuple[TransformOrder, Estimate]:
    order = await wish.order()
    config, source = order.config, order.source
    async with _ledger_as_it_is(config) as ledger:
        found = await survey_rows(config, source, ledger)
        purposes = [source.mode.purpose]
        seen = await observed_calls(ledger, small_keys(config, purposes))
        return order, estimate(config, found, seen, purposes)


async def _estimate(wish: Wish) -> Estimate:
    order = await wish.order()
    async with _ledger_as_it_is(order.config) as ledger:
        if order.resumption is not None:
            await check_order(order)
        return await estimated(order, ledger)


async def estimated(order: Order, ledger: Ledger) -> Estimate:
    """What going on with an order will take, as far as the ledger tells.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    config = order.config
    if order.resumption is None or order.resumption.foreign:
        found = await survey(config, ledger)
    else:
        found = await survey_resumption(order.resumption.record, config, ledger)
    seen = await observed_calls(ledger, small_keys(config, purposes_of(config)))
    return estimate(config, found, seen)


@asynccontextmanager
async def _ledger_as_it_is(config: Config) -> AsyncIterator[Ledger]:
    """The ledger; where there is none yet, an empty one elsewhere that is gone afterwards."""
    url = ledger_url(config)
    with tempfile.TemporaryDirectory() as elsewhere:
        if _is_missing(url):
            url = url.set(database=str(Path(elsewhere) / FILE_NAME))
        async with await Ledger.open(url) as ledger:
            yield ledger


def _is_missing(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()


def output() -> Terminal:
    """Standard output, for tables. What settings and models say is text, and no markup."""
    width = None if sys.stdout.isatty() else WIDTH
    return Terminal(width=width, markup=False, highlight=False)


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
    for line in _notes(found):
        terminal.print(line, soft_wrap=True)


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
    guessed = [item.purpose for item in found.outlooks if item.to_pay and not item.measured]
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

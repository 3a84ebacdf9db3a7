"""A few pairs before the whole run: `vellumforge2 preview`. The run pays for none of them again."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import orjson
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows import display, environment
from flows.blocks import read_blocks
from flows.console import Console
from flows.estimate import estimated, output, show_estimate
from flows.order import take_order
from flows.terminal import show_records
from tasks.core.errors import (
    BudgetError,
    EndpointError,
    PhaseError,
    RunInterrupted,
    UnfinishedError,
    UsageError,
)
from tasks.core.estimate import document_of
from tasks.core.llm.database import ledger_url
from tasks.core.llm.ledger import Ledger
from tasks.core.preflight import checked_first
from tasks.core.preview import preview
from tasks.core.questions import models_of, purposes_of
from tasks.core.run import open_run

if TYPE_CHECKING:
    from flows.local import Wish
    from flows.order import Order
    from tasks.core.cost import Bill, Prices
    from tasks.core.estimate import Estimate
    from tasks.core.models import Job, Pair
    from tasks.core.preview import Preview

SESSION = "preview-"
"""How the ids begin under which the ledger has what previews paid for: no session's budget counts it."""

SHOWN = 1500
"""Characters of an answer that are shown."""


def preview_here(wish: Wish, number: int, *, json: bool, verbose: bool) -> int:
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
        asyncio.run(_preview(wish, number, json=json))
    except (PhaseError, BudgetError, EndpointError, RunInterrupted) as error:
        error.add_note("what was paid for is in the ledger; the same command goes on from there")
        raise
    return 0


async def _preview(wish: Wish, number: int, *, json: bool) -> None:
    console = Console()
    with console.work():
        order = await take_order(
            wish.config,
            env_file=wish.env_file,
            overrides=wish.overrides,
            blocks=read_blocks if environment.configured_api_url() else None,
        )
        config = order.config
        _check(order)
        console.grace_seconds = config.execution.grace_seconds
        async with await Ledger.open(ledger_url(config)) as ledger:
            async with (
                open_run(
                    config,
                    order.keys,
                    session=f"{SESSION}{uuid.uuid4()}",
                    ledger=ledger,
                    stop=console.stop,
                    progress=console.progress,
                ) as run,
                checked_first(run, purposes_of(config)),
                display.shown(console.progress),
            ):
                made = await preview(run, number)
            whole = await estimated(order, ledger)
    (_show_json if json else _show)(made, run.budget.run, run.budget.prices, whole)
    if made.failures:
        raise UnfinishedError(
            f"{len(made.failures)} of {len(made.jobs)} pairs did not come about; the first failed with: "
            f"{made.failures[0].message}"
        )


def _check(order: Order) -> None:
    """Refuse what a preview cannot do.

    Raises:
        UsageError: It is one of a session that exists already, or a key is in a Prefect that does not run.
    """
    if order.resumption is not None:
        raise UsageError("a preview is of a new session; leave generation.resume_from_session out")
    if not environment.configured_api_url() and any(model.api_key_block for model in models_of(order.config)):
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
    terminal.print(
        f"Paid for {usage.calls:,} calls ({usage.in_words()})"
        f"{money}; the whole run uses them and pays for the rest:",
        soft_wrap=True,
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
    print(orjson.dumps(document).decode())  # noqa: T201 - the command's output


def _pair_document(job: Job, pair: Pair | None) -> dict[str, Any]:
    document: dict[str, Any] = {"job": job.id, "sub_topic": job.sub_topic, "prompt": job.prompt}
    document["kept"] = pair is not None
    if pair is not None:
        document["chosen"] = pair.chosen.content
        document["rejected"] = pair.rejected.content if pair.rejected else None
        for side, scores in (("chosen", pair.chosen_scores), ("rejected", pair.rejected_scores)):
            document[f"{side}_score"] = scores.total if scores else None
    return document

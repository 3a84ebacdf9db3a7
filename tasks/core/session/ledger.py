"""The ledger opened for sessions that rely on it, and a session's work and means divided among shards.

A ledger that was emptied is damage, and never a new one.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter
from sqlalchemy import make_url

from tasks.core.cost import Bill, Usage
from tasks.core.errors import LedgerError
from tasks.core.ledger.ledger import Ledger
from tasks.core.session.adoption import pack_jobs
from tasks.core.session.folder import all_sessions
from tasks.core.session.record import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import URL

    from tasks.core.chat.budget import SessionBudget
    from tasks.core.config.settings import Budget, Config
    from tasks.core.models import Job


async def open_ledger(url: str | URL, output: Path) -> Ledger:
    """Open the ledger at `url`, and make it when there is none.

    To SQLite an empty file is a new database. Here it is one only when nothing speaks of an older one.

    Args:
        url: The ledger's URL.
        output: The output folder, whose sessions have their answers in it.

    Raises:
        LedgerError: It was emptied, cannot be opened, or is not a ledger.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite" and address.database:
        _refuse_emptied(Path(address.database), output)
    return await Ledger.open(address)


def is_missing(url: URL) -> bool:
    """Whether there is no ledger yet, as far as that is seen without asking a server."""
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()


def _refuse_emptied(path: Path, output: Path) -> None:
    try:
        if path.stat().st_size:
            return
    except OSError:
        return  # There is none yet; whatever else is wrong, opening it says.
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        traces = f"its log {log.name} is still there"
    elif any((folder / FILE_NAME).exists() for folder in all_sessions(output)):
        traces = f"there are sessions in {output}"
    else:
        return
    raise LedgerError(
        f"the ledger {path} is damaged: it is empty, and {traces}; it was left as it is. "
        "Put a copy of it back, or move the empty file away to begin a new one"
    )


_ITEMS = TypeAdapter(list[tuple[str, str, Usage]])


def plan_of(config: Config, jobs: Sequence[Job], ledger: str) -> str:
    """What identifies the work on some jobs and its division, as hex.

    Args:
        config: The configuration.
        jobs: All jobs.
        ledger: The ledger's id.
    """
    return hashlib.sha256(orjson.dumps([config.model_dump(mode="json"), ledger, list(jobs)])).hexdigest()


def divided(config: Config, accounts: SessionBudget, jobs: Sequence[Job]) -> list[tuple[str, bytes]]:
    """Settings and packed jobs of each shard: consecutive jobs, and an equal part of what may still be spent.

    Args:
        config: The configuration; its limits stay whole, for how many share them changes as shards end.
        accounts: What the session has spent.
        jobs: All jobs, at least as many as there are shards.
    """
    shards = config.execution.shards
    part = config.model_copy(update={"budget": _allowance(config, accounts, shards)})
    settings = part.model_dump_json(exclude_unset=True)
    ends = [len(jobs) * number // shards for number in range(shards + 1)]
    return [(settings, pack_jobs((), jobs[a:b])) for a, b in pairwise(ends)]


def _allowance(config: Config, accounts: SessionBudget, shards: int) -> Budget:
    limits, spent = config.budget, accounts.session
    usage = spent.usage()
    left: dict[str, float | int] = {}
    if limits.max_usd is not None:
        left["max_usd"] = max(0.0, limits.max_usd - float(spent.assumed(accounts.prices))) / shards
    if limits.max_tokens is not None:
        left["max_tokens"] = max(0, limits.max_tokens - usage.tokens) // shards
    if limits.max_calls is not None:
        left["max_calls"] = max(0, limits.max_calls - usage.calls) // shards
    return limits.model_copy(update=left)


def write_bill(bill: Bill) -> str:
    """A bill as text; `read_bill` is the way back."""
    return orjson.dumps([(model, purpose, asdict(usage)) for model, purpose, usage in bill]).decode()


def read_bill(text: str) -> Bill:
    """The bill that `write_bill` wrote; an empty one for an empty text."""
    bill = Bill()
    for model, purpose, usage in _ITEMS.validate_json(text) if text else ():
        bill.add(model, purpose, usage)
    return bill

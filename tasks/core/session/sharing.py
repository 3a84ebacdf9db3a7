"""How the work and the means of a session are divided among shards, and what a shard has spent."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter

from tasks.core.cost import Bill, Usage
from tasks.core.session.adoption import pack_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.models import Budget, Config
    from tasks.core.llm.budget import Budget as Accounts
    from tasks.core.models import Job

_ITEMS = TypeAdapter(list[tuple[str, str, Usage]])


def plan_of(config: Config, jobs: Sequence[Job], ledger: str) -> str:
    """What identifies the work on some jobs and its division, as hex.

    Args:
        config: The configuration.
        jobs: All jobs.
        ledger: The ledger's id.
    """
    return hashlib.sha256(orjson.dumps([config.model_dump(mode="json"), ledger, list(jobs)])).hexdigest()


def divided(config: Config, accounts: Accounts, jobs: Sequence[Job]) -> list[tuple[str, bytes]]:
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


def _allowance(config: Config, accounts: Accounts, shards: int) -> Budget:
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

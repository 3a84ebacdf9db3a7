"""What a session paid for, as `checkpoint inspect` shows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tasks.core.cost import Cost


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
    cached = f", {item['cached_tokens']:,} cached" if item["cached_tokens"] else ""
    return (
        f"{item['calls']:,} ({item['prompt_tokens']:,} tokens in{cached}, {item['completion_tokens']:,} out)"
    )


def _cost(item: dict[str, Any]) -> Cost:
    return Cost(Decimal(str(item["usd"] or 0)), item["calls_of_unknown_price"])

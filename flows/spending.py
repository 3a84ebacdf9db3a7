"""What a session paid for, as `checkpoint inspect` shows it."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import Any

from tasks.core.cost import Cost, Usage


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

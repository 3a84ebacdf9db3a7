"""What a session paid for, in lines."""

from __future__ import annotations

from typing import Any

from flows.commands.estimate import spending_lines
from tasks.core.config.settings import Price
from tasks.core.cost import Bill, Prices, Usage

PRICES = Prices({"strong": Price(input=1.0, output=2.0)})


def test_tokens_that_a_server_does_not_report_are_not_shown_as_none() -> None:
    bill = Bill()
    bill.add("strong", "chosen", Usage(4, 1000, 500))
    bill.add("local", "rejected", Usage(4, unreported=4, estimated_tokens=800))
    whole, _, *items = spending_lines(bill.document(PRICES))[2:]
    assert whole.endswith(
        "8 (≥ 1,000 tokens in, ≥ 500 out, about 800 more by estimate, for 4 calls without reported usage)"
    )
    assert items[0].startswith(
        "    local, rejected: 4 (about 800 tokens in and out, estimated: the server reports none)"
    )
    assert items[1].startswith("    strong, chosen: 4 (1,000 tokens in, 500 out), $")


def test_what_older_versions_wrote_is_shown_as_well() -> None:
    old: dict[str, Any] = {"calls": 2, "prompt_tokens": 10, "completion_tokens": 4, "cached_tokens": 3}
    document = old | {"usd": None, "calls_of_unknown_price": 2, "items": []}
    assert spending_lines(document)[2] == "  Paid calls:        2 (10 tokens in, 3 cached, 4 out)"

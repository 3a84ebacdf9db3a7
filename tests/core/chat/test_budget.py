"""Budgets: what they count, when they stop a run, and that a resume goes on counting."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.chat.budget import SessionBudget, open_budget
from tasks.core.cost import Bill, Usage
from tasks.core.errors import BudgetError, RunInterrupted
from tasks.core.ledger.client import LedgerClient
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry, usage_of
from tasks.core.models import Purpose
from tasks.core.progress import Progress
from tasks.core.traffic.stop import Stop
from tests.core.chat.scripted import answer, question
from tests.core.running import configured

if TYPE_CHECKING:
    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import Answer, ChatRequest

PRICING = {"demo-strong": {"input": 1.0, "output": 2.0}}


def limited(**limits: float) -> Config:
    """A configuration with these limits, and a price."""
    return configured(budget=limits, pricing=PRICING)


def opened(config: Config, before: Bill | None = None) -> tuple[SessionBudget, Stop]:
    stop = Stop()
    return SessionBudget(config, stop, before or Bill()), stop


class Buyer(LedgerClient):
    """A client that buys from nobody, in the chat client's order: checked, paid for, counted, kept."""

    def __init__(self, ledger: Ledger, budget: SessionBudget, paid: Answer) -> None:
        super().__init__(ledger, Progress())
        self.budget = budget
        self.paid = paid
        self.bought = 0

    async def _buy(self, request: ChatRequest) -> Answer:
        self.budget.check()
        await asyncio.sleep(0)
        self.bought += 1
        self.budget.add(request, self.paid)
        return await self._ledger.put(LedgerEntry(request, self.paid, "s"))


@pytest.mark.parametrize(
    ("limits", "calls", "words"),
    [
        ({"max_calls": 3}, 3, "budget.max_calls is reached: 3 calls of 3 paid for"),
        ({"max_tokens": 301}, 4, "budget.max_tokens is reached: 400 tokens of 301 used"),
        # Each call costs 20 + 160 millionths.
        ({"max_usd": 0.0005}, 3, "budget.max_usd is reached: $0.0005 of $0.0005 spent, in 3 calls"),
        ({"max_calls": 0}, 0, "budget.max_calls is reached: 0 calls of 0 paid for"),
    ],
)
def test_a_limit_that_is_reached_stops_the_run(limits: dict[str, Any], calls: int, words: str) -> None:
    budget, stop = opened(limited(**limits))
    for _ in range(calls):
        budget.check()
        budget.add(question(), answer(prompt_tokens=20, completion_tokens=80))
    # The last call may have been the last that was needed.
    assert not stop.requested
    with pytest.raises(BudgetError) as raised:
        budget.check()
    assert str(raised.value).startswith(words)
    assert f"raise {next(f'budget.{name}' for name in limits)} and resume" in str(raised.value)
    assert raised.value.exit_code == 3
    with pytest.raises(BudgetError):
        stop.check()


def test_without_limits_nothing_stops() -> None:
    budget, _ = opened(limited())
    for _ in range(100):
        budget.check()
        budget.add(question(), answer(prompt_tokens=10**9, completion_tokens=10**9))
    budget.check()
    assert budget.run.usage().calls == 100


def test_who_stopped_first_is_the_reason() -> None:
    budget, stop = opened(limited(max_calls=0))
    stop.request(RunInterrupted(2))
    with pytest.raises(RunInterrupted):
        budget.check()


async def test_calls_in_flight_finish_and_are_kept_and_a_higher_budget_goes_on(url: str) -> None:
    paid = answer(prompt_tokens=20, completion_tokens=80)
    requests = [question(f"{number}") for number in range(20)]
    async with await Ledger.open(url) as ledger:
        first = Buyer(ledger, await open_budget(limited(max_calls=10), ledger, "s", Stop()), paid)
        for start in (0, 4, 8, 12):  # Four in flight at a time.
            some = requests[start : start + 4]
            got = await asyncio.gather(*map(first.ask, some), return_exceptions=True)
            refused = [item for item in got if isinstance(item, BudgetError)]
            assert len(refused) == (4 if start == 12 else 0)
        assert first.bought == 12
    async with await Ledger.open(url) as ledger:
        again = Buyer(ledger, await open_budget(limited(max_calls=10), ledger, "s", Stop()), paid)
        with pytest.raises(BudgetError, match="12 calls of 10"):
            await again.ask(requests[12])
        # What is in the ledger is not paid for, and no budget stands before it.
        assert await again.ask(requests[0]) == paid
        raised = Buyer(ledger, await open_budget(limited(max_calls=20), ledger, "s", Stop()), paid)
        await asyncio.gather(*map(raised.ask, requests))
        assert (first.bought, raised.bought) == (12, 8)
        assert raised.budget.run.usage().calls == 8
        usage = raised.budget.session.usage()
        assert (usage.calls, usage.prompt_tokens, usage.completion_tokens) == (20, 400, 1600)
        other = await open_budget(limited(max_calls=1), ledger, "another", Stop())
        other.check()


async def test_the_ledger_remembers_what_was_only_estimated(url: str) -> None:
    silent = answer("x" * 400, reasoning="y" * 40)
    request = question("z" * 80)
    async with await Ledger.open(url) as ledger:
        await ledger.put(LedgerEntry(request, silent, "s"))
        with pytest.raises(BudgetError, match="130 tokens of 130"):
            (await open_budget(limited(max_tokens=130), ledger, "s", Stop())).check()
        (await open_budget(limited(max_tokens=131), ledger, "s", Stop())).check()


@pytest.mark.parametrize(
    ("reported", "counts"),
    [
        ({}, (0, 0, 1, 130)),
        ({"prompt_tokens": 33}, (33, 0, 1, 110)),
        ({"completion_tokens": 44}, (0, 44, 1, 20)),
        ({"prompt_tokens": 33, "completion_tokens": 44}, (33, 44, 0, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0, 0, 0)),
    ],
)
def test_what_is_not_reported_is_estimated_by_its_length(
    reported: dict[str, Any], counts: tuple[int, ...]
) -> None:
    usage = usage_of(question("z" * 80), answer("x" * 400, reasoning="y" * 40, **reported))
    assert (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.unreported,
        usage.estimated_tokens,
    ) == counts


def test_cached_tokens_are_at_most_the_input() -> None:
    asked = question()
    said: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 1}
    assert usage_of(asked, answer(cached_tokens=3, **said)).cached_tokens == 3
    assert usage_of(asked, answer(cached_tokens=9, **said)).cached_tokens == 5
    assert usage_of(asked, answer(**said)).cached_tokens == 0


@pytest.mark.parametrize(
    ("limits", "times"),
    [({"max_tokens": 10**6}, 1), ({"max_usd": 10.0}, 1), ({"max_calls": 10**6}, 0), ({}, 0)],
)
def test_that_a_budget_counts_by_estimate_is_said_once(
    caplog: pytest.LogCaptureFixture, limits: dict[str, Any], times: int
) -> None:
    budget, _ = opened(limited(**limits))
    with caplog.at_level(logging.WARNING):
        for purpose in (Purpose.CHOSEN, Purpose.PROMPTS, Purpose.CHOSEN):
            budget.add(question(purpose=purpose), answer("x" * 40))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "demo-strong reports no usage"
    ] * times


def test_what_an_earlier_model_without_a_price_was_paid_is_said_not_to_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = Bill()
    before.add("gone", Purpose.JUDGE, Usage(5, 10**9, 10**9))
    before.add("gone", Purpose.CHOSEN, Usage(5, 10**9, 10**9))
    with caplog.at_level(logging.WARNING):
        budget, _ = opened(limited(max_usd=0.01), before)
        opened(limited(max_calls=100), before)
    assert [record.getMessage() for record in caplog.records] == [
        "budget.max_usd does not count what gone was paid: it has no price"
    ]
    budget.check()

"""What a session may spend, what it has spent, and what a piece of work has asked of servers.

A budget that is reached stops the run in order: no call begins, those in flight finish and are kept.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.cost import Bill, Prices, dollars
from tasks.core.errors import BudgetError
from tasks.core.ledger.schema import usage_of
from tasks.core.ledger.sessions import spent_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.core.config.settings import Config
    from tasks.core.cost import Usage
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.traffic.stop import Stop


log = logging.getLogger("vellumforge.budget")


class SessionBudget:
    """The accounts of a session. Made by `open_budget`.

    Attributes:
        prices: The configuration's prices.
        run: What this run paid for.
    """

    def __init__(self, config: Config, stop: Stop, before: Bill) -> None:
        """Open the accounts.

        Args:
            config: The configuration, with `budget` and `pricing`.
            stop: Told when the budget is reached.
            before: What the session paid for in earlier runs.
        """
        self.prices = Prices(config.pricing)
        self.run = Bill()
        self._before = before
        self._limits = config.budget
        self._stop = stop
        usage = before.usage()
        self._calls, self._tokens = usage.calls, usage.tokens
        self._usd = before.assumed(self.prices)
        self._estimated: set[str] = set()
        self._since = time.time()
        self._of_others: set[bytes] = set()
        if self._limits.max_usd is not None:
            # Models in use have prices; the session may have used others before.
            for model in sorted({model for model, _, _ in before if not self.prices.knows(model)}):
                log.warning("budget.max_usd does not count what %s was paid: it has no price", model)

    @property
    def session(self) -> Bill:
        """What all runs of the session paid for, this one included."""
        return self._before + self.run

    async def catch_up(self, ledger: Ledger, session: str) -> Bill:
        """Take to this run's account what others paid for in its session since it was opened.

        Returns:
            What that is.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        others = (await spent_by(ledger, session)).without(self.session)
        usage = others.usage()
        self.run += others
        self._calls += usage.calls
        self._tokens += usage.tokens
        self._usd += others.assumed(self.prices)
        self._since = time.time()
        return others

    def counts(self, answer: Answer) -> bool:
        """Whether an answer counts against a limit, whoever paid for it: it came since the accounts opened.

        Of two runs at once that ask for the same, each would else spend the whole budget on half of it.
        """
        limits = self._limits
        limited = not (limits.max_usd is limits.max_tokens is limits.max_calls is None)
        return limited and answer.finished > self._since

    def add_of_others(self, request: ChatRequest, answer: Answer) -> None:
        """Count an answer that another session paid for meanwhile, once; it is on no bill of this one."""
        if request.key not in self._of_others:
            self._of_others.add(request.key)
            self._count(request, usage_of(request, answer))

    def check(self) -> None:
        """Stop the run when its budget is reached: asked before every attempt, and not when a call is paid.

        A run whose last call reached its budget is simply finished.

        Raises:
            BudgetError: A limit of `budget` is reached.
        """
        reached = self._reached()
        if reached:
            error = BudgetError(
                f"{reached}; calls in flight were finished and kept. "
                f"To go on, raise {reached.partition(' ')[0]} and resume the session"
            )
            self._stop.request(error)
            self._stop.check()

    def add(self, request: ChatRequest, answer: Answer) -> None:
        """Take a paid answer to account."""
        usage = usage_of(request, answer)
        self.run.add(request.model, request.purpose, usage)
        self._count(request, usage)

    def _count(self, request: ChatRequest, usage: Usage) -> None:
        self._calls += usage.calls
        self._tokens += usage.tokens
        if self._limits.max_usd is not None:
            self._usd += self.prices.assumed(request.model, usage)
        if usage.unreported and not (self._limits.max_tokens is self._limits.max_usd is None):
            self._say_once_that_it_is_estimated(request.model)

    def _reached(self) -> str:
        """What is reached and how much was spent; "" while nothing is."""
        limits = self._limits
        if limits.max_usd is not None and self._usd >= limits.max_usd:
            spent, limit = dollars(self._usd), f"${limits.max_usd:g}"
            return f"budget.max_usd is reached: {spent} of {limit} spent, in {self._calls:,} calls"
        if limits.max_tokens is not None and self._tokens >= limits.max_tokens:
            return f"budget.max_tokens is reached: {self._tokens:,} tokens of {limits.max_tokens:,} used"
        if limits.max_calls is not None and self._calls >= limits.max_calls:
            return f"budget.max_calls is reached: {self._calls:,} calls of {limits.max_calls:,} paid for"
        return ""

    def _say_once_that_it_is_estimated(self, model: str) -> None:
        if model not in self._estimated:
            self._estimated.add(model)
            log.warning("%s reports no usage: for the budget, four characters are taken for a token", model)


async def open_budget(config: Config, ledger: Ledger, session: str, stop: Stop) -> SessionBudget:
    """The accounts of the session with this id, with what it paid for so far.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    return SessionBudget(config, stop, await spent_by(ledger, session))


@dataclass(slots=True)
class Tab:
    """Calls that the ledger had no answer to, so that a server was asked; whatever came of them."""

    asked: int = 0


_open: ContextVar[Tab | None] = ContextVar("tab", default=None)


@contextmanager
def open_tab() -> Iterator[Tab]:
    """Count the calls of the block, and of the tasks that are begun in it."""
    tab = Tab()
    token = _open.set(tab)
    try:
        yield tab
    finally:
        _open.reset(token)


def note_call() -> None:
    """Put a call on the tab of the work that asks for it, if it has one."""
    if (tab := _open.get()) is not None:
        tab.asked += 1

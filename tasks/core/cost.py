"""What calls used and what they cost: tokens by model and purpose, times the prices of the configuration.

Money is decimal, so that sums are exact. What is not known is not zero: a model without a price, or an
answer whose server reported no usage, makes a cost a lower bound and is counted beside it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.core.config.settings import Config, Price

CHARACTERS_PER_TOKEN = 4
"""What tokens are estimated by, where no server has counted them."""

MILLION = 1_000_000
CENTS_FROM = 1
"""Dollars from which a sum is shown in cents; below, four places tell more."""

LEAST_SHOWN = Decimal("0.0001")


def tokens_for(characters: int) -> int:
    """Tokens of a text of so many characters, by estimate."""
    return -(-characters // CHARACTERS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Usage:
    """What some calls of one model used.

    Attributes:
        calls: How many they are.
        prompt_tokens: Input tokens as reported.
        completion_tokens: Output tokens as reported, reasoning included.
        cached_tokens: Those of the input tokens that the provider still had.
        unreported: Calls whose input or output tokens were not reported.
        estimated_tokens: Tokens of those calls by their length, as far as they were not reported.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    unreported: int = 0
    estimated_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.unreported + other.unreported,
            self.estimated_tokens + other.estimated_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.cached_tokens - other.cached_tokens,
            self.unreported - other.unreported,
            self.estimated_tokens - other.estimated_tokens,
        )

    @property
    def tokens(self) -> int:
        """All tokens, those by estimate included."""
        return self.prompt_tokens + self.completion_tokens + self.estimated_tokens

    @property
    def tokens_in(self) -> str:
        """The input tokens as a cell: `1,200`; where some are not reported `≥ 1,200` or `unknown`."""
        return self._at_least(self.prompt_tokens)

    @property
    def tokens_out(self) -> str:
        """The output tokens in the same way."""
        return self._at_least(self.completion_tokens)

    @property
    def estimate_in_words(self) -> str:
        """What was not reported, and the estimate of it where there is one; "" where everything was."""
        if not self.unreported:
            return ""
        calls = f"{self.unreported:,} call{'' if self.unreported == 1 else 's'} without reported usage"
        return (
            f"about {self.estimated_tokens:,} more by estimate, for {calls}"
            if self.estimated_tokens
            else calls
        )

    def in_words(self, *, cached: bool = False) -> str:
        """The tokens as text: `1,200 tokens in, 300 out`. What was not reported is never shown as 0.

        Args:
            cached: Whether the cached ones are named too.
        """
        if self.unreported and not self.prompt_tokens and not self.completion_tokens:
            if not self.estimated_tokens:
                return "tokens unknown: the server reports none"
            return f"about {self.estimated_tokens:,} tokens in and out, estimated: the server reports none"
        of_cache = f", {self.cached_tokens:,} cached" if cached and self.cached_tokens else ""
        words = f"{self.tokens_in} tokens in{of_cache}, {self.tokens_out} out"
        return f"{words}, {self.estimate_in_words}" if self.unreported else words

    def _at_least(self, tokens: int) -> str:
        if not self.unreported:
            return f"{tokens:,}"
        return f"≥ {tokens:,}" if tokens else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What a run or a transform paid for; the part that their summaries share.

    Attributes:
        paid: Calls paid for in this run.
        reused: Calls answered by the ledger.
        prompt_tokens: Input tokens paid for.
        completion_tokens: Output tokens paid for.
        unreported: Calls paid for whose tokens the servers did not report, or not all of them.
        estimated_tokens: Their tokens by estimate, as far as they were not reported.
        cost: What the calls of this run cost, in words; "" when nothing of it is known.
    """

    paid: int
    reused: int
    prompt_tokens: int
    completion_tokens: int
    unreported: int
    estimated_tokens: int
    cost: str

    def payment(self, advice: str) -> str:
        """What was paid for and what was reused, in one line.

        Args:
            advice: How to get other answers, for a run that paid for nothing.
        """
        if not self.paid:
            return f"paid for nothing: all {self.reused:,} answers came from the ledger; {advice}"
        tokens = Usage(
            self.paid,
            self.prompt_tokens,
            self.completion_tokens,
            unreported=self.unreported,
            estimated_tokens=self.estimated_tokens,
        ).in_words()
        money = f" for {self.cost}" if self.cost else ""
        return f"paid for {self.paid:,} calls ({tokens}){money}, reused {self.reused:,} from the ledger"


@dataclass(frozen=True, slots=True)
class Cost:
    """A sum of money, at least: `unknown` calls cost more than what is counted of them."""

    usd: Decimal = Decimal(0)
    unknown: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.usd + other.usd, self.unknown + other.unknown)

    @property
    def is_known(self) -> bool:
        """Whether anything at all is known of it."""
        return bool(self.usd) or not self.unknown

    @property
    def in_words(self) -> str:
        """It as text; "" where nothing is known of it."""
        return str(self) if self.is_known else ""

    def __str__(self) -> str:
        """`$0.0123`, `≥ $1.20 (12 calls of unknown price)`, `unknown (12 calls of unknown price)`."""
        if not self.unknown:
            return dollars(self.usd)
        known = f"≥ {dollars(self.usd)}" if self.usd else "unknown"
        return f"{known} ({self.unknown:,} call{'s' if self.unknown > 1 else ''} of unknown price)"


def dollars(usd: Decimal) -> str:
    """A sum as it is shown: `$1,234.50`, `$0.0123`, `$0`, `<$0.0001`."""
    if not usd:
        return "$0"
    if usd < LEAST_SHOWN:
        return f"<${LEAST_SHOWN}"
    return f"${usd:,.2f}" if usd >= CENTS_FROM else f"${usd:.4f}"


class Prices:
    """The prices of a configuration, by model name."""

    def __init__(self, pricing: Mapping[str, Price]) -> None:
        self._prices = {
            # As they are written: 0.15 is no binary fraction.
            model: tuple(
                Decimal(str(dollars)) / MILLION
                for dollars in (
                    price.input,
                    price.output,
                    price.input if price.cached_input is None else price.cached_input,
                )
            )
            for model, price in pricing.items()
        }

    def knows(self, model: str) -> bool:
        """Whether the model has a price."""
        return model in self._prices

    def cost(self, model: str, usage: Usage) -> Cost:
        """What calls of a model cost; of those whose usage was not reported, what was reported of it."""
        prices = self._prices.get(model)
        if prices is None:
            return Cost(unknown=usage.calls)
        of_input, of_output, of_cached = prices
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        usd = (
            of_input * (usage.prompt_tokens - cached)
            + of_cached * cached
            + of_output * usage.completion_tokens
        )
        return Cost(usd, usage.unreported)

    def assumed(self, model: str, usage: Usage) -> Decimal:
        """What a budget counts: the cost, and what was only estimated at the dearer of the two prices."""
        prices = self._prices.get(model)
        if prices is None:
            return Decimal(0)
        return self.cost(model, usage).usd + max(prices[:2]) * usage.estimated_tokens


def prices_for(now: Config | None, then: Config | None) -> Prices:
    """The prices that the session ran with, and over them those of the configuration as it is now."""
    pricing = {} if then is None else dict(then.pricing)
    if now is not None:
        pricing |= now.pricing
    return Prices(pricing)


class Bill:
    """What was paid for: usage by model and purpose."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Usage] = {}

    def add(self, model: str, purpose: str, usage: Usage) -> None:
        """Put the usage of some calls on the bill."""
        self._items[model, purpose] = self._items.get((model, purpose), Usage()) + usage

    def __add__(self, other: Bill) -> Bill:
        both = Bill()
        for bill in (self, other):
            for model, purpose, usage in bill:
                both.add(model, purpose, usage)
        return both

    def without(self, other: Bill) -> Bill:
        """What is on this bill and not on the other one, which is a part of it."""
        rest = Bill()
        known = {(model, purpose): usage for model, purpose, usage in other}
        for model, purpose, usage in self:
            left = usage - known.get((model, purpose), Usage())
            if left != Usage():
                rest.add(model, purpose, left)
        return rest

    def __iter__(self) -> Iterator[tuple[str, str, Usage]]:
        """Model, purpose and usage of each item, in alphabetical order."""
        for (model, purpose), usage in sorted(self._items.items(), key=lambda item: item[0]):
            yield model, purpose, usage

    def usage(self) -> Usage:
        """All of it."""
        return sum(self._items.values(), Usage())

    def cost(self, prices: Prices) -> Cost:
        """What it comes to."""
        return sum((prices.cost(model, usage) for (model, _), usage in self._items.items()), Cost())

    def assumed(self, prices: Prices) -> Decimal:
        """What it comes to for a budget; see `Prices.assumed`."""
        return sum((prices.assumed(model, usage) for (model, _), usage in self._items.items()), Decimal(0))

    def document(self, prices: Prices) -> dict[str, Any]:
        """The bill as plain data: all of it, and below `items` each model and purpose."""
        items = [
            {"model": model, "purpose": purpose} | _document(usage, prices.cost(model, usage))
            for model, purpose, usage in self
        ]
        return _document(self.usage(), self.cost(prices)) | {"items": items}


def cost_document(cost: Cost) -> dict[str, Any]:
    """A cost as plain data: the sum in dollars, None where nothing is known, and the calls left out."""
    return {"usd": float(cost.usd) if cost.is_known else None, "calls_of_unknown_price": cost.unknown}


def _document(usage: Usage, cost: Cost) -> dict[str, Any]:
    return asdict(usage) | cost_document(cost)


@dataclass(slots=True)
class Sums:
    """Numbers that were seen: how many, their sum, and the sum of their squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Note a number."""
        self.count += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        """Their mean; 0 when there is none."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Their variance; of a single one, as if numbers were usually half as far as they are large."""
        if self.count < 2:  # noqa: PLR2004 - one number has no spread
            return (self.mean / 2) ** 2
        # Rounding may leave a little less than nothing.
        return max(0.0, (self.squares - self.total * self.mean) / (self.count - 1))


@dataclass(slots=True)
class Observed:
    """Calls of one purpose that were answered before.

    Attributes:
        prompt: Input tokens of those that reported their usage.
        completion: Output tokens of the same.
        cached: Cached tokens of the same, all together.
        calls: All of them.
        further: Those that were asked because the answer before could not be used.
    """

    prompt: Sums = field(default_factory=Sums)
    completion: Sums = field(default_factory=Sums)
    cached: int = 0
    calls: int = 0
    further: int = 0

    def add(self, usage: Usage, *, further: bool) -> None:
        """Note one call."""
        self.calls += 1
        self.further += further
        if not usage.unreported:
            self.prompt.add(usage.prompt_tokens)
            self.completion.add(usage.completion_tokens)
            self.cached += usage.cached_tokens

"""What may be asked in a minute: requests and tokens as configured, and the pace that refusals teach.

All times are of one monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import deque

from tasks.core.traffic.pace import Pace

WINDOW = 60.2
"""Seconds in which a minute's units may go out: a little longer, because requests travel unevenly."""


UNTOLD_BURST = 0.1
"""How much of a minute's units may go at once, as a share, where only the server named the limit."""


class Quota:
    """Units a minute: a token bucket that also remembers the last minute.

    The bucket alone would let a burst and a minute's units into one minute, and a server that counts by the
    minute would refuse the excess.
    """

    def __init__(self, per_minute: int, burst_percent: int = 100) -> None:
        """Make a quota.

        Args:
            per_minute: Units a minute; 0 for no limit.
            burst_percent: How many may go at once, in percent of a minute's; at least one.
        """
        self._whole = per_minute
        self._burst_share = burst_percent / 100
        self._sharers = 1
        self._divide()
        self._full_at = 0.0
        self._sent: deque[tuple[float, float]] = deque()
        self._in_window = 0.0

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Seconds until `amount` units may go; 0 when they may now."""
        if not self._per_minute:
            return 0.0
        # More than the bucket holds goes when the bucket is full.
        missing = min(amount, self._burst) - self._burst
        ready = self._full_at + missing * self._interval
        while self._sent and self._sent[0][0] <= now - WINDOW:
            self._in_window -= self._sent.popleft()[1]
        over = self._in_window + amount - self._per_minute
        for then, units in self._sent:
            if over <= 0:
                break
            over -= units
            ready = max(ready, then + WINDOW)
        return max(0.0, ready - now)

    def take(self, now: float, amount: float = 1.0) -> None:
        """Let `amount` units go."""
        if self._per_minute:
            self._full_at = max(self._full_at, now) + amount * self._interval
            self._sent.append((now, amount))
            self._in_window += amount

    def correct(self, now: float, more: float) -> None:
        """Account for `more` units than were taken, or fewer when negative."""
        if self._per_minute:
            self._full_at = max(self._full_at, now) + more * self._interval
            self._sent.append((now, more))
            self._in_window += more

    def lower(self, per_minute: int) -> None:
        """Keep to a limit that the server named, when it is lower than the one that was known."""
        if per_minute > 0 and (not self._whole or per_minute < self._whole):
            if not self._whole:
                self._burst_share = UNTOLD_BURST
            self._whole = per_minute
            self._divide()

    def be_even(self) -> None:
        """Give up bursts: the server does not take them."""
        self._burst_share = 0.0
        self._divide()

    def share(self, sharers: int) -> None:
        """Take one part of the limit, where so many processes share it."""
        self._sharers = sharers
        self._divide()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._whole > 0

    def _divide(self) -> None:
        self._per_minute = self._whole / self._sharers
        self._interval = 60.0 / self._per_minute if self._per_minute else 0.0
        self._burst = max(1.0, self._per_minute * self._burst_share)


class Allowance:
    """What one model may be asked; a provider's quotas and pace are shared by its models.

    Attributes:
        requests: Requests a minute.
        tokens: Tokens a minute, those of questions and answers together.
        pace: What its refusals teach.
    """

    def __init__(
        self, requests: Quota | None = None, tokens: Quota | None = None, pace: Pace | None = None
    ) -> None:
        self.requests = requests or Quota(0)
        self.tokens = tokens or Quota(0)
        self.pace = pace or Pace()

    def wait(self, now: float, tokens: float) -> tuple[float, str]:
        """Seconds until a request may go, and what it waits for: "limit", "backoff" or "" for nothing."""
        limit = max(self.requests.wait(now), self.tokens.wait(now, tokens))
        learned, why = self.pace.wait(now)
        if learned > limit:
            return learned, why
        return limit, "limit" if limit else ""

    def take(self, now: float, tokens: float) -> None:
        """Let a request go."""
        self.requests.take(now)
        self.tokens.take(now, tokens)
        self.pace.take(now)

    def refused(self, now: float, retry_after: float | None) -> None:
        """The server answered 429."""
        self.requests.be_even()
        self.pace.refused(now, retry_after)

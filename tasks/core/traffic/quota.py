"""What may be asked in a minute: requests and tokens as configured, and the pace that refusals (429) teach.

Nothing is assumed of a server's pace until it refuses. Then it is left alone for as long as it says, and what
it took until it takes more again is its rate: that holds for a bucket which refills and for a window which
begins anew. Below the rate the pace is raised slowly, then ever faster; each refusal lowers it. A server that
refuses as much at a slower pace refuses for other reasons, and is not slowed down for.

All times are of one monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import deque

IN_A_ROW = 3
MANY_IN_A_ROW = 10
"""Refusals without an answer between them that are no accident, when at least half of the last ten requests
were refused: then everybody waits. More of them, where slowing down does not help."""
LATELY = 10

LOWERED = 0.96
"""What a refusal leaves of the pace at most; where more are refused, as much less."""
CALM = 1.0
"""Seconds in which further refusals, of requests that were under way already, lower nothing more."""
RAISED = 0.001
"""Share by which the pace is raised each second at first."""
DOUBLES = 20.0
"""Seconds without a refusal in which the raising doubles: a pace regains `LOWERED` in about as many."""
FASTEST = 0.5
"""Most that the pace is raised in a second, as a share."""
UNSURE = 1.0
"""The same while it was learned from too few requests, until the next refusal after more than a few."""

IDLE = 5.0
"""Seconds without a request after which the counting begins anew."""
LATENESS = 0.05
"""Seconds that a timer may be late and be made up for."""
DEEPEST = 0.25
"""Most that one pause may take from a pace that was learned, as a share that is left."""

IN_VAIN = 0.6
"""Share of the first pace at which it is asked whether slowing down helped."""
FEW = 5
ENOUGH = 20
PLENTY = 60
"""Requests that say something about a server's rate, what it is, and whether slowing down helped."""
HELPED = 0.75
"""Part of the first share of refusals that is few enough to say so."""
SLOWEST = 0.05
"""Share of the first pace below which none falls before that is known."""
OFTEN = 0.2
"""Share of refusals that teaches a pace although no three come in a row."""
UNMOVED = 60.0
"""Seconds for which no pace is learned after it did not help; four times as many each further time."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Bounds of the pauses, in seconds, after refusals that name none."""


class Pace:
    """The pace for one model or provider; times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._interval = 0.0
        self._next = 0.0
        self._held_back = False
        self._sure = False
        # A pause, and what is counted from the end of one to the end of the next.
        self._resume = 0.0
        self._pausing = False
        self._pauses = 0
        self._in_a_row = 0
        self._lately: deque[bool] = deque(maxlen=LATELY)
        self._began = 0.0
        self._taken = 0
        self._refusals = 0
        self._last_sent = float("-inf")
        # The same since the pace was lowered last.
        self._taken_then = self._refusals_then = 0
        # When the pace was lowered and raised last, and what it and the refusals were at first.
        self._lowered = self._raised = 0.0
        self._calm_until = 0.0
        self._first_interval = 0.0
        self._first_share = 0.0
        # What came of requests since the pace is `IN_VAIN` times the first one or slower.
        self._slow_taken = self._slow_refusals = 0
        self._unmoved_until = 0.0
        self._unmoved_for = UNMOVED

    @property
    def per_second(self) -> float:
        """Requests a second, or 0 while nothing was learned."""
        return 1 / self._interval if self._interval else 0.0

    def wait(self, now: float) -> tuple[float, str]:
        """Seconds until the next request may go, and why: "backoff" after refusals, "limit" at the pace."""
        if now < self._resume:
            return self._resume - now, "backoff"
        if self._pausing:
            self._learn(now)
        if self._interval and self._next > now:
            self._held_back = True
            return self._next - now, "limit"
        return 0.0, ""

    def take(self, now: float) -> None:
        """A request goes."""
        if now - self._last_sent > IDLE:
            self._begin(now)
        self._last_sent = now
        if self._interval:
            self._next = max(self._next, now - max(LATENESS, self._interval)) + self._interval

    def accepted(self, now: float) -> None:
        """A request was not refused, whatever its answer."""
        self._in_a_row = self._pauses = 0
        self._lately.append(False)
        self._taken += 1
        self._slow_taken += self._slow
        if self._interval:
            self._raise(now)

    def refused(self, now: float, retry_after: float | None) -> None:
        """A request was refused with 429.

        Args:
            now: The time.
            retry_after: Seconds after which the server wants to be asked again, or None.
        """
        self._in_a_row += 1
        self._lately.append(True)
        self._refusals += 1
        self._slow_refusals += self._slow
        if self._interval:
            self._lower(now)
        elif now - self._began > IDLE and self._taken > ENOUGH and self._refusals > OFTEN * self._taken:
            self._learn(now)
        if now < self._resume:
            # Of those that were under way, the last word counts.
            self._resume = max(self._resume, now + (retry_after or 0.0))
        elif self._no_accident(now):
            backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._pauses, 16))
            self._resume = now + (backoff if retry_after is None else retry_after)
            # The length of a pause of our own choosing says nothing.
            self._pausing = retry_after is not None or self._taken >= ENOUGH
            self._pauses += 1
            self._in_a_row = 0

    def _no_accident(self, now: float) -> bool:
        many = IN_A_ROW if now >= self._unmoved_until else MANY_IN_A_ROW
        return self._in_a_row >= many and 2 * sum(self._lately) >= len(self._lately)

    def rest(self, now: float, seconds: float) -> None:
        """Let nothing go for so long: the server says that nothing is left until then."""
        self._resume = max(self._resume, now + seconds)

    def _begin(self, now: float) -> None:
        self._began = now
        self._taken = self._refusals = self._taken_then = self._refusals_then = 0

    def _learn(self, now: float) -> None:
        """A pause is over: what was taken since the one before it ended is the rate, the pause included."""
        self._pausing = False
        seconds = now - self._began
        if self._taken and seconds > 0 and now >= self._unmoved_until:
            interval = seconds / self._taken
            if self._interval:
                interval = max(self._interval, min(interval, self._interval / DEEPEST))
            else:
                self._first_interval = interval
                self._first_share = self._refusals / (self._refusals + self._taken)
            self._sure = self._sure or self._taken >= ENOUGH
            self._set(interval, now)
            self._forget_if_in_vain(now)
        self._begin(now)

    def _set(self, interval: float, now: float) -> None:
        self._interval = min(interval, self._first_interval / SLOWEST)
        self._lowered = self._raised = now
        self._next = max(self._next, now)

    def _lower(self, now: float) -> None:
        if now < self._calm_until:
            return
        self._calm_until = now + CALM
        taken, refusals = self._taken - self._taken_then, self._refusals - self._refusals_then
        self._sure = self._sure or taken >= FEW
        self._taken_then, self._refusals_then = self._taken, self._refusals
        self._set(self._interval / min(LOWERED, max(DEEPEST, taken / (taken + refusals))), now)
        self._forget_if_in_vain(now)

    @property
    def _slow(self) -> bool:
        return self._interval * IN_VAIN > self._first_interval

    def _forget_if_in_vain(self, now: float) -> None:
        """Give the pace up where a slower one is refused as much as the first."""
        asked = self._slow_taken + self._slow_refusals
        if asked < PLENTY:
            return
        if self._slow_refusals > HELPED * self._first_share * asked:
            self._interval = 0.0
            self._unmoved_until = now + self._unmoved_for
            self._unmoved_for *= 4
        else:
            # It may help further: a burst that was taken at first says nothing about the rate.
            self._first_interval, self._first_share = self._interval, self._slow_refusals / asked
        self._slow_taken = self._slow_refusals = 0

    def _raise(self, now: float) -> None:
        """Raise the pace as time goes by without a refusal, where somebody had to wait for it."""
        if self._held_back:
            share = min(FASTEST, RAISED * 2.0 ** min(32.0, (now - self._lowered) / DOUBLES))
            share = share if self._sure else UNSURE
            self._interval /= 1 + share * (now - self._raised)
            self._held_back = False
        self._raised = now


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

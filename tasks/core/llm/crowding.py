"""Whether a refusal (429) is for too many requests at once, or for requests that come too fast.

A server that works on a few requests at once refuses each one more, often with a `Retry-After` that is meant
for rates. Such a refusal says how many it takes: those that are under way beside the refused one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.llm.advice import NO_ADVICE
from tasks.core.llm.retry import FIRST_BACKOFF

if TYPE_CHECKING:
    from tasks.core.llm.concurrency import AdaptiveLimit
    from tasks.core.llm.retry import AttemptError

SILENT = 3
"""Refusals in a row that give no reason and no time, from which on it is tried whether fewer at once help."""
ALONE = 5
ALONE_IN_SILENCE = 2
"""Refusals in a row for too many requests at once, while nothing else was under way: one more shows that
their number is not the reason; where the server says that it is, and where it says nothing."""
DOUBTS = 3
"""Single refusals without a reason, while fewer were under way than the server took before: one more shows
the same."""
UNSUSPECTED = 60.0
"""Seconds for which refusals are then taken as those of a rate; four times as many each further time."""
LONGEST_POLL = 2.0
"""Most seconds until a server that takes only so many at once is asked whether it has room again."""


class Crowding:
    """What the refusals of one endpoint show; times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        # Refusals without an answer between them; and those of them that nothing was under way beside.
        self._in_a_row = self._polls = 0
        # Whether silence is taken for crowding, and single refusals that speak against it.
        self._suspected = False
        self._doubts = 0
        self._unsuspected_until = 0.0
        self._unsuspected_for = UNSUSPECTED

    def answered(self) -> None:
        """An answer came."""
        self._in_a_row = self._polls = 0

    def refused(self, error: AttemptError, limit: AdaptiveLimit, now: float) -> float | None:
        """Note that a request was refused with 429, before it leaves the limit's count.

        The refusal means "too many at once" when the server says so. It means the same when the server names
        no time to retry, and has refused `SILENT` requests in a row or did so earlier. From then on the limit
        is the number of requests that are under way beside this one. When the server refuses a request that
        is alone, or refuses at ever lower limits, the number was not the reason: the limit is put back.

        Args:
            error: The refusal.
            limit: How many may be under way; lowered or put back.
            now: The time.

        Returns:
            Seconds after which the request may queue again, whatever the server asks for: 0 where others
            are under way, whose end makes room. None where the refusal is to be taken as one of a rate.
        """
        self._in_a_row += 1
        if now < self._unsuspected_until or not (error.crowded or self._suspicious(error, limit)):
            return None
        ceiling, others = limit.ceiling, limit.crowded(now)
        self._polls += not others or not limit.adaptive
        if ceiling and self._in_a_row == 1:
            self._doubts = self._doubts + 1 if others < ceiling else 0
        alone = not others and self._polls > (ALONE if error.crowded else ALONE_IN_SILENCE)
        if alone or (self._doubts > DOUBTS and not error.crowded):
            self._suspected = False
            self._doubts = self._polls = 0
            self._unsuspected_until = now + self._unsuspected_for
            self._unsuspected_for *= 4
            limit.not_crowded(now)
            return None
        self._suspected = self._suspected or not error.crowded
        if others and limit.adaptive:
            return 0.0
        return min(LONGEST_POLL, FIRST_BACKOFF * 2.0 ** min(self._polls - 1, 32))

    def _suspicious(self, error: AttemptError, limit: AdaptiveLimit) -> bool:
        """Whether a refusal without a reason is taken as one for too many at once."""
        if error.advice != NO_ADVICE or not limit.adaptive:
            return False
        return self._suspected or (self._in_a_row >= SILENT and limit.in_flight > 1)

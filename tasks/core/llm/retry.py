"""Whether a failed attempt is made again, and when: one pure function from what happened to a decision."""

from __future__ import annotations

import email.utils
import math
from dataclasses import dataclass
from datetime import UTC

RETRIED_STATUS = frozenset({408, 409, 429})
"""Client errors that pass by themselves; every 5xx is tried again as well."""

RATE_LIMITED = 429
SERVER_ERROR = 500
FIRST_BACKOFF = 1.0
"""Upper bound of the first pause, in seconds; it doubles with each further attempt."""


class AttemptError(Exception):
    """One attempt that brought no answer.

    Attributes:
        cause: `timeout`, `connection`, `malformed_response`, `rate_limited` or `http_<status>`.
        status: HTTP status, or None when there was no complete response.
        retry_after: Seconds that the server asked to wait, or None.
    """

    def __init__(
        self, cause: str, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        self.cause = cause
        self.status = status
        self.retry_after = retry_after
        super().__init__(message)

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status in RETRIED_STATUS or self.status >= SERVER_ERROR


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a model's calls are tried.

    Attributes:
        max_retries: Attempts after the first; -1 for no limit.
        max_backoff: Longest pause of our own choosing, in seconds.
    """

    max_retries: int
    max_backoff: float


def retry_delay(error: AttemptError, attempt: int, policy: RetryPolicy, jitter: float) -> float | None:
    """How long to wait before the next attempt.

    Args:
        error: What ended the attempt.
        attempt: The number of that attempt, counted from 1.
        policy: The model's policy.
        jitter: A random number from 0 to 1 that spreads the pauses of calls which failed together.

    Returns:
        Seconds to wait, or None when no further attempt is to be made. A server's `Retry-After` is
        honoured whole, also beyond `max_backoff`: knocking earlier only prolongs the wait.
    """
    if not error.passing or (policy.max_retries >= 0 and attempt > policy.max_retries):
        return None
    # The exponent is bounded only so that an endless policy does not overflow a float.
    ceiling = min(policy.max_backoff, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 32))
    backoff = ceiling * (0.5 + jitter / 2)
    return max(backoff, error.retry_after or 0.0)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number or an HTTP date; None when it is neither.

    Whatever a server puts there, nothing is raised.

    Args:
        value: The header's text, or None when it is missing.
        now: The current time in seconds since the epoch.
    """
    if value is None:
        return None
    text = value.strip()
    # isdecimal alone would admit other scripts' digits, which float() reads too: no harm.
    if text.replace(".", "", 1).isdecimal():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        when = email.utils.parsedate_to_datetime(text)
        # A date without a zone, as in the oldest of the three forms, is meant in GMT.
        return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):
        return None

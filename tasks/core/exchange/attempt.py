"""Whether a failed attempt is made again, and when: one pure function from what happened to a decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tasks.core.exchange.limit_headers import NO_ADVICE

if TYPE_CHECKING:
    from tasks.core.exchange.limit_headers import Advice
    from tasks.core.exchange.request import Refused

RATE_LIMITED = 429
LATER = 0.05
"""Seconds added to what a server asks for: its clock began when it answered, and may be ahead of ours."""

FIRST_BACKOFF = 0.25
"""Upper bound of the first pause, in seconds; it doubles with each further attempt."""


class Verdict(StrEnum):
    """What a failed attempt says about the next one."""

    RETRY = "retry"
    """The same request may succeed later."""
    THROTTLED = "throttled"
    """Too many requests: the same one succeeds once the server allows it. Not counted as an attempt."""
    GIVE_UP = "give_up"
    """This request is refused; others may not be."""
    FATAL = "fatal"
    """No request to this endpoint or model can succeed until somebody does something: the run stops."""
    RENEGOTIATE = "renegotiate"
    """The form of the request was refused; `Negotiation.learn` knows the next one."""


class AttemptError(Exception):
    """One attempt that brought no answer.

    Attributes:
        cause: `timeout`, `connection`, `malformed_response`, `rate_limited` or `http_<status>`.
        verdict: What it says about the next attempt.
        status: HTTP status, or None when there was no complete response; the code of an error object in a
            response that was no error otherwise.
        advice: What the server said about its limits.
        refused: What of the request was refused; with another verdict than RENEGOTIATE, what may have been.
        about_content: With GIVE_UP, whether the server says that it refuses what is in the request.
        reported: Whether it is an error that a server reports in place of an answer, with status 200.
        crowded: With THROTTLED, whether the server says that too many requests are under way at once.
        starved: With THROTTLED, whether it is this process that may open no more connections.
    """

    def __init__(
        self,
        cause: str,
        message: str,
        *,
        verdict: Verdict = Verdict.RETRY,
        status: int | None = None,
        advice: Advice = NO_ADVICE,
        refused: tuple[Refused, ...] = (),
        about_content: bool = False,
        crowded: bool = False,
        reported: bool = False,
        starved: bool = False,
    ) -> None:
        self.cause = cause
        self.verdict = verdict
        self.status = status
        self.advice = advice
        self.refused = refused
        self.about_content = about_content
        self.crowded = crowded
        self.reported = reported
        self.starved = starved
        super().__init__(message)

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asked to wait, or None."""
        return self.advice.retry_after

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.verdict in {Verdict.RETRY, Verdict.THROTTLED}


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
        Seconds to wait, or None when no further attempt is to be made. A server's `Retry-After`, as
        far as patience lasts, is honoured also beyond `max_backoff`: knocking earlier prolongs the wait.
    """
    used_up = error.verdict is Verdict.RETRY and 0 <= policy.max_retries < attempt
    if not error.passing or used_up:
        return None
    # The exponent is bounded only so that an endless policy does not overflow a float.
    ceiling = min(policy.max_backoff, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 32))
    backoff = ceiling * (0.5 + jitter / 2)
    return max(backoff, error.retry_after + LATER) if error.retry_after else backoff

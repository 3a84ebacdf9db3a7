"""A circuit breaker: an endpoint that only fails is left alone for a while, then tried with one request."""

from __future__ import annotations

FAILURES = 10
"""Failures without a success between them that open the circuit."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Bounds of the pauses, in seconds; each is twice the one before."""


class Breaker:
    """Counts what fails; times in seconds of one monotonic clock.

    Attributes:
        failing_since: When the first of the failures and refusals came that no answer followed; None after
            an answer.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._until = 0.0
        self._probing = False
        self.failing_since: float | None = None

    @property
    def open(self) -> bool:
        """Whether the endpoint is left alone."""
        return self._failures >= FAILURES

    def wait(self, now: float) -> float:
        """Seconds until a request may go; infinite while the one that probes is under way."""
        if not self.open:
            return 0.0
        return float("inf") if self._probing else max(0.0, self._until - now)

    def take(self) -> None:
        """A request goes; through an open circuit it is the one that probes."""
        self._probing = self.open

    def succeeded(self) -> None:
        """An answer came."""
        self.responded()
        self.failing_since = None

    def responded(self) -> None:
        """The endpoint is there, whatever it said."""
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._probing = False

    def failed(self, now: float) -> None:
        """No answer came, for a reason that may pass."""
        self.suffered(now)
        was_open = self.open
        self._failures += 1
        if self.open and (self._probing or not was_open):
            self._until = now + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            self._probing = False

    def suffered(self, now: float) -> None:
        """Note the time of what may be the first of many failures or refusals."""
        if self.failing_since is None:
            self.failing_since = now

    def idle(self) -> None:
        """Nothing is under way: if the request that probed was cancelled, another one may."""
        self._probing = False

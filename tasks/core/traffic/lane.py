"""A model's lane: when each of its requests may be sent, and how many jobs may work at once.

A lane is the queue for one model at one address. The first in the queue goes when the allowance has room,
the circuit is closed and a place is free; who waits holds no place. What a server says and how it fails is
told to the lane, and decides how the next ones go.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from tasks.core.errors import EndpointError
from tasks.core.traffic.concurrency import LONGEST_POLL, Crowding
from tasks.core.traffic.stop import stood_still

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from tasks.core.exchange.attempt import AttemptError
    from tasks.core.exchange.limit_headers import Advice
    from tasks.core.progress import Progress
    from tasks.core.traffic.concurrency import AdaptiveLimit
    from tasks.core.traffic.quota import Allowance
    from tasks.core.traffic.stop import Stop


FAILURES = 10
"""Failures without a success between them that open the circuit."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Bounds of the pauses, in seconds; each is twice the one before."""


class Breaker:
    """Counts what fails; times in seconds of one monotonic clock.

    Attributes:
        failing_since: When the first of the failures and refusals came that no answer followed, as it was
            given to `suffered`; None after an answer.
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
        was_open = self.open
        self._failures += 1
        if self.open and (self._probing or not was_open):
            self._until = now + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            self._probing = False

    def suffered(self, awake: float) -> float:
        """Note a failure or a refusal; gives when the first one came that no answer followed.

        Args:
            awake: The time, without that in which the process stood still.
        """
        if self.failing_since is None:
            self.failing_since = awake
        return self.failing_since

    def idle(self) -> None:
        """Nothing is under way: if the request that probed was cancelled, another one may."""
        self._probing = False


log = logging.getLogger("vellumforge.lanes")

TOLD_TO_WAIT = 60.0
"""Seconds until a reset that are waited when a server says that nothing is left; what is longer, such as a
day's limit, is believed when it refuses."""

MOST_UNUSABLE = 10
"""Responses in a row that were paid for, with status 200, and held no answer: more of them bring none."""

FEW_ANSWERS = 20
"""Weight of the past, in answers, in the mean of their tokens."""


class Lane:
    """The queue for one model; made by `run.open_run`, shared by the roles that ask this model.

    Attributes:
        name: The model and its host, for messages.
        answered: Whether it ever brought an answer in this run.
    """

    def __init__(
        self,
        name: str,
        allowance: Allowance,
        limit: AdaptiveLimit,
        *,
        stop: Stop,
        progress: Progress,
        patience: float = math.inf,
        longest_wait: float = math.inf,
    ) -> None:
        """Make a lane.

        Args:
            name: The model and its host.
            allowance: What may be asked; shared by the lanes of a provider.
            limit: How many requests may be under way.
            stop: Ends every wait; told when the model brings nothing any more.
            progress: Shown what holds the run back.
            patience: Seconds that failures and refusals may last without any answer, in which the process
                runs.
            longest_wait: Most seconds that are waited because a server asks for it.
        """
        self.name = name
        self.answered = False
        self._allowance = allowance
        self._limit = limit
        self._breaker = Breaker()
        self._stop = stop
        self._progress = progress
        self._patience = patience
        self._longest_wait = longest_wait
        self._said_long = self._said_starved = False
        self._queue: deque[tuple[asyncio.Future[None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._mean_tokens: dict[str, float] = {}
        self._last_words = ""
        self._unusable = 0
        self._crowding = Crowding()
        stop.listen(self._release_all)

    async def enter(self, tokens: float) -> None:
        """Wait for this request's turn; whoever entered must leave through `passage`.

        Args:
            tokens: What the request may cost, as estimated by `expected_tokens`.

        Raises:
            VellumforgeError: The run was told to stop.
        """
        self._stop.check()
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((turn, tokens))
        self._pump()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise
        if self._stop.requested:
            self._leave()
            self._stop.check()

    @contextmanager
    def passage(self) -> Iterator[None]:
        """An attempt, from its entrance to its end."""
        self._progress.in_flight += 1
        try:
            yield
        finally:
            self._progress.in_flight -= 1
            self._leave()

    def answered_in(self, seconds: float, kind: str, expected: float, spent: float) -> None:
        """An answer came.

        Args:
            seconds: How long it took.
            kind: What it was for.
            expected: The tokens that were estimated.
            spent: The tokens that it cost.
        """
        now = self._now()
        self.answered = True
        self._last_words = ""
        self._unusable = 0
        self._crowding.answered()
        self._breaker.succeeded()
        self._allowance.pace.accepted(now)
        self._allowance.tokens.correct(now, spent - expected)
        self._limit.answered(now, seconds, kind)
        mean = self._mean_tokens.get(kind, spent)
        self._mean_tokens[kind] = mean + (spent - mean) / FEW_ANSWERS

    def heed(self, advice: Advice) -> None:
        """Keep to what a server says of its limits, beside a refusal's Retry-After."""
        now = self._now()
        allowance = self._allowance
        if advice.limit_requests:
            allowance.requests.lower(advice.limit_requests)
        if advice.limit_tokens:
            allowance.tokens.lower(advice.limit_tokens)
        for left, reset in (
            (advice.remaining_requests, advice.reset_requests),
            (advice.remaining_tokens, advice.reset_tokens),
        ):
            if left == 0 and reset is not None and reset <= min(TOLD_TO_WAIT, self._longest_wait):
                allowance.pace.rest(now, reset)

    def note(self, error: AttemptError) -> None:
        """An attempt brought no answer. Told first: what it says is what a stop ends with."""
        self._last_words = str(error)
        if error.advice.words:
            self._last_words += f" ({error.advice.words})"
        self._shorten_wait(error)
        if error.cause == "malformed_response" and not error.reported:
            self._unusable += 1
            if self._unusable == MOST_UNUSABLE:
                self._stop.request(
                    EndpointError(
                        f"{self.name} answered {MOST_UNUSABLE} requests in a row with status 200 and "
                        f"without an answer, which it may charge for{self._last}"
                    )
                )

    def _shorten_wait(self, error: AttemptError) -> None:
        """Let no server ask for a longer wait than patience lasts: it is asked again then."""
        asked, now = error.retry_after, self._awake()
        since = self._breaker.failing_since
        patience_ends = self._patience + (now if since is None else since)
        most = max(FIRST_PAUSE, min(self._longest_wait, patience_ends - now))
        if asked is None or asked <= most:
            return
        error.advice = replace(error.advice, retry_after=most)
        if not self._said_long:
            self._said_long = True
            log.warning(
                "%s asks to wait longer than execution.patience_minutes; it is asked again in %.0f s%s",
                self.name,
                most,
                self._last,
            )

    def crowded(self, error: AttemptError) -> float | None:
        """The server answered 429: whether for too many requests at once; see `Crowding.refused`.

        Where no file descriptor was left for the request, fewer are under way from now on.

        Returns:
            Seconds after which the refused request may queue again; None where it is to be told as `refused`.
        """
        now = self._now()
        if error.starved:
            return self._starved(now)
        wait = self._crowding.refused(error, self._limit, now)
        if wait is not None:
            self._breaker.responded()
            self._lose_patience()
        return wait

    def _starved(self, now: float) -> float:
        others = self._limit.starved(now)
        if not self._said_starved:
            self._said_starved = True
            log.warning(
                "%s is asked less at a time: %s; raise the limit of open files (ulimit -n), or lower "
                "generation.concurrency",
                self.name,
                self._last_words,
            )
        self._lose_patience()
        return 0.0 if others > 0 else LONGEST_POLL

    def refused(self, retry_after: float | None) -> None:
        """The server answered 429."""
        now = self._now()
        bound = self._limit.full
        self._breaker.responded()
        self._allowance.refused(now, retry_after)
        if bound:
            self._limit.refused(now)
        self._lose_patience()

    def failed(self) -> None:
        """No answer came, for a reason that may pass."""
        now = self._now()
        self._allowance.pace.accepted(now)
        was_open = self._breaker.open
        self._breaker.failed(now)
        if self._breaker.open and not was_open:
            log.warning(
                "%s only fails; it is left alone for a while, then tried again%s", self.name, self._last
            )
        self._lose_patience()

    def rejected(self) -> None:
        """The server is there and will not have this one request."""
        self._breaker.responded()
        self._allowance.pace.accepted(self._now())

    def expected_tokens(self, kind: str, characters: int, most: int) -> float:
        """Tokens that a question of so many characters and its answer may cost."""
        # Four characters a token hold for European languages; the mean of what was reported corrects it.
        return self._mean_tokens.get(kind, characters / 4 + most / 4)

    def _lose_patience(self) -> None:
        """Note a failure or a refusal; stop the run when they last too long."""
        now = self._awake()
        since = self._breaker.suffered(now)
        if now - since > self._patience:
            self._stop.request(
                EndpointError(
                    f"{self.name} has brought no answer for {(now - since) / 60:.0f} minutes; "
                    f"what was paid for is kept: resume when it answers again{self._last}"
                )
            )

    @property
    def _last(self) -> str:
        """The last words of the server, for the end of a message."""
        return f"; last: {self._last_words}" if self._last_words else ""

    def _leave(self) -> None:
        self._limit.leave()
        if not self._limit.in_flight:
            self._breaker.idle()
        self._pump()

    def _pump(self) -> None:
        """Let go whoever may; else see to it that somebody looks again in time."""
        while self._queue:
            turn, tokens = self._queue[0]
            if turn.done():  # Cancelled while waiting.
                self._queue.popleft()
                continue
            now = self._now()
            wait, why = self._obstacle(now, tokens)
            if wait > 0:
                self._hold(why)
                self._look_again(wait)
                return
            self._queue.popleft()
            self._allowance.take(now, tokens)
            self._breaker.take()
            self._limit.enter()
            turn.set_result(None)
        self._hold("")

    def _obstacle(self, now: float, tokens: float) -> tuple[float, str]:
        """Seconds that the first must wait, infinite until another one leaves, and for what."""
        if (wait := self._breaker.wait(now)) > 0:
            return wait, "backoff"
        if self._limit.full:
            return math.inf, "server"
        return self._allowance.wait(now, tokens)

    def _look_again(self, wait: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait < math.inf:
            self._timer = asyncio.get_running_loop().call_later(wait, self._pump)

    def _release_all(self) -> None:
        """The run was told to stop: everybody who waits learns of it."""
        while self._queue:
            turn, _ = self._queue.popleft()
            if not turn.done():
                self._limit.enter()
                turn.set_result(None)

    def _hold(self, why: str) -> None:
        if why:
            self._progress.held[self.name] = why
        else:
            self._progress.held.pop(self.name, None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _awake(self) -> float:
        """The time without that in which the process stood still: nobody could answer it then."""
        return self._now() - stood_still()


class Slots:
    """A semaphore whose places can be lent while their holders wait to try a call again.

    Who comes back works on at once, so for a while there may be more at work than places, at most twice as
    many: nobody new is let in until there are fewer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._lent = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> Self:
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return self
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend a place while the block waits, as long as no more are lent than there are."""
        if self._lent >= self._size:
            yield
            return
        self._lent += 1
        self._give_back()
        try:
            yield
        finally:
            self._lent -= 1
            self._free -= 1

    def _give_back(self) -> None:
        self._free += 1
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

"""How many requests an endpoint is sent at the same time, found out by watching what comes of it.

The limit climbs while more requests at once bring more answers a second. When they do not, the rest only
waited in the server's queue: by Little's law as many were worked on as answers a second times the seconds
that one takes while nobody waits. From then on a little more and a little less are tried now and then. It
is halved when the server keeps refusing (429), and when answers take longer without becoming more. Where a
refusal says that too many requests are under way, those that are not refused are as many as it takes.

Only what is measured at the limit counts: a run that asks for less than an endpoint could do says nothing
about the endpoint.

A server that works on a few requests at once refuses each one more, often with a `Retry-After` that is meant
for rates. Such a refusal says how many it takes: those that are under way beside the refused one. So does a
process that may open no more files: it begins with as many jobs as it has descriptors for.
"""

from __future__ import annotations

import errno
import resource
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tasks.core.exchange.attempt import FIRST_BACKOFF
from tasks.core.exchange.limit_headers import NO_ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.core.exchange.attempt import AttemptError


FIRST = 16
"""Requests at once before anything is known, where nobody expects more."""

CLIMB = 4
"""Factor of a step while climbing."""
CLIMBED = 1.4
"""Factor by which answers a second must grow for a step to have been worth it."""

AGAIN = 3
"""Times that climbing begins anew because a run did not ask for as much as it might."""

AT_THE_LIMIT = 0.8
"""Share of a round's answers that must come while the limit holds others back; else it shows nothing."""

HALF = 0.9
"""Share of the most answers a second that half as many requests must bring to be enough."""

ROUND = 16
"""Fewest answers that are measured before anything is decided; a round has at least twice the limit."""
TRIAL_EVERY = 4
TRIAL_SELDOM = 32
"""Rounds between two trials of another limit: at first, and when trial after trial brought nothing."""
MORE = 1.25
LESS = 0.8
"""What is tried, as a factor."""
WORTH = 0.5
"""Share of a raise that answers a second must gain for it to be kept."""
LOSS = 0.03
"""Share of answers a second that may be lost for a lower limit to be kept."""

FAST = 0.02
"""Seconds: answers that are there so soon wait in nobody's queue, and what little they do, hurts nobody."""

SLOWER = 2.0
FEWER = 0.75
"""An endpoint that takes so many times as long and answers so much less often has become slower."""

IN_A_ROW = 4
"""Refusals without an answer between them that halve it: one alone may have any reason."""
CALM = 1.0
"""Seconds after a halving in which refusals, of requests that were under way already, halve nothing more."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a round showed: the limit, answers a second, mean seconds of an answer."""

    limit: int
    rate: float
    seconds: float


CROWDED_FOR = 4
CROWDED_LONGEST = 64
"""Rounds for which no more is tried than what a server says is all that it takes at once: at first, and at
most; twice as many each time that it says so again."""


class AdaptiveLimit:
    """The limit of one endpoint; times in seconds of one monotonic clock.

    Attributes:
        limit: Requests that may be under way at once.
        in_flight: Requests that are.
        adaptive: Whether anything is found out.
        ceiling: As many as the server takes at once, by its refusals; 0 while they show nothing.
    """

    def __init__(self, most: int, *, first: int = FIRST, adaptive: bool = True) -> None:
        """Make a limit.

        Args:
            most: It never rises above; what the run itself may ask at once.
            first: Where it begins; `FIRST` if that is more.
            adaptive: Whether anything is found out; else the limit is `most` for good.
        """
        self._most = most
        self.adaptive = adaptive
        self.limit = min(max(FIRST, first), most) if adaptive else most
        self.in_flight = 0
        self._peak = 0
        self._search: Callable[[_Measured], None] | None = self._climb
        self._best: _Measured | None = None
        self._settled: _Measured | None = None
        self._again = 0
        self._rounds = 0
        self._trial_every = TRIAL_EVERY
        self._raise_next = False
        self._calm_until = 0.0
        self._in_a_row = 0
        self._kind = ""
        self.ceiling = 0
        # Rounds for which that is believed, now and the next time; and the limit before.
        self._ceiling_rounds = 0
        self._crowded_for = CROWDED_FOR
        self._uncrowded = 0
        # The round that is being measured.
        self._skip = self._count = self._full = self._size = 0
        self._began = self._seconds = 0.0
        self._begin(0.0, skip=0)

    @property
    def full(self) -> bool:
        """Whether no further request may go."""
        return self.in_flight >= self.limit

    def enter(self) -> None:
        """A request goes."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def leave(self) -> None:
        """A request ended, however it did."""
        self.in_flight -= 1

    def answered(self, now: float, seconds: float, kind: str) -> None:
        """An answer came; told before the request leaves.

        Args:
            now: The time.
            seconds: How long it took.
            kind: What it was for: answers of different kinds take different times.
        """
        if not self.adaptive:
            return
        self._in_a_row = 0
        if kind != self._kind:
            self._kind = kind
            self._best = self._settled = None
            self._begin(now, skip=0)
            return
        if self._skip:
            self._skip -= 1
            if not self._skip:
                self._began = now
            return
        self._count += 1
        self._full += self.full
        self._seconds += seconds
        # Where fewer are under way than might be, so many are all that there is to be measured.
        below = self._full < AT_THE_LIMIT * self._count
        size = min(self._size, max(ROUND, self._peak)) if below else self._size
        if self._count < size or now <= self._began:
            return
        measured = _Measured(self.limit, self._count / (now - self._began), self._seconds / self._count)
        if not below and measured.seconds < FAST:
            self._hurry()
        elif not below:
            (self._search or self._settle)(measured)
        elif self._search:
            self.limit = min(self.limit, max(FIRST, self._peak))
        self._keep_below_ceiling()
        self._begin(now, skip=0 if self._search == self._climb else self.in_flight)

    def refused(self, now: float) -> None:
        """The server answered 429 while the limit was what held requests back."""
        self._in_a_row += 1
        if not self.adaptive or now < self._calm_until or self._in_a_row < IN_A_ROW:
            return
        self._in_a_row = 0
        self._halve()
        self._calm_until = now + CALM
        self._begin(now, skip=0)

    def crowded(self, now: float) -> int:
        """The server answered 429 and says that it works on as many as it takes at once.

        Told before the refused request leaves. The others that are under way are what it takes: the limit
        falls to their number at once.

        Returns:
            How many those are.
        """
        others = self.in_flight - 1
        if self.adaptive and others < self.limit:
            self._uncrowded = max(self.limit, self._uncrowded if self.ceiling else 0)
            self.limit = self.ceiling = max(1, others)
            self._ceiling_rounds = self._crowded_for
            self._search = self._best = None
            if self._settled is not None and self._settled.limit != self.limit:
                self._settled = None
            self._begin(now, skip=0)
        return others

    def starved(self, now: float) -> int:
        """No file descriptor was left for a request: never again are so many under way.

        Told before that request leaves.

        Returns:
            How many others are under way.
        """
        others = self.in_flight - 1
        if max(1, others) < self._most:
            self._most = max(1, others)
            self.limit = min(self.limit, self._most)
            self._uncrowded = min(self._uncrowded, self._most)
            self._search = self._best = self._settled = None
            self._begin(now, skip=0)
        return others

    def not_crowded(self, now: float) -> None:
        """What looked like too many at once was something else: the limit is what it was before."""
        if self.ceiling:
            self.limit = self._uncrowded
            self.ceiling = 0
            self._search = self._climb
            self._best = self._settled = None
            self._begin(now, skip=self.in_flight)

    def _keep_below_ceiling(self) -> None:
        """After a round: no more than the server takes at once, until it is time to try."""
        if not self.ceiling:
            # More than that was tried, and a whole round of it was taken.
            self._crowded_for = CROWDED_FOR
            return
        self._ceiling_rounds -= 1
        if self.limit > self.ceiling:
            if self._ceiling_rounds > 0:
                self.limit = self.ceiling
            else:
                self.ceiling = 0
                self._crowded_for = min(CROWDED_LONGEST, 2 * self._crowded_for)

    def _begin(self, now: float, *, skip: int) -> None:
        """Begin a round; `skip` answers belong to requests of before."""
        self._skip = skip
        self._began = now
        self._count = 0
        self._seconds = 0.0
        self._full = 0
        self._peak = self.in_flight
        self._size = max(self.limit, FIRST) if self._search == self._climb else max(ROUND, 2 * self.limit)

    def _hurry(self) -> None:
        """More, whatever it brings: what is measured of so fast a server is mostly our own work."""
        if self._search == self._climb:
            self.limit = min(self._most, CLIMB * self.limit)
        else:
            self._search = None
            self.limit = self._more()
        self._best = self._settled = None

    def _climb(self, measured: _Measured) -> None:
        """Four times as many as long as that is worth it, then half of what was enough."""
        best = self._best
        if best is not None and measured.limit < CLIMBED * best.limit:
            # Much the same limit, because the run asked for less meanwhile: that shows nothing new.
            self._again += 1
            if self._again > AGAIN:
                self._search = None
                return
            best = None
        if best is None or measured.rate >= CLIMBED * best.rate:
            self._best = measured
            self._search = self._climb if self.limit < self._most else None
            self.limit = min(self._most, CLIMB * self.limit)
            return
        self._best = replace(best, rate=max(best.rate, measured.rate))
        self.limit = best.limit
        self._search = self._descend
        self.limit = max(1, self.limit // 2)

    def _descend(self, measured: _Measured) -> None:
        """Half as many as long as they are enough; in the end nobody waited in the server's queue."""
        best = self._best or measured
        if measured.rate >= HALF * best.rate and self.limit > 1:
            self._best = replace(measured, rate=max(best.rate, measured.rate))
            self.limit = max(1, self.limit // 2)
            return
        self.limit = max(self.limit, min(best.limit, round(best.rate * measured.seconds)))
        self._search = self._best = None

    def _settle(self, measured: _Measured) -> None:
        settled = self._settled
        self._rounds += 1
        if settled is None:
            self._settled = measured
        elif self.limit != settled.limit:
            self._judge_trial(settled, measured)
        elif measured.seconds > SLOWER * settled.seconds and measured.rate < FEWER * settled.rate:
            self._halve()
        else:
            # A slow mean, so that one lucky round decides nothing.
            rate = 0.7 * settled.rate + 0.3 * measured.rate
            seconds = 0.7 * settled.seconds + 0.3 * measured.seconds
            self._settled = _Measured(self.limit, rate, seconds)
            if self._rounds >= self._trial_every:
                self._rounds = 0
                self._raise_next = not self._raise_next
                self.limit = self._more() if self._raise_next else max(1, int(self.limit * LESS))

    def _judge_trial(self, settled: _Measured, tried: _Measured) -> None:
        """Keep a limit that was tried when it brings more, or as much with less."""
        raised = tried.limit / settled.limit - 1
        gained = tried.rate / settled.rate - 1
        if gained >= (WORTH * raised if raised > 0 else -LOSS):
            self._settled = tried
            self._trial_every = TRIAL_EVERY
            # What was worth one step may be worth another.
            self.limit = self._more() if raised > 0 else max(1, int(self.limit * LESS))
        else:
            self.limit = settled.limit
            self._trial_every = min(TRIAL_SELDOM, 2 * self._trial_every)

    def _more(self) -> int:
        return min(self._most, max(self.limit + 1, int(self.limit * MORE)))

    def _halve(self) -> None:
        self.limit = max(1, self.limit // 2)
        self._search = self._best = self._settled = None
        self._trial_every = TRIAL_EVERY


OWN_FILES: Final = 96
"""Files that a run opens beside its connections: the ledger, the session, logs, Prefect's client."""

NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""What the system says when this process, or the machine, may open no more files."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many jobs this process has file descriptors for.

    Attributes:
        jobs: As many as fit, at least one, and no more than are wanted.
        most: Files that it may open; 0 for no limit.
        needed: Files that it would have to be allowed to open for all that are wanted.
    """

    jobs: int
    most: int
    needed: int


def room_for(jobs: int, connections: int) -> Room:
    """How many jobs fit below the soft limit of open files, as many as are open now.

    Args:
        jobs: Those that are wanted.
        connections: Connections that one job may have.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = _open_files() + OWN_FILES
    needed = taken + jobs * connections
    if most == resource.RLIM_INFINITY or needed <= most:
        return Room(jobs, 0 if most == resource.RLIM_INFINITY else most, needed)
    return Room(max(1, (most - taken) // connections), most, needed)


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(list(Path(folder).iterdir()))
    return 0


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

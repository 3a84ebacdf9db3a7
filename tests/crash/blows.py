"""When and how a run is killed: drawn from a seed, so that a run of kills can be repeated."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections import Counter
    from pathlib import Path

    from tests.flows.command import Model, Process, User

LATENCY = 0.15
"""Seconds that the model takes: slow enough to be killed in mid-work."""

LONG_GRACE = 10.0
GRACES = (0.05, 0.3, LONG_GRACE)
"""Seconds that a SIGTERM leaves to calls in flight: the first gives most of them up, the last none."""

PHASE_OF = {"subtopics": "subtopics", "prompts": "prompts"} | dict.fromkeys(
    ("prose", "judge", "comparison", "checks"), "pairs"
)
"""The phase that makes calls of a kind, in the order of a run."""

PHASES = ("start", "replay", *dict.fromkeys(PHASE_OF.values()), "projection", "end")
"""Where a kill hit: before the session was open, while kept answers were read again, in a phase's calls,
when every answer was kept, when the session was complete."""

OPENING_SECONDS = 0.05
ORDERING_SECONDS = 0.02
"""What a session's opening takes, and the files at its end: a kill comes within this of the first sign."""

_QUICK_POLL = 0.0002


class Kind(StrEnum):
    """What kills it."""

    KILL = "SIGKILL"
    TERM = "SIGTERM"
    GROUP = "SIGKILL to the group"


class Aim(StrEnum):
    """What is aimed at, in the order of a run."""

    START = "start"  # at any time before the first call
    OPENING = "opening"  # the files at the beginning
    SUBTOPICS = "subtopics"
    PROMPTS = "prompts"
    PAIRS = "pairs"
    ORDERING = "ordering"  # the files at the end
    END = "end"  # at any time between the last call and the end


_AIMS = (*Aim, Aim.PAIRS)


@dataclass(frozen=True)
class Blow:
    """One kill.

    Attributes:
        kind: What kills.
        aim: What is aimed at.
        share: Where in it, from 0 to 1: of the calls or the time that are left of it.
        delay: Where between two calls, from 0 to 1.
        grace: `execution.grace_seconds` of the run.
    """

    kind: Kind
    aim: Aim
    share: float
    delay: float
    grace: float

    def __str__(self) -> str:
        return f"{self.kind} aimed at {self.aim} + {self.share:.2f}, grace {self.grace:g} s"


def plan(chance: random.Random, number: int) -> list[Blow]:
    """The kills of one run, in the order of a run: all aims and all kinds when there are enough."""
    aims, kinds = list(_AIMS), list(Kind)
    chance.shuffle(aims)
    chance.shuffle(kinds)
    order = list(Aim)
    chosen = sorted((aims[i % len(aims)] for i in range(number)), key=order.index)
    blows = []
    for i, aim in enumerate(chosen):
        # Several in one phase leave something to each other.
        share = chance.random() / chosen[i:].count(aim)
        blows.append(Blow(kinds[i % len(kinds)], aim, share, chance.random(), chance.choice(GRACES)))
    return blows


@dataclass
class Times:
    """How long parts of a run take here, in seconds.

    Attributes:
        lead: From the start to the first call.
        tail: From the arrival of the last call to the end.
    """

    lead: float
    tail: float


@dataclass(frozen=True)
class Started:
    """A run just started, which is to be killed.

    Attributes:
        process: Its process.
        user: Whose run it is.
        server: Its model; nothing was in flight there.
        missing: Calls that it has yet to make, by kind.
        times: What is known of such runs' times; its first call brings it up to date.
    """

    process: Process
    user: User
    server: Model
    missing: Counter[str]
    times: Times

    def until(self, blow: Blow) -> bool:
        """Wait for the moment of a kill; False when the process ended before."""
        known = _signs(self.user)
        if blow.aim is Aim.START:
            return self._sleep(blow.share * self.times.lead, or_call=True)
        if blow.aim is Aim.OPENING:
            return self._until_sign(known, ".lock") and self._sleep(blow.share * OPENING_SECONDS)
        if self.missing and not self._until_calls(_calls_before(blow, self.missing)):
            return False
        if blow.aim is Aim.ORDERING:
            sign = ".dataset.jsonl.*.part"
            return self._until_sign(known, sign) and self._sleep(blow.share * ORDERING_SECONDS)
        if blow.aim is Aim.END or not self.missing:
            lead = 0.0 if self.missing else self.times.lead
            return self._sleep(lead + blow.share * self.times.tail)
        return self._sleep(blow.delay * LATENCY)

    def _until_calls(self, number: int) -> bool:
        """Wait until so many calls arrived; False when the process ended before."""
        started, before = time.monotonic(), self._calls()
        if not self.server.until_requests(before + 1, self.process):
            return False
        self.times.lead = time.monotonic() - started
        return self.server.until_requests(before + number, self.process)

    def _until_sign(self, known: set[tuple[Path, int]], name: str) -> bool:
        """Wait until a hidden file of this name is written; False when the process ended before."""
        while self.process.running:
            if any(path.match(name) for path, _ in _signs(self.user) - known):
                return True
            time.sleep(_QUICK_POLL)
        return False

    def _sleep(self, seconds: float, *, or_call: bool = False) -> bool:
        """Let so many seconds pass, or the first call come; False when the process ended before."""
        end, before = time.monotonic() + seconds, self._calls()
        while self.process.running and (left := end - time.monotonic()) > 0:
            if or_call and self._calls() > before:
                break
            time.sleep(min(left, 0.01))
        return self.process.running

    def _calls(self) -> int:
        arrived: int = self.server.stats()["requests"]
        return arrived


def _calls_before(blow: Blow, missing: Counter[str]) -> int:
    """How many calls arrive before the kill: all of those before its phase, and its share of those in it."""
    order = list(Aim)
    aimed = order.index(blow.aim)
    before = here = 0
    for kind, number in missing.items():
        place = order.index(Aim(PHASE_OF[kind]))
        before += number if place < aimed else 0
        here += number if place == aimed else 0
    return min(before + max(1, math.ceil(blow.share * here)), missing.total())


def _signs(user: User) -> set[tuple[Path, int]]:
    """The hidden files in session folders, and when each was last written."""
    signs = set()
    for path in (user.folder / "output").glob("session_*/.*"):
        try:
            signs.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:  # renamed meanwhile: that is what it was there for
            signs.add((path, 0))
    return signs

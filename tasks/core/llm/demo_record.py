"""What the demo model server remembers of the requests that it got."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counts of chat requests since the server started.

    Attributes:
        requests: Requests that arrived.
        answered: Completions sent in full.
        in_flight: Requests that arrived and are not answered yet.
        duplicates: Completions sent in full for a request that had one already, by body and key.
        by_purpose: Requests by what they ask for: subtopics, prompts, prose, judge.
        connections: Connections opened, whatever they were used for.
        statuses: Answers by HTTP status, those that were cut or dropped included.
    """

    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    duplicates: int = 0
    by_purpose: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Record:
    """One chat request.

    Attributes:
        key: Its Idempotency-Key, or None.
        body_hash: Of the fields that decide the answer, as hex; of the whole body when it is malformed.
        model: "" when the body is malformed.
        kind: subtopics, prompts, prose or judge; "" when the body is malformed.
        status: HTTP status of its answer.
        arrived: When it arrived, in seconds of the server's clock.
        ended: When its answer was sent or dropped, by the same clock.
        finished: Whether the answer was sent in full.
    """

    key: str | None
    body_hash: str
    model: str
    kind: str
    status: int = 200
    arrived: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    finished: bool = False

    def end(self, *, finished: bool) -> None:
        """Note the end of its answer."""
        self.ended = time.monotonic()
        self.finished = finished

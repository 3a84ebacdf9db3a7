"""How the demo model behaves: what goes wrong, and how often."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from hashlib import sha256

from tasks.core.errors import UsageError


@dataclass(frozen=True)
class Behaviour:
    """How the demo model behaves. Shares are 0 to 1 and decided by hashes, so that a run can be repeated.

    Attributes:
        latency_ms: Milliseconds before a chat request is answered, whatever the answer.
        refuse: Share of prose answers that are refusals.
        repeat: Share of list items that are well-known ones, the same in all answers.
        bad: Share of list and judge answers that are broken JSON or nonsense.
        empty: Share of answers without content.
        cut: Share of prose answers that stop mid-sentence, with finish reason `stop`.
        reasoning: Share of answers with `reasoning_content`; its tokens count towards the limit.
        error: Share of attempts that are answered 500.
        rate_limited: Share of attempts that are answered 429.
        retry_after: The Retry-After header of a 429, in seconds.
        truncate: Share of attempts whose body is cut off before the connection is closed.
        unfinished: Share of streams that end in order, but before the answer does.
        fail_models: Models that are answered 404.
        fail_matching: Requests whose messages contain it are answered 400; "" for none.
        error_matching: Requests whose messages contain it are answered 500; "" for none.

    Raises:
        UsageError: A number out of its range.
    """

    latency_ms: float = 0.0
    refuse: float = 0.0
    repeat: float = 0.0
    bad: float = 0.0
    empty: float = 0.0
    cut: float = 0.0
    reasoning: float = 0.0
    error: float = 0.0
    rate_limited: float = 0.0
    retry_after: float = 0.0
    truncate: float = 0.0
    unfinished: float = 0.0
    fail_models: tuple[str, ...] = ()
    fail_matching: str = ""
    error_matching: str = ""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if isinstance(field.default, float)):
            value, top = getattr(self, name), math.inf if name in {"latency_ms", "retry_after"} else 1
            if not 0 <= value <= top or math.isinf(value):
                allowed = "0 or more" if top > 1 else "0 to 1"
                raise UsageError(f"{name} is {value:g}; allowed: {allowed}")


def happens(share: float, seed: bytes, what: str) -> bool:
    """Whether something with this share happens to this seed: always the same answer."""
    if share <= 0:
        return False
    return int.from_bytes(sha256(seed + what.encode()).digest()[:4], "big") < share * 2**32

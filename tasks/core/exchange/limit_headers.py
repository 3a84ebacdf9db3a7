"""What a server says about its limits in the headers of a response. Nothing that it says raises an error."""

from __future__ import annotations

import email.utils
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tasks.core.printable import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LONGEST_TEXT: Final = 400
"""Characters of a header that are read; no number and no date is longer."""

_LONGEST_SHOWN: Final = 60
"""Characters of a header that are shown."""

_SHOWN: Final = {"retry-after-ms": "retry-after-ms", "retry-after": "Retry-After"}

# A reset given as a number from here on is a time since the epoch, not a span.
_EPOCH_SECONDS: Final = 1e9
_EPOCH_MILLISECONDS: Final = 1e12

_COUNT: Final = re.compile(r"\s*+([0-9]{1,15})(?![0-9])")
_SPAN: Final = re.compile(r"([0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(ms|us|µs|ns|s|m|h|d)")
_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}


@dataclass(frozen=True, slots=True)
class Advice:
    """Limits and pauses as a server reports them; None for what it does not.

    Attributes:
        retry_after: Seconds to wait before the next attempt.
        limit_requests: Requests that the server's window allows; how long that is, it does not say.
        remaining_requests: Those of them that are left.
        reset_requests: Seconds until they are all there again.
        limit_tokens: Tokens that the server's window allows.
        remaining_tokens: Those of them that are left.
        reset_tokens: Seconds until they are all there again.
        words: The header that asks to wait and its value, for messages, also where that is no time.
    """

    retry_after: float | None = None
    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None
    words: str = field(default="", compare=False)


NO_ADVICE: Final = Advice()


def read_advice(headers: Iterable[tuple[bytes, bytes]], now: float) -> Advice:
    """The advice in a response's headers.

    Args:
        headers: Names, in any case, and values, as they came.
        now: The current time in seconds since the epoch.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in headers:
        key = name.lower()
        # Most responses carry none of them: this is all that is paid for a plain answer.
        if b"limit" in key or key.startswith(b"retry-after"):
            found[key.decode("latin-1")].append(value.decode("utf-8", "replace"))
    if not found:
        return NO_ADVICE
    values: dict[str, Any] = {}
    for header, field_name, read in _HEADERS:
        if header not in found:
            continue
        numbers = [number for text in found[header] if (number := read(text, now)) is not None]
        counts = bool(numbers) and field_name not in values
        if counts:
            # Of a header that came several times, the most careful one.
            values[field_name] = min(numbers) if read is _count else max(numbers)
        if field_name == "retry_after" and (counts or "words" not in values):
            said = printable_line(", ".join(found[header]), _LONGEST_SHOWN)
            values["words"] = f"{_SHOWN[header]}: {said}"
    return Advice(**values)


def parse_retry_after(text: str, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number or an HTTP date; None when it is neither.

    Args:
        text: The header's text.
        now: The current time in seconds since the epoch.
    """
    text = text.strip()
    seconds = _number(text)
    return seconds if seconds is not None else _until_date(text, now)


def parse_reset(text: str, now: float) -> float | None:
    """Seconds until a limit is reset: `17ms`, `6m0s`, a number of seconds, or a time; None for other text.

    A number so large that it can only be meant so is a time since the epoch, in seconds or milliseconds.

    Args:
        text: The header's text.
        now: The current time in seconds since the epoch.
    """
    text = text.strip()
    number = _number(text)
    if number is None:
        seconds = _span(text)
        return seconds if seconds is not None else _until_date(text, now)
    if number >= _EPOCH_MILLISECONDS:
        return max(0.0, number / 1000 - now)
    return max(0.0, number - now) if number >= _EPOCH_SECONDS else number


def _milliseconds(text: str, _now: float) -> float | None:
    number = _number(text.strip())
    return None if number is None else number / 1000


def _count(text: str, _now: float) -> int | None:
    # `100, 100;w=60` names the limit first, and then its windows.
    found = _COUNT.match(text)
    return None if found is None else int(found[1])


def _number(text: str) -> float | None:
    # isdecimal alone would admit other scripts' digits, which float() reads too: no harm.
    if len(text) > _LONGEST_TEXT or not text.replace(".", "", 1).isdecimal():
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _span(text: str) -> float | None:
    if not 0 < len(text) <= _LONGEST_TEXT or _SPAN.sub("", text):
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(text))
    return seconds if math.isfinite(seconds) else None


def _until_date(text: str, now: float) -> float | None:
    if not 0 < len(text) <= _LONGEST_TEXT:
        return None
    parse = datetime.fromisoformat if text[0].isdecimal() else email.utils.parsedate_to_datetime
    try:
        when = parse(text)
        # A date without a zone, as in the oldest of the three forms, is meant in GMT.
        return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _headers() -> Iterable[tuple[str, str, Callable[[str, float], float | None]]]:
    """Header, field and reader; for each field the more exact header first."""
    yield "retry-after-ms", "retry_after", _milliseconds
    yield "retry-after", "retry_after", parse_retry_after
    for what, read in (("limit", _count), ("remaining", _count), ("reset", parse_reset)):
        for kind, plain in (("requests", "x-ratelimit"), ("tokens", "x-tokenlimit")):
            # The common names, Anthropic's, and those of servers with one window for all.
            yield f"x-ratelimit-{what}-{kind}", f"{what}_{kind}", read
            yield f"anthropic-ratelimit-{kind}-{what}", f"{what}_{kind}", read
            yield f"{plain}-{what}", f"{what}_{kind}", read


_HEADERS: Final = tuple(_headers())

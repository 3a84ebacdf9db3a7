"""Choosing among items: duplicates, what to exclude, how much to ask for."""

from __future__ import annotations

import math
import unicodedata
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Signs such as # and + stay: "C", "C#" and "C++" are three subtopics.
_AROUND: Final = " .,;:!?*_-–—\"'`´“”„‘’‚«»‹›()[]"  # noqa: RUF001 - typographic quotes and dashes are meant


def fingerprint(text: str) -> str:
    """What two items share that differ only in case, spacing, width or the punctuation around them.

    Text that is nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    collapsed = " ".join(folded.split())
    return collapsed.strip(_AROUND) or collapsed


def drop_duplicates(items: Iterable[str], seen: set[str]) -> list[str]:
    """The items whose fingerprints are new, in their order, the first of each.

    Args:
        items: What came, in the order of ids.
        seen: Fingerprints of what is kept already; those of the returned items are added to it.
    """
    fresh = []
    for item in items:
        mark = fingerprint(item)
        if mark not in seen:
            seen.add(mark)
            fresh.append(item)
    return fresh


def exclusion_list(items: Sequence[str], size: int) -> str:
    """The last `size` items as one line, "a, b, c"; "" when `size` is 0."""
    return ", ".join(" ".join(item.split()) for item in items[max(0, len(items) - size) :])


def chunk_sizes(total: int, chunk: int) -> tuple[int, ...]:
    """How many items each request asks for, the last one the rest: 70 by 30 is (30, 30, 10).

    A `chunk` of 0 means one request for all; a `total` of 0 means none.
    """
    if total == 0:
        return ()
    if chunk == 0:
        return (total,)
    full, rest = divmod(total, chunk)
    return (chunk,) * full + ((rest,) if rest else ())


def with_buffer(count: int, buffer: float) -> int:
    """`count` raised by the share `buffer` (0.15 = 15 %), rounded up; 100 and 0.15 give 115."""
    # The share as it was written: in floats, 100 * 1.1 is a little over 110 and would round up to 111.
    return math.ceil(count * (1 + Fraction(str(buffer))))


def shares(total: int, parts: int) -> list[int]:
    """`total` divided as evenly as it goes, the first parts one more: 7 by 3 is [3, 2, 2]."""
    each, rest = divmod(total, parts)
    return [each + (place < rest) for place in range(parts)]

"""When two items are the same, and when they are nearly so; which of several are taken.

How alike two texts are is the Jaccard index of their words and neighbouring words: 1 for the same ones, 0
for none in common. MinHash finds those that may be alike among all texts so far, in a time that does not grow
with them, and the index itself is then worked out for these few. Texts that hold different numbers are never
taken for alike: "What is 17 times 23?" and "What is 17 times 24?" are two prompts.

The most alike of texts that are all there are found by their rarest words: with a low threshold, as is wanted
for them, MinHash finds too many that are not alike.

Sources: Broder, "On the resemblance and containment of documents" (1997), by way of datasketch; Bayardo, Ma
and Srikant, "Scaling up all pairs similarity search" (2007).
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


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


PERMUTATIONS: Final = 64
"""Hashes of a text. Those of two texts agree in about the share that the texts have in common."""

FEW: Final = 200
"""Texts up to which every two are compared: that is done before the library for more is loaded."""

_MISSED: Final = 0.98
"""How much worse it is to overlook a likeness than to look at two texts in vain."""

_LONGEST_WORD: Final = 20
"""Characters a word on average; text with longer ones is written without spaces, and taken by its letters."""

_ROUNDING: Final = 1e-9
"""A share of a number of words that is whole, but for the last bit, is whole."""

_NUMBERS: Final = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, slots=True)
class Alike:
    """Two texts and how alike they are, 0 to 1; `first` came before `second`."""

    likeness: float
    first: str
    second: str


MOST_COMPARED: Final = 64
"""Texts that one is compared with in the search for the most alike: bounds the work where all are alike."""

_word = lru_cache(maxsize=16_384)(fingerprint)


def likeness(one: str, other: str) -> float:
    """How alike two texts are: 1 for the same words in the same order, 0 for none in common."""
    return _likeness(_features(one), _features(other))


def _likeness(one: frozenset[int], other: Collection[int]) -> float:
    both = len(one.intersection(other))
    return both / max(1, len(one) + len(other) - both)


def _features(text: str) -> frozenset[int]:
    """Words and neighbouring words, without case and the punctuation around them, as hashes of 32 bits."""
    words = text.split()
    words = list(fingerprint(text) if len(text) > _LONGEST_WORD * len(words) else map(_word, words))
    texts = chain(words, map(" ".join, pairwise(words)))
    return frozenset(crc32(feature.encode("utf-8", "replace")) for feature in texts)


def _packed(features: frozenset[int]) -> array[int]:
    """Features in 4 bytes each: a set of them takes twenty times as much."""
    return array("I", features)


class Sieve:
    """Lets through what is new: no item twice, and none that is nearly the same as an earlier one."""

    def __init__(self, threshold: float = 1.0) -> None:
        """Begin with nothing.

        Args:
            threshold: Likeness from which two items are taken for the same, above 0; from 1 on only
                those are that differ in case, spaces and the punctuation around them.
        """
        self._seen: set[str] = set()
        self._index = _Index(threshold) if threshold < 1 else None
        self.dropped: Counter[str] = Counter()
        """What was held back, as `duplicate` or `near_duplicate`."""

    def fresh(self, items: Iterable[str]) -> list[str]:
        """The items that are new, in their order; they are known from now on.

        Args:
            items: What came, in the order of ids.
        """
        kept = []
        for item in items:
            mark = fingerprint(item)
            if mark in self._seen:
                self.dropped["duplicate"] += 1
                continue
            self._seen.add(mark)
            if self._index is not None and self._index.add(item) is not None:
                self.dropped["near_duplicate"] += 1
                continue
            kept.append(item)
        return kept


class _Index:
    """Texts that are no near-duplicates of each other, to be asked for the ones like another."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._features: list[array[int]] = []
        self._sketches: _Sketches | None = None

    def add(self, text: str) -> Alike | None:
        """Take a text in, or say which earlier one it repeats."""
        features = _features(text)
        if self._sketches is None and len(self._texts) == FEW:
            self._sketches = _Sketches(self._threshold)
            for number, earlier in enumerate(self._features):
                self._sketches.add(number, self._sketches.of(earlier))
        sketch = self._sketches.of(features) if self._sketches else None
        likely = self._sketches.likely(sketch) if self._sketches else range(len(self._texts))
        found = self._closest(text, features, likely)
        if found is not None and found.likeness >= self._threshold:
            return found
        if self._sketches:
            self._sketches.add(len(self._texts), sketch)
        self._texts.append(text)
        self._features.append(_packed(features))
        return None

    def _closest(self, text: str, features: frozenset[int], likely: Iterable[int]) -> Alike | None:
        """The earlier text that is most alike, of those that may be alike enough."""
        numbers = _NUMBERS.findall(text)
        # Of texts that are much longer or shorter, none is alike enough; this is told in no time.
        shortest, longest = self._threshold * len(features), len(features) / self._threshold
        # The lowest of equals: a re-run must come to the same.
        best = None
        for place in likely:
            packed = self._features[place]
            if not shortest <= len(packed) <= longest:
                continue
            found = _likeness(features, packed)
            if best is None or found > best.likeness:
                other = self._texts[place]
                if numbers == _NUMBERS.findall(other):
                    best = Alike(found, other, text)
        return best


class _Sketches:
    """The MinHash of texts by number, to be asked for those that may be like another."""

    def __init__(self, threshold: float) -> None:
        # Imported here: it brings scipy, which takes a second, and 60 MB.
        from datasketch import MinHash, MinHashLSH  # noqa: PLC0415

        # Features are hashes already.
        self._blank: Any = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        self._lsh: Any = MinHashLSH(
            threshold=threshold, num_perm=PERMUTATIONS, weights=(1 - _MISSED, _MISSED)
        )

    def of(self, features: Collection[int]) -> Any:
        """The sketch of a text."""
        sketch = self._blank.copy()
        sketch.update_batch(features)
        return sketch

    def add(self, number: int, sketch: Any) -> None:
        """Take a text in."""
        self._lsh.insert(number, sketch)

    def likely(self, sketch: Any) -> list[int]:
        """The texts that may be alike, ascending."""
        return sorted(self._lsh.query(sketch))


def most_alike(texts: Sequence[str], most: int = 10, *, least: float = 0.5) -> list[Alike]:
    """The texts that are most like an earlier one, the most alike first.

    All that are this much alike are found, but for those of a text that shares its rarest words with more
    than `MOST_COMPARED` others.

    Args:
        texts: The texts; of equal ones, each but the first counts.
        most: How many are wanted, 1 or more.
        least: Likeness below which a pair is of no interest, above 0 and below 1.
    """
    features = [_packed(_features(text)) for text in texts]
    counts = Counter(chain.from_iterable(features))
    # By the numbers in them: texts with others are not alike.
    holders: dict[tuple[str, ...], dict[int, list[int]]] = {}
    found: list[tuple[float, int, int]] = []
    for place, packed in enumerate(features):
        own = frozenset(packed)
        rarest = sorted(own, key=lambda feature: (counts[feature], feature))
        # Two texts that are so much alike have one of these in common, whichever others they have.
        rarest = rarest[: len(own) - math.ceil(least * len(own) - _ROUNDING) + 1]
        shared = [feature for feature in rarest if counts[feature] > 1]
        others = holders.setdefault(tuple(_NUMBERS.findall(texts[place])), {})
        best = max(
            ((_likeness(own, features[other]), -other, -place) for other in _first_of(others, shared)),
            default=(0.0, 0, 0),
        )
        if best[0] >= least:
            (heapq.heappush if len(found) < most else heapq.heappushpop)(found, best)
            if len(found) == most:
                # Only what is more alike than the last of these is looked for from now on.
                least = max(least, found[0][0])
        for feature in shared:
            others.setdefault(feature, []).append(place)
    found.sort(key=lambda item: (-item[0], -item[2]))
    return [Alike(alike, texts[-first], texts[-second]) for alike, first, second in found]


def _first_of(holders: Mapping[int, Sequence[int]], features: Iterable[int]) -> Collection[int]:
    """The texts that hold one of the features, as many as are compared; those of the first features first."""
    found: dict[int, None] = {}
    for feature in features:
        for place in holders.get(feature, ()):
            found[place] = None
            if len(found) == MOST_COMPARED:
                return found
    return found


def spread(texts: Sequence[str]) -> float:
    """How different texts are: 1 less the mean likeness of each to the closest of the others.

    Every two of them are compared. For fewer than two texts it is 1.
    """
    features = [_features(text) for text in texts]
    closest = [0.0] * len(texts)
    for place, own in enumerate(features):
        for other in range(place):
            alike = _likeness(own, features[other])
            closest[place], closest[other] = max(closest[place], alike), max(closest[other], alike)
    return 1 - sum(closest) / max(1, len(closest))

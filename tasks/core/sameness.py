"""When two items are the same, and when they are nearly so; which of several are taken.

How alike two texts are is the Jaccard index of their words and neighbouring words: 1 for the same ones, 0
for none in common. MinHash finds those that may be alike among all texts so far, in a time that does not grow
with them, and the index itself is then worked out for at most `MOST_LIKELY` of them. Texts that hold
different numbers are never taken for alike: "What is 17 times 23?" and "What is 17 times 24?" are two
prompts.

The most alike of texts that are all there are found by their rarest words: with a low threshold, as is wanted
for them, MinHash finds too many that are not alike.

Sources: Broder, "On the resemblance and containment of documents" (1997); Bawa, Condie and Ganesan, "LSH
forest" (2005), whose trees are buckets here; Bayardo, Ma and Srikant, "Scaling up all pairs similarity
search" (2007).
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
from hashlib import blake2b
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


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


FEW: Final = 200
"""Texts up to which every two are compared: that is done before the library for more is loaded."""

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


@lru_cache(maxsize=16_384)
def _marked(word: str) -> tuple[int, bytes]:
    """The hash of a word, and what follows the word before it where the two are hashed together."""
    encoded = word.encode("utf-8", "replace")
    return crc32(encoded), b" " + encoded


@lru_cache(maxsize=16_384)
def _word(text: str) -> tuple[int, bytes]:
    return _marked(fingerprint(text))


def likeness(one: str, other: str) -> float:
    """How alike two texts are: 1 for the same words in the same order, 0 for none in common."""
    return _likeness(_features(one), _features(other))


def _likeness(one: frozenset[int], other: Collection[int]) -> float:
    both = len(one.intersection(other))
    return both / max(1, len(one) + len(other) - both)


def _features(text: str) -> frozenset[int]:
    """Words and neighbouring words, without case and the punctuation around them, as hashes of 32 bits."""
    words = text.split()
    if len(text) > _LONGEST_WORD * len(words):
        marked = list(map(_marked, fingerprint(text)))
    else:
        marked = list(map(_word, words))
    features = {mark for mark, _ in marked}
    # The hash of two words goes on where that of the first ended.
    features.update([crc32(other, mark) for (mark, _), (_, other) in pairwise(marked)])
    return frozenset(features)


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
        self._seen: set[bytes] = set()
        self._index = _Index(threshold) if threshold < 1 else None
        self.dropped: Counter[str] = Counter()
        """What was held back, as `duplicate` or `near_duplicate`."""

    def fresh(self, items: Iterable[str]) -> list[str]:
        """The items that are new, in their order; they are known from now on.

        Args:
            items: What came, in the order of ids.
        """
        unseen = []
        for item in items:
            # A digest takes 16 bytes, a text as many as it has characters.
            mark = blake2b(fingerprint(item).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if mark in self._seen:
                self.dropped["duplicate"] += 1
                continue
            self._seen.add(mark)
            unseen.append(item)
        if self._index is None:
            return unseen
        kept = self._index.add(unseen)
        if len(kept) < len(unseen):
            self.dropped["near_duplicate"] += len(unseen) - len(kept)
        return kept


_Marked = tuple[str, frozenset[int], int]
"""A text, its features, and the digest of its numbers."""

TOGETHER: Final = 100
"""Texts whose features are held at once; they are sketched together."""


class _Index:
    """Texts of which no two are near-duplicates."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._features = array("I")
        self._ends = array("Q", [0])
        self._numbers = array("Q")
        self._sketches: _Sketches | None = None

    def add(self, texts: Sequence[str]) -> list[str]:
        """Take texts in, one after the other, but those that repeat an earlier one; gives those taken."""
        taken: list[str] = []
        for start in range(0, len(texts), TOGETHER):
            some = texts[start : start + TOGETHER]
            marked = iter([(text, _features(text), _digest(_NUMBERS.findall(text))) for text in some])
            taken += self._add_few(marked)
            taken += self._add_many(list(marked))
        return taken

    def _add_few(self, marked: Iterator[_Marked]) -> Iterator[str]:
        """While there are few texts, compare each with all of them."""
        while len(self._numbers) < FEW and (item := next(marked, None)):
            text, features, numbers = item
            if not self._repeats(
                features, (at for at, other in enumerate(self._numbers) if other == numbers)
            ):
                self._keep(features, numbers)
                yield text

    def _add_many(self, marked: Sequence[_Marked]) -> Iterator[str]:
        """Compare each text with those that their sketches name."""
        if not marked:
            return
        if self._sketches is None:
            self._sketches = _Sketches(self._threshold)
            for sketch in self._sketches.of(map(self._of, range(FEW)), self._numbers):
                self._sketches.add(sketch)
        _, own, digests = zip(*marked, strict=True)
        sketches = self._sketches.of(map(_packed, own), digests)
        for (text, features, numbers), sketch in zip(marked, sketches, strict=True):
            if not self._repeats(features, self._sketches.likely(sketch)):
                self._sketches.add(sketch)
                self._keep(features, numbers)
                yield text

    def _keep(self, features: frozenset[int], numbers: int) -> None:
        self._features.extend(features)
        self._ends.append(len(self._features))
        self._numbers.append(numbers)

    def _of(self, place: int) -> array[int]:
        return self._features[self._ends[place] : self._ends[place + 1]]

    def _repeats(self, features: frozenset[int], likely: Iterable[int]) -> bool:
        # Of texts that are much longer or shorter, none is alike enough; this is told in no time.
        shortest, longest = self._threshold * len(features), len(features) / self._threshold
        return any(
            _likeness(features, self._of(place)) >= self._threshold
            for place in likely
            if shortest <= self._ends[place + 1] - self._ends[place] <= longest
        )


def _digest(numbers: Sequence[str]) -> int:
    """The numbers of a text in 8 bytes."""
    return int.from_bytes(blake2b("\0".join(numbers).encode(), digest_size=8).digest(), "big")


HASHES: Final = 64
"""Hashes of a text. Those of two texts agree in about the share that the texts have in common."""

BANDS: Final = 16
"""Groups of hashes by which a text is found: one group that agrees is enough."""

DEPTHS: Final = (0, 2, 4, 7, 11, 16, 22)
"""How many hashes more than at first a group may have, where many texts agree in fewer."""

FOUND: Final = 0.98
"""The share of the texts just alike enough that agree in a group: it decides how large groups are."""

IN_A_BUCKET: Final = 8
"""Texts that are found by the same hashes of a group; what comes later is found by more of them."""

FIRST: Final = 6_400
"""Texts for which the first table has room, in a megabyte; each further one, for as many as are there."""

DOUBT: Final = 0.25
"""How much less alike two texts may seem by their hashes than they are: four standard deviations."""

MOST_LIKELY: Final = 24
"""Texts that one is compared with at most: those that seem most alike by their hashes."""

HASHED_AT_ONCE: Final = 1_024
"""Features that are hashed at once, in half a megabyte: more are no faster."""


class _Sketch(NamedTuple):
    """The MinHash of a text.

    Attributes:
        hashes: Its hashes, the lowest 8 bits of each.
        salt: The digest of its numbers.
        ways: By group and depth, 32 bits by which its bucket is found.
    """

    hashes: Any
    salt: Any
    ways: Any


class _Sketches:
    """The MinHash of texts by number, to be asked for those that may be like another, in bounded time.

    A text stands in a bucket of each group: that of its first hashes or, where that is full, of more of
    them. So texts that many others resemble, like those made from a template, are told apart by more hashes.
    Whoever looks for a text goes the same way. Texts with other numbers have other buckets.
    """

    def __init__(self, threshold: float) -> None:
        # Imported here: most runs have few prompts, and it takes a tenth of a second.
        import numpy as np  # noqa: PLC0415

        self._np = np
        self._threshold = threshold
        first = 1
        while 1 - (1 - threshold ** (first + 1)) ** BANDS >= FOUND and first < 2 * HASHES // BANDS:
            first += 1
        self._depths = np.array([first + more for more in DEPTHS])
        most = first + DEPTHS[-1]
        odd = np.array(_random(2 * HASHES + most + 2 * len(DEPTHS)), dtype=np.uint64) | np.uint64(1)
        self._factors, self._terms, self._weights, mixing = np.split(
            odd, np.cumsum([HASHES, HASHES, most]).tolist()
        )
        self._mixing = np.split(mixing, 2)
        # The first hashes of a group are its own; further ones it shares with groups that are not beside it.
        step, row = np.divmod(np.arange(most), HASHES // BANDS)
        self._rows = (np.arange(BANDS)[:, None] + 5 * step) % BANDS + BANDS * row
        self._count = 0
        self._hashes = np.empty((0, HASHES), dtype=np.uint8)
        self._numbers = np.empty(0, dtype=np.uint64)
        self._buckets = np.empty((0, IN_A_BUCKET), dtype=np.int32)
        # By table and group: the group, how many buckets it has there, and the first of them.
        self._group = np.empty(0, dtype=np.intp)
        self._size = np.empty(0, dtype=np.uint64)
        self._first = np.empty(0, dtype=np.intp)

    def of(self, features: Iterable[array[int]], numbers: Iterable[int]) -> Iterator[_Sketch]:
        """The sketches of texts, worked out for many at once.

        Args:
            features: Those of each text.
            numbers: The digest of each text's numbers.
        """
        texts: list[array[int]] = []
        digests: list[int] = []
        held = 0
        for own, digest in zip(features, numbers, strict=True):
            if texts and held + len(own) > HASHED_AT_ONCE:
                yield from self._of(texts, digests)
                texts, digests, held = [], [], 0
            texts.append(own)
            digests.append(digest)
            held += len(own)
        if texts:
            yield from self._of(texts, digests)

    def _of(self, texts: Sequence[array[int]], digests: Sequence[int]) -> Iterator[_Sketch]:
        np = self._np
        salts = np.array(digests, dtype=np.uint64)
        lengths = np.array([len(own) for own in texts])
        hashes = np.zeros((len(texts), HASHES), dtype=np.uint8)
        if lengths.any():
            found = np.frombuffer(b"".join(texts), dtype=np.uint32).astype(np.uint64)
            # 8 bits of each are enough: two that differ are equal in one of 256 cases.
            each = (found * self._factors[:, None] + self._terms[:, None]) >> np.uint64(32)
            starts = (lengths.cumsum() - lengths)[lengths > 0]
            hashes[lengths > 0] = np.minimum.reduceat(each, starts, axis=1).T.astype(np.uint8)
        ways = (hashes[:, self._rows] * self._weights).cumsum(axis=2)[:, :, self._depths - 1]
        factors, terms = self._mixing
        ways = (ways + salts[:, None, None]) * factors + terms
        ways = ((ways ^ (ways >> np.uint64(31))) * factors[0]) >> np.uint64(32)
        return map(_Sketch, hashes, salts, ways)

    def add(self, sketch: _Sketch) -> None:
        """Take in the text that has the next number."""
        if self._count == len(self._hashes):
            self._grow(max(self._count, FIRST))
        # In the last table: what is in those before stays where it is.
        group, size, first = self._group[-BANDS:], self._size[-BANDS:], self._first[-BANDS:]
        for depth in range(len(DEPTHS)):
            rows = first + self._places(sketch, depth, group, size)
            taken = (self._buckets[rows] >= 0).sum(axis=1)
            free = taken < IN_A_BUCKET
            self._buckets[rows[free], taken[free]] = self._count
            if free.all():
                break
            group, size, first = group[~free], size[~free], first[~free]
        # In a group of which all are full, so many are alike that the other groups must do.
        self._hashes[self._count], self._numbers[self._count] = sketch.hashes, sketch.salt
        self._count += 1

    def _grow(self, more: int) -> None:
        """Make room for so many texts, in a table of their own."""
        np = self._np
        self._hashes = np.concatenate([self._hashes, np.empty((more, HASHES), np.uint8)])
        self._numbers = np.concatenate([self._numbers, np.empty(more, np.uint64)])
        # Half of it stays empty: few texts find a bucket full of others that are nothing like them.
        size = 2 * more // IN_A_BUCKET
        groups = np.arange(BANDS)
        self._group = np.concatenate([self._group, groups])
        self._size = np.concatenate([self._size, np.full(BANDS, size, dtype=np.uint64)])
        self._first = np.concatenate([self._first, len(self._buckets) + size * groups])
        fresh = np.full((BANDS * size, IN_A_BUCKET), -1, dtype=np.int32)
        self._buckets = np.concatenate([self._buckets, fresh])

    def _places(self, sketch: _Sketch, depth: int, group: Any, size: Any) -> Any:
        """The buckets of a text in some groups of tables, from the first of each on."""
        np = self._np
        return ((sketch.ways[group, depth] * size) >> np.uint64(32)).astype(np.intp)

    def likely(self, sketch: _Sketch) -> list[int]:
        """The texts that may be alike, at most `MOST_LIKELY`, those first that seem most so."""
        np = self._np
        found = []
        group, size, first = self._group, self._size, self._first
        for depth in range(len(DEPTHS)):
            buckets = self._buckets[first + self._places(sketch, depth, group, size)]
            found.append(buckets[buckets >= 0])
            # A text stands in a deeper bucket only where all before it are full.
            full = buckets[:, -1] >= 0
            if not full.any():
                break
            group, size, first = group[full], size[full], first[full]
        places = np.concatenate(found)
        places = places[self._numbers[places] == sketch.salt]
        seeming = (self._hashes[places] == sketch.hashes).sum(axis=1) / HASHES
        near = seeming >= self._threshold - DOUBT
        if not near.any():
            return []
        # One is found in several groups.
        places, once = np.unique(places[near], return_index=True)
        order = np.argsort(-seeming[near][once], kind="stable")[:MOST_LIKELY]
        likely: list[int] = places[order].tolist()
        return likely


def _random(count: int) -> list[int]:
    """Numbers of 64 bits, the same ones each time: Steele, Lea and Flood, "SplitMix" (2014)."""
    found, mask = [], (1 << 64) - 1
    for step in range(1, count + 1):
        mixed = step * 0x9E3779B97F4A7C15 & mask
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
        found.append(mixed ^ mixed >> 31)
    return found


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

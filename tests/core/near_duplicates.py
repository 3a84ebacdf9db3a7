"""Prompts among which near-duplicates are planted: what the test and the benchmark of sameness look at."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tasks.core.demo.text import Kind, list_items
from tasks.core.sameness import Sieve

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPTS = 5_000
PLANTED = 200
THRESHOLD = 0.7

_OTHER_WORDS = (
    "river",
    "candle",
    "quiet",
    "ancient",
    "borrowed",
    "silver",
    "honest",
    "winter",
    "market",
    "letter",
)


def planted_prompts(seed: int) -> tuple[list[str], list[str]]:
    """4,800 prompts of 96 subtopics, and 200 of them with one to three words changed, left out or added."""
    rng = random.Random(seed)
    prompts: list[str] = []
    for number in range((PROMPTS - PLANTED) // 50):
        (subtopic,) = list_items(Kind.SUBTOPICS, "Lighthouses", 1, b"%d %d" % (seed, number))
        prompts += list_items(Kind.PROMPTS, subtopic, 50, b"%d prompts %d" % (seed, number))
    planted = [_edited(rng, prompt, rng.choice((1, 2, 3))) for prompt in rng.sample(prompts, PLANTED)]
    return prompts, planted


def _edited(rng: random.Random, text: str, edits: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), edits):
        other = rng.choice(_OTHER_WORDS)
        words[place] = rng.choice((other, other, other, "", f"{words[place]} {other}"))
    return " ".join(word for word in words if word)


_SYLLABLES = ["ba", "de", "fi", "go", "lu", "ma", "ne", "po", "ri", "su", "ta", "vo", "xi", "ya", "zo", "ke"]

TEMPLATES = {
    "numbers": "A train leaves at {w}:{w} and goes {w} km/h, and another one follows {w} minutes later and "
    "goes {w} km/h. After how many minutes are they at the same place, and how far is that from the station?",
    "names": "Write a letter in which {w} from {w} thanks {w} for the {w} and asks whether the {w} can be "
    "sent to {w} before the end of the month.",
    "code": "Write a function `{w}_{w}(items)` that takes a list of dicts with the keys `{w}` and `{w}`, "
    "groups them by `{w}`, and returns the sum of `{w}` for each group, sorted by key.",
}
"""Texts that differ in nothing but numbers, names or identifiers."""


def from_template(kind: str, count: int, seed: int) -> tuple[list[str], list[str]]:
    """So many prompts made from one of `TEMPLATES`, and up to 200 of them with another word."""
    rng = random.Random(seed)

    def filled() -> str:
        parts = TEMPLATES[kind].split("{w}")
        words = (
            str(rng.randint(1, 9_999)) if kind == "numbers" else "".join(rng.choices(_SYLLABLES, k=3))
            for _ in parts
        )
        pairs = list(zip(parts, words, strict=True))
        return "".join(part + word for part, word in pairs[:-1]) + pairs[-1][0]

    prompts = [filled() for _ in range(count)]
    return prompts, [prompt.replace(" and ", " or ", 1) for prompt in prompts[:: max(1, count // PLANTED)]]


def found_and_false(prompts: Sequence[str], planted: Sequence[str], threshold: float) -> tuple[float, float]:
    """The share of the planted ones that a sieve holds back, and the share of the others."""
    kept = set(Sieve(threshold).fresh([*prompts, *planted]))
    found = sum(item not in kept for item in planted) / len(planted)
    return found, sum(item not in kept for item in prompts) / len(prompts)

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


def found_and_false(prompts: Sequence[str], planted: Sequence[str], threshold: float) -> tuple[float, float]:
    """The share of the planted ones that a sieve holds back, and the share of the others."""
    kept = set(Sieve(threshold).fresh([*prompts, *planted]))
    found = sum(item not in kept for item in planted) / len(planted)
    return found, sum(item not in kept for item in prompts) / len(prompts)

"""How two configurations differ, and what going over from one to the other costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.keys import EFFECTS, Effect, value_of
from tasks.core.models import Purpose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.models import Config
    from tasks.core.survey import Survey

COUNTS = frozenset({"generation.num_subtopics", "generation.target_pairs"})
"""Settings that ask for more of the same when they are raised.

The prompts of a subtopic are asked for in one request that names their number: another number is another
question, and none of the old pairs would stay.
"""

SHOWN = 60
"""Characters of a value that are shown."""

PHASES = {
    "subtopics": (Purpose.SUBTOPICS,),
    "prompts": (Purpose.PROMPTS,),
    "pairs": (Purpose.CHOSEN, Purpose.REJECTED),
    "judge": (Purpose.JUDGE,),
}


def asks_only_for_more(before: Config, after: Config, changes: Sequence[Change]) -> bool:
    """Whether changes ask for more of the same, so that every pair of before stays where it is.

    A target divides its pairs among the subtopics: with one, other subtopics mean smaller shares, and only a
    target of as many as all prompts that are asked for first is raised without changing theirs.
    """
    one, other = before.generation, after.generation
    if not all(change.is_growth for change in changes):
        return False
    first = one.num_subtopics * one.num_prompts_per_subtopic
    if one.num_subtopics != other.num_subtopics:
        return not one.target_pairs and not other.target_pairs
    return one.target_pairs == other.target_pairs or (other.wanted_pairs >= one.wanted_pairs >= first)


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that differs: its dotted key, both values, and what of the outcome it changes."""

    key: str
    before: Any
    after: Any
    effect: Effect

    @property
    def is_growth(self) -> bool:
        """Whether it only asks for more of the same."""
        return self.key in COUNTS and self.after > self.before

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)} (changes {describe(self.effect)})"


def changes_between(before: Config, after: Config, *, idle: bool = False) -> list[Change]:
    """The settings that differ.

    Args:
        before: One configuration.
        after: The other.
        idle: Whether settings that change nothing in the outcome are listed too.
    """
    found = []
    for key, effect in EFFECTS.items():
        old, new = value_of(before, key), value_of(after, key)
        if old != new and (effect or idle):
            found.append(Change(key, old, new, effect))
    return found


def cost_lines(survey: Survey) -> list[str]:
    """For each phase, the calls that are paid for already and those to pay for."""
    lines = []
    for phase, purposes in PHASES.items():
        reused = sum(survey.reused[purpose] for purpose in purposes)
        to_pay = sum(survey.to_pay[purpose] for purpose in purposes)
        if reused or to_pay:
            lines.append(f"{phase}: {reused:,} calls reused, {to_pay:,} to be paid for")
    return lines


def describe(effect: Effect) -> str:
    """The names of what an effect changes."""
    names = [str(item.name).lower() for item in Effect if item & effect]
    return ", ".join(names) or "nothing in the outcome"


def lines_of_changes(changes: Sequence[Change]) -> list[str]:
    """One line a change."""
    return [f"  {change}" for change in changes]


def _shown(value: object) -> str:
    text = "unset" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"

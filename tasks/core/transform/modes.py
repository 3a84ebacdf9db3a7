"""The modes of a transform: what each takes, what it asks for, and under which settings."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UsageError
from tasks.core.models import Purpose

if TYPE_CHECKING:
    from collections.abc import Mapping

SFT, DPO, KTO, MO_DPO = "sft", "dpo", "kto", "mo-dpo"

_UNJUDGED: Mapping[str, Any] = {"generation.dataset_mode": "dpo", "judge_filtering.enabled": False}
_MAIN_ALONE: Mapping[str, Any] = {"generation.dataset_mode": "sft", "judge_filtering.enabled": False}
# Main and judge, the judge asked as in mo-dpo; mo-dpo itself would want a rejected model as well.
_JUDGED: Mapping[str, Any] = {
    "generation.dataset_mode": "sft",
    "judge_filtering.enabled": True,
    "judge_filtering.use_explanations": True,
    "models.judge.enabled": True,
}


@dataclass(frozen=True, slots=True)
class Mode:
    """One mode.

    Attributes:
        name: As the command line has it.
        kinds: The rows that it takes.
        purpose: The calls that it makes.
        settings: By dotted key, what it makes of the configuration, so that the models that it needs, and no
            others, are demanded and used.
    """

    name: str
    kinds: frozenset[str]
    purpose: Purpose
    settings: Mapping[str, Any]


_PAIRS = frozenset({DPO, MO_DPO})
MODES: Mapping[str, Mode] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode("sft-to-dpo", frozenset({SFT}), Purpose.REJECTED, _UNJUDGED),
            Mode("regen-rejected", _PAIRS | {KTO}, Purpose.REJECTED, _UNJUDGED),
            Mode("regen-chosen", _PAIRS | {KTO, SFT}, Purpose.CHOSEN, _MAIN_ALONE),
            Mode("rejudge", _PAIRS, Purpose.JUDGE, _JUDGED),
            Mode("add-reasoning", _PAIRS | {KTO, SFT}, Purpose.REASONING, _MAIN_ALONE),
        )
    }
)
"""The modes by name; the first two are VellumForge2's."""


def find_mode(name: str) -> Mode:
    """The mode of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in MODES:
        raise UsageError(f"there is no mode {name!r}; the modes are {', '.join(MODES)}")
    return MODES[name]

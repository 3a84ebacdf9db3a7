"""Other modes than a session's own: which its calls allow, and what of a pair they would have kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from tasks.core.config.models import DatasetMode
from tasks.core.generation.pairs import kept_out
from tasks.core.judging import wants_explanations
from tasks.core.questions import purposes_of

if TYPE_CHECKING:
    from tasks.core.config.models import Config
    from tasks.core.models import Pair


def in_mode(config: Config, mode: DatasetMode) -> Config:
    """The same settings with another mode."""
    generation = config.generation.model_copy(update={"dataset_mode": mode})
    return config.model_copy(update={"generation": generation})


def allowed_modes(config: Config) -> tuple[DatasetMode, ...]:
    """The modes that ask for nothing which these settings do not ask for as well.

    In mo-dpo the judge gives reasons, so scores alone do not make its rows.
    """
    held = set(purposes_of(config))
    return tuple(
        mode
        for mode in get_args(DatasetMode)
        if held.issuperset(purposes_of(in_mode(config, mode)))
        and (mode != "mo-dpo" or wants_explanations(config))
    )


def pair_in(config: Config, pair: Pair) -> Pair | None:
    """What these settings would have made of the answers of a pair.

    Args:
        config: The settings, of a mode that is allowed.
        pair: A pair with all answers and scores that are there.

    Returns:
        The pair, or None where thresholds or lint keep it out.
    """
    if config.generation.dataset_mode == "sft":
        pair = replace(pair, rejected=None, rejected_scores=None)
    return None if kept_out(config, pair) else pair

"""Other modes than a session's own: which its calls allow, and under which settings they find them."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from tasks.core.config.models import DatasetMode
from tasks.core.judging import wants_explanations
from tasks.core.questions import purposes_of

if TYPE_CHECKING:
    from tasks.core.config.models import Config


def in_mode(config: Config, mode: DatasetMode) -> Config:
    """The same settings with another mode; its judge is asked as these settings ask theirs."""
    generation = config.generation.model_copy(update={"dataset_mode": mode})
    explained = {"use_explanations": wants_explanations(config)}
    filtering = config.judge_filtering.model_copy(update=explained)
    return config.model_copy(update={"generation": generation, "judge_filtering": filtering})


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

"""The settings: every key, its default, its range and what it is for.

Types are strict, as TOML's own are: a number in quotes is not a number, and `true` is not 1. What several
settings mean for each other stands in `rules`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import Field

from tasks.core.config.sections import (
    Budget,
    CandidateChoice,
    DatasetMode,
    Execution,
    FileType,
    Generation,
    HuggingFace,
    Input,
    Judge,
    JudgeFiltering,
    Judging,
    Length,
    Lint,
    ModelConfig,
    Models,
    Output,
    OutputFormat,
    Price,
    PromptTemplates,
    Reasoning,
    Section,
    SftFormat,
    StructuredOutput,
    TokensParameter,
)
from tasks.core.config.values import PROVIDERS, Count, ProviderName, provider_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


__all__ = [
    "PROVIDERS",
    "Budget",
    "CandidateChoice",
    "Config",
    "DatasetMode",
    "Execution",
    "FileType",
    "Generation",
    "HuggingFace",
    "Input",
    "Judge",
    "JudgeFiltering",
    "Judging",
    "Length",
    "Lint",
    "ModelConfig",
    "Models",
    "Output",
    "OutputFormat",
    "Price",
    "PromptTemplates",
    "Reasoning",
    "Section",
    "SftFormat",
    "StructuredOutput",
    "TokensParameter",
    "all_models",
    "as_known",
    "default_of",
    "further_models",
    "model_named",
    "provider_of",
    "section_of",
    "setting",
    "settings",
]


class Config(Section):
    """What the dataset is about, who writes it, and how the work is done."""

    # Checked field by field; `load.load_config` checks the rest. Forms show the sections in this order.
    generation: Generation
    models: Models
    input: Input = Input()
    candidates: CandidateChoice = CandidateChoice()
    judging: Judging = Judging()
    judge_filtering: JudgeFiltering = JudgeFiltering()
    length: Length = Length()
    lint: Lint = Lint()
    prompt_templates: PromptTemplates = PromptTemplates()
    huggingface: HuggingFace = HuggingFace()
    output: Output = Output()
    execution: Execution = Execution()
    provider_rate_limits: dict[ProviderName, Count] = Field(
        default_factory=dict,
        description="Requests a minute for all models of a provider together, in place of their own limits; "
        "0 is no limit. Keys are as `provider_of` gives them.",
    )
    provider_token_limits: dict[ProviderName, Count] = Field(
        default_factory=dict,
        description="Tokens a minute for all models of a provider together; else as provider_rate_limits.",
    )
    provider_burst_percent: int = Field(
        15, ge=1, le=50, description="Share of a minute's requests, in percent, that may be sent at once."
    )
    pricing: dict[str, Price] = Field(
        default_factory=dict,
        description="What each model costs; a model that is not here costs an unknown sum.",
    )
    budget: Budget = Budget()


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, also where it may be left out; None for a single value or a table."""
    if get_origin(field.annotation) is dict:
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


@cache
def settings() -> Mapping[str, FieldInfo]:
    """Every single setting by its dotted key, e.g. `models.judge.enabled`, in the order of the sections."""
    found: dict[str, FieldInfo] = {}

    def walk(section: type[Section], prefix: str) -> None:
        for name, field in section.model_fields.items():
            inner = section_of(field)
            if inner is None:
                found[prefix + name] = field
            else:
                walk(inner, f"{prefix}{name}.")

    walk(Config, "")
    return found


def as_known(key: str) -> str:
    """The key by which a setting of a further model is described: they have the settings of a judge."""
    parts = key.split(".")
    if parts[0] == "models" and len(parts) > 2 and parts[1] not in Models.model_fields:  # noqa: PLR2004 - names
        parts[1] = "judge"
    return ".".join(parts)


def setting(key: str) -> FieldInfo | None:
    """The setting with this dotted key, which may be that of a further model; None where there is none."""
    return settings().get(as_known(key))


def further_models(config: Config) -> dict[str, Judge]:
    """The models beside main, rejected and judge, by their section's name."""
    return config.models.model_extra or {}


def all_models(config: Config) -> dict[str, ModelConfig]:
    """All models that there are, used or not, by their section's name."""
    models = config.models
    known = {"main": models.main, "rejected": models.rejected, "judge": models.judge}
    return {name: model for name, model in known.items() if model is not None} | further_models(config)


def model_named(config: Config, section: str) -> ModelConfig | None:
    """The model of this section under [models]; None where there is none, whatever else is called so."""
    found: ModelConfig | None = vars(config.models).get(section)
    return found or further_models(config).get(section)


def default_of(key: str) -> Any:
    """The default of the setting with this dotted key; `PydanticUndefined` where one must be given.

    Raises:
        KeyError: There is no such setting.
    """
    return settings()[as_known(key)].get_default(call_default_factory=True)

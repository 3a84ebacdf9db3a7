"""The settings: every key, its default, its range and what it is for.

Types are strict, as TOML's own are: a number in quotes is not a number, and `true` is not 1. What several
settings mean for each other stands in `rules`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tasks.core.config import defaults
from tasks.core.config.values import (
    MAX_TOPIC_CHARACTERS,
    MOST,
    PROVIDERS,
    Average,
    Count,
    Limit,
    Line,
    ProviderName,
    Seconds,
    Share,
    Size,
    Template,
    check_base_url,
    check_ledger_url,
    check_topic,
    provider_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

__all__ = [
    "PROVIDERS",
    "Config",
    "DatasetMode",
    "Generation",
    "HuggingFace",
    "Judge",
    "JudgeFiltering",
    "ModelConfig",
    "Models",
    "Output",
    "PromptTemplates",
    "Section",
    "SftFormat",
    "default_of",
    "provider_of",
    "section_of",
    "settings",
]

DatasetMode = Literal["sft", "dpo", "kto", "mo-dpo"]
SftFormat = Literal["sharegpt", "alpaca"]


class Section(BaseModel):
    """What all sections share: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


class Generation(Section):
    """What to make, how much of it, and how the work is done."""

    main_topic: Annotated[Line, AfterValidator(check_topic)] = Field(
        title="Main topic",
        description=f"What the dataset is about, in 1 to {MAX_TOPIC_CHARACTERS} characters.",
    )
    num_subtopics: Annotated[Size, Limit(10_000)] = Field(
        title="Subtopics", description="How many subtopics the main topic is divided into."
    )
    num_prompts_per_subtopic: Annotated[Size, Limit(10_000)] = Field(
        title="Prompts per subtopic", description="How many prompts are written for each subtopic."
    )
    subtopic_chunk_size: Count = Field(
        30, description="Subtopics asked for in one request; 0 asks for all of them at once."
    )
    concurrency: Annotated[Size, Limit(1024)] = Field(
        8, description="Jobs that are worked on at the same time."
    )
    over_generation_buffer: Share = Field(
        0.15, description="Share of subtopics asked for beyond the count, to make up for duplicates."
    )
    max_exclusion_list_size: Count = Field(
        50, description="Known subtopics listed in a repeated request, so that they are not named again."
    )
    min_success_rate: Share = Field(
        0.90, description="Share of subtopics that must get their prompts for the run to go on."
    )
    prompt_retry_attempts: int = Field(
        2, ge=0, le=5, description="How often subtopics whose prompts failed are tried again."
    )
    disable_validation_limits: bool = Field(
        default=False,
        description="Lift the upper limits of num_subtopics, num_prompts_per_subtopic and concurrency.",
    )
    enable_checkpointing: bool = Field(
        default=False, description="Write checkpoint.json; finished answers are kept either way."
    )
    checkpoint_interval: Size = Field(10, description="Finished jobs between two checkpoints.")
    resume_from_session: Line = Field(
        "", description="Name of a session folder to go on with; empty for a new one."
    )
    dataset_mode: DatasetMode = Field(
        "mo-dpo", title="Dataset mode", description="Which kind of dataset is written."
    )
    sft_format: SftFormat = Field("sharegpt", title="SFT format", description="Form of the rows in mode sft.")
    include_topic_columns: bool = Field(
        default=True, description="In mode sft, write the main topic and the subtopic into each row."
    )
    enable_reasoning_capture: bool = Field(
        default=False,
        description="Also write dataset_reasoning.jsonl, with the reasoning before the answers.",
    )
    reasoning_capture_rejected: bool = Field(
        default=False, description="Capture the reasoning of rejected answers too."
    )
    seed: Count = Field(0, description="Another number gives other answers to the same questions.")


class ModelConfig(Section):
    """An endpoint, the model behind it, and how it is asked."""

    base_url: Annotated[str, AfterValidator(check_base_url)] = Field(
        title="Base URL", description="Address of an OpenAI-compatible API, usually ending in /v1."
    )
    model_name: Line = Field(
        min_length=1, max_length=100, title="Model", description="Name of the model as the endpoint knows it."
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Randomness of the answers.")
    structure_temperature: float | None = Field(
        None, ge=0, le=2, description="Randomness of JSON answers; the same as temperature when left out."
    )
    top_p: Share = Field(1.0, description="Share of probability that tokens are drawn from; 1 is all of it.")
    top_k: int = Field(
        -1, ge=-1, le=MOST, description="Number of tokens that are drawn from; -1 is no limit."
    )
    min_p: Share | None = Field(
        None, description="Least probability of a token relative to the likeliest; 0 is off, unset unsent."
    )
    max_output_tokens: Size = Field(4096, description="Most tokens of an answer.")
    context_size: Size = Field(16384, description="Tokens that question and answer may have together.")
    rate_limit_per_minute: Count = Field(60, description="Requests a minute; 0 is no limit.")
    max_retries: int = Field(
        3, ge=-1, le=MOST, description="Further attempts after a passing failure; -1 is no limit."
    )
    max_backoff_seconds: float = Field(120.0, ge=0, description="Longest wait between two attempts.")
    http_timeout_seconds: Seconds = Field(120.0, description="Longest wait for an answer.")
    judge_timeout_seconds: Seconds = Field(100.0, description="Longest wait for a judge's answer.")
    use_json_mode: bool = Field(
        default=False, description="Ask the endpoint itself for JSON where JSON is needed."
    )
    use_streaming: bool = Field(
        default=False, description="Accepted for compatibility; whole answers are asked for."
    )


class Judge(ModelConfig):
    """The model that scores answers."""

    enabled: bool = Field(
        default=False, description="Use the judge; needed for mo-dpo and for judge filtering."
    )


def _off_is_absent(value: object) -> object:
    # A judge that is off and nothing else needs no address.
    is_off = isinstance(value, dict) and len(value) == 1 and value.get("enabled") is False
    return None if is_off else value


class Models(Section):
    """Who writes and who judges."""

    main: ModelConfig = Field(description="Writes subtopics, prompts and chosen answers.")
    rejected: ModelConfig | None = Field(None, description="Writes rejected answers; not needed in mode sft.")
    judge: Annotated[Judge | None, BeforeValidator(_off_is_absent)] = Field(
        None, description="Scores answers, for mo-dpo and for judge filtering."
    )


class JudgeFiltering(Section):
    """Which pairs are kept, by the judge's scores, in every mode but mo-dpo."""

    enabled: bool = Field(default=False, description="Keep only pairs whose scores are within the bounds.")
    use_explanations: bool = Field(
        default=False, description="Ask for reasons beside the scores; costs more tokens."
    )
    min_chosen_score: Average = Field(
        4.0, description="Lowest average score of a chosen answer that is kept."
    )
    max_rejected_score: Average = Field(
        3.0, description="Highest average score of a rejected answer that is kept."
    )


class PromptTemplates(Section):
    """The texts that the models are given, in Go template syntax."""

    subtopic_generation: Template = Field(
        defaults.SUBTOPIC_GENERATION, description="Asks for subtopics, as a JSON array of strings."
    )
    prompt_generation: Template = Field(
        defaults.PROMPT_GENERATION, description="Asks for a subtopic's prompts, as a JSON array of strings."
    )
    chosen_generation: Template = Field(defaults.CHOSEN_GENERATION, description="Asks for the chosen answer.")
    rejected_generation: Template = Field(
        defaults.REJECTED_GENERATION, description="Asks for the rejected answer."
    )
    judge_rubric: Template = Field(
        defaults.JUDGE_RUBRIC, description="Asks for scores of 1 to 5 for each criterion, as JSON."
    )
    subtopic_system_prompt: Template = Field("", description="System prompt for subtopics; empty for none.")
    prompt_system_prompt: Template = Field("", description="System prompt for prompts; empty for none.")
    chosen_system_prompt: Template = Field(
        "", description="System prompt for chosen answers; empty for none."
    )
    rejected_system_prompt: Template = Field(
        "", description="System prompt for rejected answers; empty for none."
    )
    judge_system_prompt: Template = Field("", description="System prompt for the judge; empty for none.")


class HuggingFace(Section):
    """Where the dataset is uploaded to, when that is asked for."""

    repo_id: Line = Field("", title="Repository", description="Dataset repository on the hub, as owner/name.")


class Output(Section):
    """Where results and paid answers are kept."""

    folder: Line = Field("output", min_length=1, description="Folder that the session folders are made in.")
    ledger: Annotated[Line, AfterValidator(check_ledger_url)] = Field(
        "",
        description="Database of paid answers, as sqlite:///path or postgresql+asyncpg://user@host/database; "
        "empty for ledger.db in the output folder.",
    )


class Config(Section):
    """The whole configuration, checked field by field; `load.load_config` checks the rest."""

    provider_rate_limits: dict[ProviderName, Count] = Field(
        default_factory=dict,
        description="Requests a minute for all models of a provider together, in place of their own limits; "
        "0 is no limit. Keys are as `provider_of` gives them.",
    )
    provider_burst_percent: int = Field(
        15, ge=1, le=50, description="Share of a minute's requests, in percent, that may be sent at once."
    )
    generation: Generation
    models: Models
    judge_filtering: JudgeFiltering = JudgeFiltering()
    prompt_templates: PromptTemplates = PromptTemplates()
    huggingface: HuggingFace = HuggingFace()
    output: Output = Output()


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, also where it may be left out; None for a single value."""
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


def default_of(key: str) -> Any:
    """The default of the setting with this dotted key; `PydanticUndefined` where one must be given.

    Raises:
        KeyError: There is no such setting.
    """
    return settings()[key].get_default(call_default_factory=True)

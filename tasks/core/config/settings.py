"""The settings: who writes and who judges, and all sections together, with every key by its name.

Types are strict, as TOML's own are: a number in quotes is not a number, and `true` is not 1. What several
settings mean for each other stands in `rules`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from tasks.core.config.sections import (
    Budget,
    CandidateChoice,
    DatasetMode,
    Execution,
    FileType,
    Generation,
    HuggingFace,
    Input,
    JudgeFiltering,
    Judging,
    Length,
    Lint,
    Output,
    OutputFormat,
    Price,
    PromptTemplates,
    Reasoning,
    Section,
    SftFormat,
)
from tasks.core.config.values import (
    MOST,
    PROVIDERS,
    Count,
    Line,
    Nucleus,
    OwnTemperature,
    ProviderName,
    Seconds,
    Share,
    Size,
    Temperature,
    check_base_url,
    check_extra_body,
    check_headers,
    check_stop,
    check_variable,
    provider_of,
)

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


StructuredOutput = Literal["auto", "json_schema", "json_object", "off"]
TokensParameter = Literal["auto", "max_tokens", "max_completion_tokens"]
Unsupported = Literal["adapt", "stop"]


class ModelConfig(Section):
    """An endpoint, the model behind it, and how it is asked."""

    base_url: Annotated[str, AfterValidator(check_base_url)] = Field(
        title="Base URL", description="Address of an OpenAI-compatible API, usually ending in /v1."
    )
    model_name: Line = Field(
        min_length=1, max_length=100, title="Model", description="Name of the model as the endpoint knows it."
    )
    api_key_env: Annotated[str, AfterValidator(check_variable)] = Field(
        "", description="Variable that holds the key, in place of the provider's; empty for that one."
    )
    api_key_block: Line = Field(
        "", description="Prefect Secret block that holds the key; empty for a variable."
    )
    temperature: Temperature = Field(0.7, description='Randomness of the answers; "unset" sends none.')
    max_output_tokens: Size = Field(4096, description="Most tokens of an answer.")
    context_size: Size = Field(16384, description="Tokens that question and answer may have together.")
    rate_limit_per_minute: Count = Field(60, description="Requests a minute; 0 is no limit.")
    tokens_per_minute: Count = Field(
        0, description="Tokens a minute, of questions and answers; 0 is no limit."
    )
    structure_temperature: OwnTemperature = Field(
        None, description="Randomness of JSON answers; the same as temperature when left out."
    )
    top_p: Nucleus = Field(
        1.0, description="Share of probability that tokens are drawn from; 1 is all of it, and not sent."
    )
    top_k: int = Field(
        -1, ge=-1, le=MOST, description="Number of tokens that are drawn from; -1 is no limit."
    )
    min_p: Share | None = Field(
        None, description="Least probability of a token relative to the likeliest; 0 is off, unset unsent."
    )
    seed: Count | None = Field(
        None, description="Makes answers repeatable where a server can; a further try adds to it."
    )
    stop: Annotated[list[str], AfterValidator(check_stop)] = Field(
        default_factory=list, description="Texts at which an answer ends."
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="Above 0 leads away from tokens that were there; unset is unsent."
    )
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="The same, growing with how often they were there; unset is unsent."
    )
    extra_body: Annotated[dict[str, Any], AfterValidator(check_extra_body)] = Field(
        default_factory=dict, description="Further fields of each request's body, sent as they are."
    )
    headers: Annotated[dict[str, str], AfterValidator(check_headers)] = Field(
        default_factory=dict, description="Further headers; ${NAME} in a value is taken from the environment."
    )
    max_tokens_parameter: TokensParameter = Field(
        "auto", description="What the server calls that limit; auto finds it out."
    )
    unsupported: Unsupported = Field(
        "adapt", description="What a parameter that the server refuses brings: leave it out, or stop."
    )
    max_retries: int = Field(
        3, ge=-1, le=MOST, description="Further attempts after a passing failure; -1 is no limit."
    )
    max_backoff_seconds: float = Field(120.0, ge=0, description="Longest wait between two attempts.")
    http_timeout_seconds: Seconds = Field(120.0, description="Longest wait for an answer.")
    judge_timeout_seconds: Seconds = Field(100.0, description="Longest wait for a judge's answer.")
    structured_output: StructuredOutput = Field(
        "auto", description="How the endpoint is asked for JSON; auto takes the strictest form it knows."
    )
    use_json_mode: bool = Field(
        default=False, description="Older form of structured_output: true is json_object, false is off."
    )
    use_streaming: bool = Field(default=False, description="Take answers piece by piece as they are written.")

    @model_validator(mode="before")
    @classmethod
    def _read_older_form(cls, given: object) -> object:
        """Map `use_json_mode` to `structured_output`, where only the older of the two is given."""
        older = given.get("use_json_mode") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(older, bool) or "structured_output" in given:
            return given
        return {**given, "structured_output": "json_object" if older else "off"}


class Judge(ModelConfig):
    """The model that scores answers."""

    enabled: bool = Field(
        default=False, description="Use the judge; needed for mo-dpo and for judge filtering."
    )


def _bare_is_absent(value: object) -> object:
    # A judge that is on or off, and nothing else, is none: others may judge.
    is_bare = isinstance(value, dict) and len(value) == 1 and isinstance(value.get("enabled"), bool)
    return None if is_bare else value


class Models(Section):
    """Who writes and who judges; further models under names of their own."""

    model_config = ConfigDict(extra="allow")
    # A judge's settings are those of any model, and whether it is used.
    __pydantic_extra__: dict[str, Judge] = Field(init=False)

    main: ModelConfig = Field(description="Writes subtopics, prompts and chosen answers.")
    rejected: ModelConfig | None = Field(None, description="Writes rejected answers; not needed in mode sft.")
    judge: Annotated[Judge | None, BeforeValidator(_bare_is_absent)] = Field(
        None, description="Scores answers, for mo-dpo and for judge filtering."
    )


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

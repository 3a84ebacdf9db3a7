"""The sections under `[models]`: who writes, who judges, and how they are asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tasks.core.config.section import Section
from tasks.core.config.tables import check_extra_body, check_headers, check_stop, check_variable
from tasks.core.config.values import (
    MOST,
    Count,
    Line,
    Nucleus,
    OwnTemperature,
    Seconds,
    Share,
    Size,
    Temperature,
    check_base_url,
)

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

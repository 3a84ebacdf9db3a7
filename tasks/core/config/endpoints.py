"""The sections under `[models]`: who writes, who judges, and how they are asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from tasks.core.config.section import Section
from tasks.core.config.values import MOST, Count, Line, Seconds, Share, Size, check_base_url


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

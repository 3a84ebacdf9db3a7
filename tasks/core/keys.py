"""Which settings change which phase, and the cache keys that follow from it.

Every setting has an entry in `EFFECTS`; a test fails when a new one has none. A setting changes a phase
when the phase's requests, or what is made of their answers, depend on it.
"""

from __future__ import annotations

import hashlib
from enum import Flag, auto
from typing import TYPE_CHECKING, Any

import orjson

from tasks.core.config.settings import as_known, default_of, further_models, model_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.config.settings import Config
    from tasks.core.models import Phase


class Effect(Flag):
    """What a setting changes; NONE for how the work is done, which changes nothing that comes out."""

    NONE = 0
    SUBTOPICS = auto()
    PROMPTS = auto()
    PAIRS = auto()
    JUDGE = auto()
    ROWS = auto()


_LISTS = Effect.SUBTOPICS | Effect.PROMPTS
_MAIN = _LISTS | Effect.PAIRS

_SAMPLING = (
    "base_url",
    "model_name",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "extra_body",
    "max_output_tokens",
)
# These came later. Where they are not set they are left out, and older sessions keep their keys.
_LATER = frozenset(
    {
        "generation.target_pairs",
        "generation.cut_chatter",
        "lint.drop",
        "lint.max_tokens",
        "candidates.count",
        "candidates.models",
        "candidates.choose",
        "candidates.min_margin",
        "candidates.on_policy",
        "candidates.max_length_ratio",
        "length.answer_words",
        "judging.models",
        "judging.mode",
        "judging.swap",
        "judging.agree",
        "prompt_templates.judge_comparison",
        "prompt_templates.judge_checklist",
        "prompt_templates.judge_checks",
        "input.prompt_column",
        "input.system_column",
        "input.sha256",
        "input.subtopics",
        *(
            f"models.{role}.{key}"
            for role in ("main", "rejected", "judge")
            for key in ("seed", "stop", "presence_penalty", "frequency_penalty", "extra_body")
        ),
    }
)
_CONDUCT = (
    "context_size",
    "rate_limit_per_minute",
    "tokens_per_minute",
    "headers",
    "api_key_env",
    "api_key_block",
    "max_tokens_parameter",
    "unsupported",
    "max_retries",
    "max_backoff_seconds",
    "http_timeout_seconds",
    "judge_timeout_seconds",
    "structured_output",
    "use_json_mode",
    "use_streaming",
)

EFFECTS: dict[str, Effect] = {
    "generation.main_topic": _MAIN | Effect.JUDGE | Effect.ROWS,
    "generation.num_subtopics": Effect.SUBTOPICS,
    "generation.num_prompts_per_subtopic": Effect.PROMPTS,
    "generation.target_pairs": Effect.PROMPTS,
    "generation.max_prompts_per_pair": Effect.NONE,
    "generation.similarity_threshold": _LISTS,
    "generation.subtopic_chunk_size": Effect.SUBTOPICS,
    "generation.over_generation_buffer": Effect.SUBTOPICS,
    "generation.max_exclusion_list_size": _LISTS,
    "generation.prompt_retry_attempts": Effect.PROMPTS,
    "generation.seed": _MAIN | Effect.JUDGE,
    "generation.dataset_mode": Effect.PAIRS | Effect.JUDGE | Effect.ROWS,
    "generation.sft_format": Effect.ROWS,
    "generation.include_topic_columns": Effect.ROWS,
    "generation.enable_reasoning_capture": Effect.ROWS,
    "generation.reasoning_capture_rejected": Effect.ROWS,
    "generation.cut_chatter": Effect.PAIRS | Effect.JUDGE | Effect.ROWS,
    "generation.concurrency": Effect.NONE,
    "generation.min_success_rate": Effect.NONE,
    "generation.disable_validation_limits": Effect.NONE,
    "generation.enable_checkpointing": Effect.NONE,
    "generation.checkpoint_interval": Effect.NONE,
    "generation.resume_from_session": Effect.NONE,
    # What a file says is in its jobs, whose items are part of a block's key.
    "input.prompts": Effect.NONE,
    "input.sha256": Effect.PROMPTS,
    "input.prompt_column": Effect.PROMPTS,
    "input.system_column": Effect.PROMPTS,
    "input.keep_columns": Effect.ROWS,
    "input.skip_bad": Effect.NONE,
    "input.subtopics": _LISTS,
    **{f"models.main.{key}": _MAIN for key in _SAMPLING},
    **{f"models.rejected.{key}": Effect.PAIRS for key in _SAMPLING},
    **{f"models.judge.{key}": Effect.JUDGE for key in _SAMPLING},
    "models.main.structure_temperature": _LISTS,
    "models.rejected.structure_temperature": Effect.NONE,
    "models.judge.structure_temperature": Effect.JUDGE,
    **{f"models.{role}.{key}": Effect.NONE for role in ("main", "rejected", "judge") for key in _CONDUCT},
    "models.judge.enabled": Effect.NONE,
    "candidates.count": Effect.PAIRS | Effect.JUDGE | Effect.ROWS,
    "candidates.models": Effect.PAIRS | Effect.JUDGE | Effect.ROWS,
    # What is chosen of the same answers is asked nowhere: it costs nothing.
    "candidates.choose": Effect.JUDGE | Effect.ROWS,
    "candidates.min_margin": Effect.JUDGE | Effect.ROWS,
    "candidates.on_policy": Effect.JUDGE | Effect.ROWS,
    "candidates.max_length_ratio": Effect.JUDGE | Effect.ROWS,
    "length.answer_words": Effect.PAIRS,
    "judging.models": Effect.JUDGE | Effect.ROWS,
    "judging.mode": Effect.JUDGE | Effect.ROWS,
    "judging.swap": Effect.JUDGE | Effect.ROWS,
    "judging.agree": Effect.JUDGE | Effect.ROWS,
    "judge_filtering.enabled": Effect.JUDGE | Effect.ROWS,
    "judge_filtering.use_explanations": Effect.JUDGE,
    "judge_filtering.min_chosen_score": Effect.JUDGE | Effect.ROWS,
    "judge_filtering.max_rejected_score": Effect.JUDGE | Effect.ROWS,
    "lint.drop": Effect.JUDGE | Effect.ROWS,
    "lint.max_tokens": Effect.JUDGE | Effect.ROWS,
    "prompt_templates.subtopic_generation": Effect.SUBTOPICS,
    "prompt_templates.subtopic_system_prompt": Effect.SUBTOPICS,
    "prompt_templates.prompt_generation": Effect.PROMPTS,
    "prompt_templates.prompt_system_prompt": Effect.PROMPTS,
    "prompt_templates.chosen_generation": Effect.PAIRS,
    "prompt_templates.chosen_system_prompt": Effect.PAIRS,
    "prompt_templates.rejected_generation": Effect.PAIRS,
    "prompt_templates.rejected_system_prompt": Effect.PAIRS,
    "prompt_templates.judge_rubric": Effect.JUDGE,
    "prompt_templates.judge_system_prompt": Effect.JUDGE,
    "prompt_templates.judge_comparison": Effect.JUDGE,
    "prompt_templates.judge_checklist": Effect.JUDGE,
    "prompt_templates.judge_checks": Effect.JUDGE,
    # Used by transform alone, whose sessions are not resumed under other settings.
    "prompt_templates.reasoning_generation": Effect.NONE,
    "prompt_templates.reasoning_system_prompt": Effect.NONE,
    "provider_rate_limits": Effect.NONE,
    "provider_token_limits": Effect.NONE,
    "provider_burst_percent": Effect.NONE,
    "huggingface.repo_id": Effect.NONE,
    "huggingface.license": Effect.NONE,
    "output.folder": Effect.NONE,
    "output.ledger": Effect.NONE,
    "output.mirror": Effect.NONE,
    "output.mirror_minutes": Effect.NONE,
    "output.formats": Effect.NONE,
    "output.file_type": Effect.NONE,
    "output.reasoning": Effect.NONE,
    "output.test_share": Effect.NONE,
    "output.split_seed": Effect.NONE,
    "execution.grace_seconds": Effect.NONE,
    "execution.patience_minutes": Effect.NONE,
    "execution.stop_at_loss": Effect.NONE,
    "execution.adaptive_concurrency": Effect.NONE,
    "execution.max_answer_megabytes": Effect.NONE,
    "execution.preflight": Effect.NONE,
    "execution.shards": Effect.NONE,
    "execution.work_pool": Effect.NONE,
    "pricing": Effect.NONE,
    "budget.max_usd": Effect.NONE,
    "budget.max_tokens": Effect.NONE,
    "budget.max_calls": Effect.NONE,
}

_DECISIVE = {
    "subtopics": Effect.SUBTOPICS,
    "prompts": Effect.PROMPTS,
    "pairs": Effect.PAIRS | Effect.JUDGE,
}


def effects_in(config: Config) -> dict[str, Effect]:
    """What each setting changes, those of further models too, by dotted key."""
    found = dict(EFFECTS)
    for name in further_models(config):
        settings = (*_SAMPLING, "structure_temperature", *_CONDUCT, "enabled")
        found |= dict.fromkeys((f"models.{name}.{key}" for key in settings), Effect.NONE)
    answering, judging = config.candidates.models, config.judging.models
    of_pairs = [f"models.{name}.{key}" for name in answering for key in _SAMPLING]
    of_judges = [f"models.{name}.{key}" for name in judging for key in (*_SAMPLING, "structure_temperature")]
    for effect, keys in ((Effect.PAIRS, of_pairs), (Effect.JUDGE, of_judges)):
        for key in keys:
            found[key] = found.get(key, Effect.NONE) | effect
    return found


def decisive_settings(config: Config, effect: Effect) -> dict[str, Any]:
    """The settings that change any of `effect`, by dotted key, with their values."""
    return {key: value_of(config, key) for key, effects in effects_in(config).items() if effects & effect}


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key; None below a section that is left out."""
    first, *names = key.split(".")
    value = getattr(config, first, None)
    if first == "models" and names:
        value = model_named(config, names.pop(0))
    for name in names:
        value = getattr(value, name, None)
    return value


def configuration_hash(config: Config) -> str:
    """SHA-256 in hex of all settings that decide what comes out: the same hash, the same questions."""
    decisive = decisive_settings(config, ~Effect.NONE)
    return hashlib.sha256(orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)).hexdigest()


def phase_key(config: Config, phase: Phase, ledger_id: str) -> str:
    """The hash of all that decides a phase's outcome, as 16 hex digits.

    The ledger's own id is part of it: a finished phase is only finished with the ledger that holds it.
    """
    decisive = {
        key: value
        for key, value in decisive_settings(config, _DECISIVE[phase]).items()
        if as_known(key) not in _LATER or value != default_of(key)
    }
    return _digest([ledger_id, decisive])


def block_key(phase: Phase, phase_hash: str, items: Sequence[object]) -> str:
    """The cache key of a block: `<phase>-<phase hash>-<items hash>`, safe as a file's name."""
    return f"{phase}-{phase_hash}-{_digest(items)}"


def _digest(value: object) -> str:
    canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()[:16]

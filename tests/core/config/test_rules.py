"""What several settings mean for each other, reported together with what is wrong in single ones."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.settings import Config
from tasks.core.errors import ConfigError

URL = "http://127.0.0.1:8000/v1"
MAIN = {"models.main.base_url": URL, "models.main.model_name": "strong"}
REJECTED = {"models.rejected.base_url": URL, "models.rejected.model_name": "weak"}
JUDGE = {"models.judge.base_url": URL, "models.judge.model_name": "critic", "models.judge.enabled": True}
TOPIC = {
    "generation.main_topic": "Bridges",
    "generation.num_subtopics": 4,
    "generation.num_prompts_per_subtopic": 3,
}


def mode(name: str) -> dict[str, Any]:
    return {"generation.dataset_mode": name}


def load(*parts: dict[str, Any], text: str = "") -> Config:
    given = {key: value for part in parts for key, value in part.items()}
    return load_config(None, text=text, environ={}, overrides=given).config


def problems(*parts: dict[str, Any], text: str = "") -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(*parts, text=text)
    return {
        problem.key: problem.message.removesuffix(" (set on the command line)")
        for problem in caught.value.problems
    }


@pytest.mark.parametrize("name", ["dpo", "kto", "mo-dpo"])
def test_a_rejected_model_is_needed_unless_the_mode_is_sft(name: str) -> None:
    assert "models.rejected" in problems(TOPIC, MAIN, JUDGE, mode(name))
    assert load(TOPIC, MAIN, mode("sft")).models.rejected is None


def test_a_main_model_is_always_needed() -> None:
    found = problems(TOPIC, REJECTED, mode("sft"))
    assert found == {"models.main": "is missing; it needs base_url and model_name"}


def test_an_enabled_judge_is_needed_for_mo_dpo() -> None:
    found = problems(TOPIC, MAIN, REJECTED)
    assert found == {
        "models.judge": 'is missing; generation.dataset_mode = "mo-dpo" needs it with enabled = true'
    }
    found = problems(TOPIC, MAIN, REJECTED, JUDGE, {"models.judge.enabled": False})
    assert found["models.judge"].startswith("is not enabled;")
    judge = load(TOPIC, MAIN, REJECTED, JUDGE).models.judge
    assert judge is not None
    assert judge.enabled


def test_an_enabled_judge_is_needed_for_judge_filtering() -> None:
    filtering = {"judge_filtering.enabled": True}
    found = problems(TOPIC, MAIN, mode("sft"), filtering)
    assert found == {
        "models.judge": "is missing; judge_filtering.enabled = true needs it with enabled = true"
    }
    assert load(TOPIC, MAIN, JUDGE, mode("sft"), filtering).judge_filtering.enabled


def test_a_judge_that_is_off_needs_no_address() -> None:
    assert load(TOPIC, MAIN, REJECTED, mode("dpo"), {"models.judge.enabled": False}).models.judge is None
    assert "models.judge" in problems(TOPIC, MAIN, REJECTED, mode("mo-dpo"), {"models.judge.enabled": False})


def test_lint_needs_a_limit_for_tokens_and_names_each_check_once() -> None:
    given = (TOPIC, MAIN, mode("sft"))
    assert problems(*given, {"lint.drop": ["tokens"]}) == {
        "lint.max_tokens": 'is missing; "tokens" in lint.drop needs it'
    }
    assert load(*given, {"lint.drop": ["tokens"], "lint.max_tokens": 9}).lint.drop == ["tokens"]
    assert "names something twice" in problems(*given, {"lint.drop": ["empty", "empty"]})["lint.drop"]
    assert "lint.drop" in "".join(problems(*given, {"lint.drop": ["length_bias"]}))


def test_rules_are_reported_beside_broken_settings() -> None:
    broken = {
        "generation.num_subtopics": 0,
        "models.main.temperature": 9,
        "provider_rate_limits": {"openia": True},
    }
    template = {"prompt_templates.chosen_generation": "{{.Story}}"}
    context = {"models.main.context_size": 100, "models.main.max_output_tokens": 101}
    found = problems(TOPIC, MAIN, mode("dpo"), broken, template, context)
    assert set(found) == {
        "generation.num_subtopics",
        "models.main.temperature",
        "provider_rate_limits.openia",
        "models.rejected",
        "models.main.context_size",
        "prompt_templates.chosen_generation",
    }


def test_no_rule_judges_a_broken_setting() -> None:
    broken = {"generation.dataset_mode": "ppo", "models.main.context_size": "small"}
    assert set(problems(TOPIC, MAIN, broken, {"models.main.max_output_tokens": 10**6})) == set(broken)


def test_a_section_that_is_none_breaks_nothing_else() -> None:
    found = problems(TOPIC, MAIN, mode("dpo"), text="models = 3\noutput = 'x'\nprompt_templates = []")
    assert set(found) == {"models.rejected", "output", "prompt_templates"}


@pytest.mark.parametrize("role", ["main", "rejected", "judge"])
def test_a_context_holds_at_least_the_answer(role: str) -> None:
    models = TOPIC | MAIN | REJECTED | JUDGE
    sizes = {f"models.{role}.context_size": 100, f"models.{role}.max_output_tokens": 100}
    load(models, sizes)
    found = problems(models, sizes, {f"models.{role}.context_size": 99})
    expected = f"is 99; allowed: models.{role}.max_output_tokens (100) or more"
    assert found == {f"models.{role}.context_size": expected}


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("generation.num_subtopics", 10_000),
        ("generation.num_prompts_per_subtopic", 10_000),
        ("generation.concurrency", 1024),
    ],
)
def test_upper_limits_can_be_lifted(key: str, most: int) -> None:
    models = TOPIC | MAIN | mode("sft")
    lifted = {"generation.disable_validation_limits": True}
    load(models, {key: most})
    assert f"allowed: 1 to {most}, or up to" in problems(models, {key: most + 1})[key]
    load(models, {key: most + 1}, lifted)
    assert set(problems(models, {key: 0}, lifted)) == {key}
    assert set(problems(models, {key: 2**31}, lifted)) == {key}


def test_a_providers_limit_is_found_by_name_or_by_base_url() -> None:
    limits = {"openai": 0, f"{URL}/": 7, "https://api.together.xyz/v1": 9}
    config = load(TOPIC, MAIN, mode("sft"), {"provider_rate_limits": limits})
    assert config.provider_rate_limits == {"openai": 0, URL: 7, "together": 9}


@pytest.mark.parametrize(
    ("limits", "key", "expected"),
    [
        ({"OpenAi": 1}, "provider_rate_limits.OpenAi", "did you mean openai?"),
        ({"zzz": 1}, "provider_rate_limits.zzz", "allowed: openai, nvidia"),
        ({"openai": -1}, "provider_rate_limits.openai", "is -1; allowed: 0 or more"),
        ({"openai": 1.5}, "provider_rate_limits.openai", "must be a whole number"),
        ({"http://other/v1": 1}, "provider_rate_limits.'http://other/v1'", "is the base_url of no model"),
        ({"http://u:hidden@h/": 1}, "provider_rate_limits.(hidden)", "must not hold a user name or password"),
        ({URL: 1, f"{URL}/": 1}, f"provider_rate_limits.'{URL}/'", "is the same provider as"),
    ],
)
def test_names_and_limits_of_providers(limits: dict[str, Any], key: str, expected: str) -> None:
    found = problems(TOPIC, MAIN, mode("sft"), {"provider_rate_limits": limits})
    assert set(found) == {key}
    assert expected in found[key]
    assert "hidden@" not in str(found)


def test_limits_of_tokens_are_found_like_those_of_requests() -> None:
    limits = {"openai": 0, f"{URL}/": 7000}
    assert load(TOPIC, MAIN, mode("sft"), {"provider_token_limits": limits}).provider_token_limits == {
        "openai": 0,
        URL: 7000,
    }
    found = problems(TOPIC, MAIN, mode("sft"), {"provider_token_limits": {"openia": 1, "http://other/v1": 1}})
    assert set(found) == {"provider_token_limits.openia", "provider_token_limits.'http://other/v1'"}


def test_a_key_comes_from_one_place() -> None:
    keys = {"models.main.api_key_env": "A_KEY", "models.main.api_key_block": "a-key"}
    found = problems(TOPIC, MAIN, mode("sft"), keys)
    assert found == {"models.main.api_key_block": "names another key than api_key_env does; keep one"}
    for key, name in keys.items():
        load(TOPIC, MAIN, mode("sft"), {key: name})


def test_a_budget_in_dollars_needs_the_price_of_every_model_in_use() -> None:
    budget, models = {"budget.max_usd": 5.0}, TOPIC | MAIN | REJECTED | JUDGE
    prices = {name: {"input": 0.0, "output": 0.0} for name in ("strong", "weak", "critic")}
    load(models, {"budget.max_tokens": 5, "budget.max_calls": 0})
    load(models, budget, {"pricing": prices})
    load(models, budget, mode("sft"), {"pricing": {"strong": prices["strong"]}})
    load(models, budget, mode("dpo"), {"pricing": {name: prices[name] for name in ("strong", "weak")}})
    for missing in prices:
        known = {name: price for name, price in prices.items() if name != missing}
        found = problems(models, budget, {"pricing": known})
        assert found == {
            "budget.max_usd": f'needs the price of every model in use; add [pricing."{missing}"]'
        }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "auto"),
        ({"use_json_mode": True}, "json_object"),
        ({"use_json_mode": False}, "off"),
        ({"use_json_mode": True, "structured_output": "json_schema"}, "json_schema"),
        ({"use_json_mode": False, "structured_output": "auto"}, "auto"),
    ],
)
def test_the_older_form_of_structured_output_is_understood(given: dict[str, Any], expected: str) -> None:
    model = {f"models.main.{name}": value for name, value in given.items()}
    config = load(TOPIC, MAIN, mode("sft"), model)
    assert config.models.main.structured_output == expected
    assert Config.model_validate(config.model_dump(exclude_unset=True)) == config


def test_burst_percent_may_stand_in_the_table_of_limits() -> None:
    table = "[provider_rate_limits]\nopenai = 5\nprovider_burst_percent = 20\n"
    config = load(TOPIC, MAIN, mode("sft"), text=table)
    assert (config.provider_burst_percent, config.provider_rate_limits) == (20, {"openai": 5})
    assert load(TOPIC, MAIN, mode("sft"), text=f"provider_burst_percent = 20\n{table}") == config
    found = problems(TOPIC, MAIN, mode("sft"), text=f"provider_burst_percent = 30\n{table}")
    assert "keep one" in found["provider_burst_percent"]
    overridden = load(TOPIC, MAIN, mode("sft"), {"provider_burst_percent": 30}, text=table)
    assert overridden.provider_burst_percent == 30


@pytest.mark.parametrize("key", ["chosen_generation", "subtopic_system_prompt", "judge_rubric"])
def test_templates_are_translated_before_the_first_call(key: str) -> None:
    found = problems(TOPIC, MAIN, mode("sft"), {f"prompt_templates.{key}": "{{.Unknown}}"})
    assert ".Unknown" in found[f"prompt_templates.{key}"]


def test_a_template_that_is_needed_must_not_be_empty() -> None:
    empty = {"prompt_templates.rejected_generation": " ", "prompt_templates.judge_rubric": ""}
    load(TOPIC, MAIN, mode("sft"), empty)
    assert set(problems(TOPIC, MAIN, REJECTED, JUDGE, empty)) == set(empty)
    load(TOPIC, MAIN, mode("sft"), {"prompt_templates.judge_system_prompt": ""})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"judge_filtering.enabled": True}, "judge_filtering.enabled has no effect in mode mo-dpo"),
        (mode("dpo"), "models.judge.enabled has no effect in mode dpo"),
        (
            {"models.rejected.structure_temperature": 0.1},
            "models.rejected.structure_temperature has no effect",
        ),
        ({"models.rejected.use_json_mode": True}, "models.rejected.use_json_mode has no effect"),
        ({"models.rejected.structured_output": "json_schema"}, "models.rejected.structured_output has no"),
        ({"models.main.judge_timeout_seconds": 5}, "models.main.judge_timeout_seconds has no effect"),
        ({"generation.sft_format": "alpaca"}, "generation.sft_format has no effect"),
        ({"generation.include_topic_columns": False}, "generation.include_topic_columns has no effect"),
        ({"generation.reasoning_capture_rejected": True}, "has no effect without enable_reasoning_capture"),
    ],
)
def test_settings_without_effect_are_named(given: dict[str, Any], expected: str) -> None:
    assert rules.warnings(load(TOPIC, MAIN, REJECTED, JUDGE)) == ()
    (warning,) = rules.warnings(load(TOPIC, MAIN, REJECTED, JUDGE, given))
    assert expected in warning


def test_settings_with_an_effect_are_not_named() -> None:
    given = {
        "generation.sft_format": "alpaca",
        "generation.include_topic_columns": False,
        "judge_filtering.enabled": True,
        "models.main.structure_temperature": 0.1,
        "models.judge.structure_temperature": 0.1,
        "models.main.use_json_mode": True,
        "models.main.use_streaming": True,
        "models.judge.structured_output": "json_object",
    }
    assert rules.warnings(load(TOPIC, MAIN, JUDGE, mode("sft"), given)) == ()


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("prompt_generation", "SubTopic"),
        ("chosen_generation", "Prompt"),
        ("rejected_generation", "Prompt"),
        ("judge_rubric", "StoryText"),
    ],
)
def test_a_template_that_asks_the_same_of_every_item_is_refused(name: str, variable: str) -> None:
    template = {f"prompt_templates.{name}": "Say something as a JSON array."}
    found = problems(MAIN, REJECTED, JUDGE, TOPIC, mode("mo-dpo"), template)
    assert f"{{{{.{variable}}}}}" in found[f"prompt_templates.{name}"]

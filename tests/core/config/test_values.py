"""What each setting may be, and how it reads when it is something else."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.problems import LONGEST_VALUE, from_errors, shown
from tasks.core.config.settings import Config, provider_of, settings
from tasks.core.errors import ConfigError
from tests.core.config.test_load import MINIMAL, load, problems


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("generation.num_subtopics", 0, "is 0; allowed: 1 to 10000"),
        ("generation.concurrency", 1025, "is 1025; allowed: 1 to 1024"),
        ("generation.concurrency", True, "is true; must be a whole number"),
        ("generation.concurrency", 8.0, "is 8.0; must be a whole number"),
        ("generation.concurrency", "many", "is 'many'; must be a whole number"),
        ("generation.seed", -1, "is -1; allowed: 0 or more"),
        ("generation.seed", 2**31, "allowed: 0 to 2147483647"),
        pytest.param("generation.seed", 16**9000, "is a number of more than 64 bits", id="huge"),
        ("generation.prompt_retry_attempts", 6, "is 6; allowed: 0 to 5"),
        ("generation.over_generation_buffer", 1.01, "allowed: 0 to 1"),
        ("generation.min_success_rate", float("nan"), "must be a finite number"),
        ("generation.min_success_rate", True, "must be a number"),
        ("generation.dataset_mode", "ppo", "is 'ppo'; allowed: sft, dpo, kto, mo-dpo"),
        ("generation.sft_format", 1, "is 1; allowed: sharegpt, alpaca"),
        ("generation.enable_checkpointing", 1, "is 1; must be true or false"),
        ("generation.main_topic", " ", "allowed: 1 to 500 characters"),
        ("generation.main_topic", "x" * 501, "allowed: 1 to 500 characters"),
        ("generation.main_topic", "a\nb", "is 'a\\nb'; must be one line"),
        ("generation.main_topic", 5, "is 5; must be text in quotes"),
        ("generation.main_topic", dt.date(2026, 1, 2), "is 2026-01-02; must be text in quotes"),
        ("models.main.temperature", 2.1, "is 2.1; allowed: 0 to 2"),
        ("models.main.top_p", -0.1, "allowed: 0 to 1"),
        ("models.main.min_p", 2.0, "allowed: 0 to 1"),
        ("models.main.seed", -1, "allowed: 0 or more"),
        ("budget.max_calls", -1, "allowed: 0 or more"),
        ("budget.max_usd", -0.5, "allowed: 0 or more"),
        ("models.main.top_k", -2, "allowed: -1 or more"),
        ("models.main.max_retries", -2, "allowed: -1 or more"),
        ("models.main.max_backoff_seconds", -1, "allowed: 0 or more"),
        ("models.main.http_timeout_seconds", 0, "is 0; allowed: more than 0"),
        ("models.main.model_name", "", "allowed: 1 to 100 characters"),
        ("models.main.model_name", "m" * 101, "allowed: 1 to 100 characters"),
        ("judge_filtering.min_chosen_score", 5.5, "allowed: 1 to 5"),
        ("provider_burst_percent", 51, "allowed: 1 to 50"),
        ("provider_rate_limits", [1], "is a list; must be a table"),
        ("output.folder", "", "must not be empty"),
        ("prompt_templates.judge_system_prompt", "ü" * 25_601, "allowed: at most 51200 bytes"),
    ],
)
def test_values_out_of_range_or_of_the_wrong_type(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, text=MINIMAL, environ={}, overrides={key: value})
    (found,) = caught.value.problems
    assert found.key == key
    assert expected in found.message
    assert found.message.endswith("(set on the command line)")


def test_a_template_may_have_50_kilobytes() -> None:
    config = load(prompt_templates__chosen_system_prompt="ü" * 25_600).config
    assert len(config.prompt_templates.chosen_system_prompt.encode()) == 50 * 1024


def test_numbers_in_quotes_are_refused_in_a_file() -> None:
    found = problems(MINIMAL.replace("num_subtopics = 4", 'num_subtopics = "4"'))
    assert found == {"generation.num_subtopics": "is '4'; must be a whole number"}


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["input", "outputs", "cached_input", "gpt-4.1", "seed", "X-Key", "a b", "openai"])
tables = st.dictionaries(names, anything | st.dictionaries(names, anything, max_size=3), max_size=3)


@given(
    st.sampled_from([*settings(), "generation", "models", "models.judge", "output", "unknown"]),
    anything | tables,
)
def test_whatever_stands_in_a_file_is_accepted_or_explained(key: str, value: Any) -> None:
    data = tomli.loads(MINIMAL)
    *sections, name = key.split(".")
    table = data
    for section in sections:
        table = table.setdefault(section, {})
    table[name] = value
    try:
        Config.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
    else:
        errors = []
    broken = frozenset(found["loc"] for found in errors)
    for problem in [*from_errors(errors), *rules.problems(rules.Draft(data, broken))]:
        assert problem.key.startswith((key, "models.")), problem
        assert str(problem).isprintable()
        assert "pydantic" not in problem.message


@given(anything)
def test_a_shown_value_is_short_and_printable(value: Any) -> None:
    text = shown("generation.main_topic", value)
    assert len(text) <= LONGEST_VALUE
    assert text.isprintable()


# URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8000/v1", "is 'localhost:8000/v1'; must start with http:// or https://"),
        ("ftp://host", "must start with http:// or https://"),
        ("", "must start with http:// or https://"),
        ("http:///v1", "has no valid host"),
        ("http://exa mple", "has no valid host"),
        ("http://xn--a/", "is not a valid URL"),
        ("http://[::1", "is not a valid URL"),
        ("http://host:port/v1", "is not a valid URL"),
        ("http://host:65536/v1", "has no valid port"),
        ("http://host/v1?key=hidden", "must have neither a query"),
        ("http://host/v1#hidden", "must have neither a query"),
        ("https://user:hidden@host/v1", "keys belong in the environment"),
        ("user:hidden@host/v1", "must start with http:// or https://"),
        ("http://user:hidden/v1", "is not a valid URL"),
    ],
)
def test_addresses_that_cannot_be_asked(url: str, expected: str) -> None:
    found = problems(models__main__base_url=url)
    assert expected in found["models.main.base_url"]
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://openai.com", "openai"),
        ("HTTPS://API.OpenAI.com.:443/v1/", "openai"),
        ("https://integrate.api.nvidia.com/v1", "nvidia"),
        ("https://api.anthropic.com/v1", "anthropic"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.together.ai/v1", "together"),
        ("https://llm.chutes.ai/v1", "chutes"),
        ("https://ai.nahcrof.com/v2", "nahcrof"),
        ("https://evil.com/openai.com", "https://evil.com/openai.com"),
        ("https://notopenai.com/v1", "https://notopenai.com/v1"),
        ("https://openai.com.evil.com", "https://openai.com.evil.com"),
        ("https://other.chutes.ai/v1", "https://other.chutes.ai/v1"),
        ("HTTP://LocalHost:80/v1/", "http://localhost/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_the_provider_is_found_in_the_host_alone(url: str, provider: str) -> None:
    assert provider_of(load(models__main__base_url=url).config.models.main.base_url) == provider


@pytest.mark.parametrize(
    "url",
    ["", "sqlite:///ledger.db", "sqlite:////var/ledger.db", "postgresql+asyncpg://me@host/db"],
)
def test_ledgers_that_can_be_opened(url: str) -> None:
    assert load(output__ledger=url).config.output.ledger == url


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hidden@host/db",
        "postgresql://me:hidden@host/db",
        "postgresql+asyncpg://me:hidden@host",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///out?put/ledger.db",
        "sqlite://host/ledger.db",
        "ledger.db",
        "http://[hidden",
    ],
)
def test_ledgers_that_cannot_be_opened(url: str) -> None:
    found = problems(output__ledger=url)
    assert "postgresql+asyncpg://user@host/database" in found["output.ledger"]
    assert "hidden" not in found["output.ledger"]


@pytest.mark.parametrize("url", ["me:hidden@host/db", "host/db?password=hidden"])
def test_a_ledgers_password_is_refused_and_not_repeated(url: str) -> None:
    found = problems(output__ledger=f"postgresql+asyncpg://{url}")
    assert "PGPASSWORD" in found["output.ledger"]
    assert "hidden" not in found["output.ledger"]

"""The recipes of docs/models.md: each is a valid section, short, and of a kind that people use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.core.config import rules
from tasks.core.config.load import load_config

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
_RECIPE = re.compile(
    r"^### (?P<kind>.+)\n(?P<said>(?:(?!^#|^```).*\n)*)```toml\n(?P<toml>(?:(?!```).*\n)+)```", re.MULTILINE
)
RECIPES = {found["kind"]: found["toml"] for found in _RECIPE.finditer(PAGE.partition("\n## Recipes\n")[2])}
KINDS = [
    "OpenAI",
    "Anthropic",
    "Gemini",
    "OpenRouter",
    "Groq",
    "Together",
    "DeepSeek",
    "Mistral",
    "vLLM",
    "Ollama",
    "llama.cpp",
    "LM Studio",
]
BEFORE = """[generation]
main_topic = "The sea"
num_subtopics = 2
num_prompts_per_subtopic = 2
dataset_mode = "sft"
"""


def test_there_is_one_for_each_kind() -> None:
    assert list(RECIPES) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_is_a_valid_section_of_ten_lines_or_so(kind: str) -> None:
    recipe = RECIPES[kind]
    assert 8 <= len(recipe.splitlines()) <= 11
    config = load_config(None, text=BEFORE + recipe, environ={}).config
    assert rules.warnings(config) == ()
    local = config.models.main.base_url.startswith("http://localhost:")
    assert bool(config.models.main.api_key_env) != local, "servers of one's own need no key, all others do"


def test_the_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings

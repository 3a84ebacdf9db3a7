"""The criteria of a rubric by name: found in rubrics as users write them, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers.rubric import MOST_CRITERIA, criteria_in
from tasks.core.config.templates import DEFAULT_CRITERIA, JUDGE_RUBRIC

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"

# In the manner of those that come with VellumForge2: a list, and an example that is no JSON.
LITERARY = """Judge this story as an editor would, on these criteria (each from 1 to 5):

STORY:
{{.StoryText}}

For each criterion, give:
1. "reasoning" (two sentences)
2. "score" (a whole number)

Criteria:
1. plot_quality - structure, pacing
2. creativity - fresh ideas
3. world_building - setting and mood

Return JSON only:
{
  "plot_quality": {"score": 1-5, "reasoning": "your analysis"},
  "creativity": {"score": 1-5, "reasoning": "your analysis"},
  "world_building": {"score": 1-5, "reasoning": "your analysis"}
}"""

LISTED = """Score the story.

Criteria:
1. plot_quality
2. creativity

Answer with JSON only: {"plot_quality": {"score": 3, "reasoning": "..."}, ...}"""


def test_the_rubrics_that_come_with_the_program() -> None:
    assert criteria_in(JUDGE_RUBRIC) == DEFAULT_CRITERIA
    example = tomli.loads(EXAMPLE.read_text(encoding="utf-8"))["prompt_templates"]["judge_rubric"]
    assert criteria_in(example) == ("assignment", "character", "world", "prose", "ending")


@pytest.mark.parametrize(
    ("rubric", "expected"),
    [
        (LITERARY, ("plot_quality", "creativity", "world_building")),
        (LISTED, ("plot_quality", "creativity")),
        ('{"plot": 3, "prose": <1-5>, "overall": 3}', ("plot", "prose")),
        ('{"Plot": {"reasoning": "...", "rating": "1-5"}, "prose": [1-5], "note": "..."}', ("Plot", "prose")),
        ('{"scores": {"plot": N, "prose": {"score": integer}}}', ("plot", "prose")),
        ('Write {like this}: {"plot": 3}. Or so: {"plot": 5}', ("plot",)),
        ("**Criteria:**\n\n- plot: the arc\n  of it\n- `prose` (style)\n\nThat is all.", ("plot", "prose")),
        ("## Quality criteria:\n* **Plot** - the arc\n* **Prose**", ("Plot", "Prose")),
    ],
)
def test_criteria_that_are_named(rubric: str, expected: tuple[str, ...]) -> None:
    assert criteria_in(rubric) == expected


@pytest.mark.parametrize(
    "rubric",
    [
        "",
        "judge {{.StoryText}}",
        "Score plot, prose and wit from 1 to 5, as JSON.",
        '{"score": 3, "reasoning": "..."}',
        '{"overall": 3}',
        '{"criterion": {"score": 3}}',
        '{"<criterion>": {"score": 3}}',
        '{"criterion_1": 3, "criterion_2": 3}',
        '[{"criterion": "plot", "score": 3}]',
        '{"plot": 3, ...}',
        '{"plot": 3, "plot": 4}',
        '{"plot": 3} or {"prose": 3}',
        '{"plot": 3',
        '{"plot": 3]',
        '{"{{.SubTopic}}": 3}',
        '{{if .Prompt}}{"plot": 3}{{end}}',
        '{{- with .Prompt}}{"plot": 3}{{end}}',
        "Criteria:\n- plot and pacing\n- prose",
        "Criteria:\n- plot\n- prose\n\n" + '{"plot": 3}',
        "Criteria:\n- plot\n\n" + '{"plot": 3, "prose": 3, ...}',
        "Criteria:\nplot, prose",
        "Name three criteria. Then:\n- read\n- think",
        "{" + ", ".join(f'"name{number}": 3' for number in range(MOST_CRITERIA + 1)) + "}",
        "{" * 50_000,
        '{"a":' * 10_000,
        "{{" * 25_000,
        "Criteria:\n- a\n" * 3_000,
    ],
)
def test_a_rubric_that_leaves_doubt(rubric: str) -> None:
    found = criteria_in(rubric)
    assert found is None or found == ("a",)  # The last one names the same each time.


@given(
    st.lists(st.from_regex(r"[b-z]{3,9}(_[b-z]{1,9})?", fullmatch=True), min_size=1, max_size=6, unique=True)
)
def test_an_example_in_json_names_its_criteria(names: list[str]) -> None:
    names = [f"q{name}" for name in names]
    example = "{" + ", ".join(f'"{name}": {{"score": 3, "reasoning": "..."}}' for name in names) + "}"
    assert criteria_in(f"Score it.\n\n{{{{.StoryText}}}}\n\n{example}") == tuple(names)
    listed = "\n".join(f"{place}. {name} - why" for place, name in enumerate(names, 1))
    assert criteria_in(f"Criteria:\n{listed}\n\nAnswer in JSON.") == tuple(names)


@given(
    st.text()
    | st.lists(st.sampled_from(['{"a": 3}', "{", "}", "Criteria:\n", "- a\n", '"', ":", "3"])).map("".join)
)
def test_any_rubric_at_all_can_be_looked_at(rubric: str) -> None:
    found = criteria_in(rubric)
    assert found is None or all(found)

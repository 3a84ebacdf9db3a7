"""Prompt templates: what passes through, what is put in, what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.config.templates import VARIABLES, compile_template
from tasks.core.errors import TemplateError

KEY = "chosen_generation"
SPACE = " \t\r\n"
literals = st.text(max_size=60).filter(lambda text: "{{" not in text and not text.endswith("{"))
spaces = st.text(alphabet=SPACE, max_size=4)
keys = st.sampled_from(sorted(VARIABLES))


def render(source: str, key: str = KEY, **values: str | int | bool) -> str:
    return compile_template(key, source).render(**values)


def problem(source: str, key: str = KEY) -> str:
    with pytest.raises(TemplateError) as caught:
        compile_template(key, source)
    (found,) = caught.value.problems
    assert found.key == f"prompt_templates.{key}"
    return found.message


@given(literals)
@example("{% for x in y %}{# c #}{%- raw %}\\ ' \" \r\n }} \x00\n")
@example("# line statement\n## comment\n")
@example("lone surrogate \ud800")
@example("")
def test_literal_text_renders_to_itself(text: str) -> None:
    assert render(text) == text


@given(before=literals, value=st.text(), after=literals)
@example(before="", value="{{.Prompt}}{{ 7*7 }}{% raw %}<b>&", after="")
def test_a_value_is_data(before: str, value: str, after: str) -> None:
    assert render(f"{before}{{{{.Prompt}}}}{after}", Prompt=value) == f"{before}{value}{after}"


@given(keys, st.data())
def test_every_subset_of_a_templates_variables_can_be_used(key: str, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(VARIABLES[key])), unique=True))
    template = compile_template(key, "".join(f"[{{{{.{name}}}}}]" for name in names))
    assert template.variables == set(names)
    values = {name: f"value of {name}" for name in VARIABLES[key]}
    assert template.render(**values) == "".join(f"[{values[name]}]" for name in names)


def test_a_system_prompt_has_the_variables_of_its_template() -> None:
    for template, system in [
        ("subtopic_generation", "subtopic_system_prompt"),
        ("prompt_generation", "prompt_system_prompt"),
        ("chosen_generation", "chosen_system_prompt"),
        ("rejected_generation", "rejected_system_prompt"),
        ("judge_rubric", "judge_system_prompt"),
    ]:
        assert VARIABLES[template] == VARIABLES[system]


@given(
    before=literals, left=spaces, right=spaces, after=literals, trims=st.tuples(st.booleans(), st.booleans())
)
def test_trim_markers_eat_the_space_on_their_side_only(
    before: str, left: str, right: str, after: str, trims: tuple[bool, bool]
) -> None:
    source = f"{before}{left}{{{{{'- ' * trims[0]}.Prompt{' -' * trims[1]}}}}}{right}{after}"
    expected_left = (before + left).rstrip(SPACE) if trims[0] else before + left
    expected_right = (right + after).lstrip(SPACE) if trims[1] else right + after
    assert render(source, Prompt=" x ") == f"{expected_left} x {expected_right}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a {{- /* note }} with braces */ -}} b", "ab"),
        ("a {{/* note */}} b", "a  b"),
        ("a{{/*\ntwo lines\n*/}}b", "ab"),
        ("{{  .Prompt\t}}", "P"),
        ("{{\n.Prompt\n}}", "P"),
        ("{{.Prompt}}}", "P}"),
        ("a\u00a0{{- .Prompt -}}\u2003b", "a\u00a0P\u2003b"),
        ("{{.Prompt -}} \n {{- .Prompt}}", "PP"),
        ("{{if .Prompt}}\n  yes\n{{end}}", "\n  yes\n"),
        ("{{if .Prompt -}}\n  yes\n{{- end}}\n", "yes\n"),
        ("{{ if not .Prompt }}no{{ else }}yes{{ end }}", "yes"),
        ("{{if .SubTopic}}sub{{else if not .Prompt}}none{{else if .Prompt}}prompt{{else}}-{{end}}", "prompt"),
        ("{{if .Prompt}}{{if .SubTopic}}both{{else}}one{{end}}!{{end}}", "one!"),
    ],
)
def test_actions(source: str, expected: str) -> None:
    assert render(source, Prompt="P", SubTopic="", MainTopic="M") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", False),
        (0, False),
        (False, False),
        ("0", True),
        ("false", True),
        (" ", True),
        (1, True),
        (True, True),
    ],
)
def test_truth_is_as_in_go(value: str | int | bool, expected: bool) -> None:  # noqa: FBT001 - a case, not a switch
    source = "{{if .IsRetry}}true{{else}}false{{end}} {{if not .IsRetry}}true{{else}}false{{end}}"
    assert render(source, "subtopic_generation", IsRetry=value) == f"{expected} {not expected}".lower()


def test_booleans_and_numbers_print_as_in_go() -> None:
    source = "{{.IsRetry}} {{.NumSubtopics}}"
    assert render(source, "subtopic_generation", IsRetry=True, NumSubtopics=7) == "true 7"


@given(st.booleans(), st.booleans(), st.booleans())
def test_else_if_is_an_if_within_else(first: bool, second: bool, third: bool) -> None:  # noqa: FBT001 - drawn
    chain = "{{if .Prompt}}1{{else if .SubTopic}}2{{else if not .MainTopic}}3{{else}}4{{end}}"
    nested = (
        "{{if .Prompt}}1{{else}}{{if .SubTopic}}2{{else}}{{if not .MainTopic}}3{{else}}4{{end}}{{end}}{{end}}"
    )
    rendered = [
        compile_template(KEY, source).render(Prompt=first, SubTopic=second, MainTopic=third)
        for source in (chain, nested)
    ]
    assert rendered[0] == rendered[1]


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("{{range .Prompt}}{{end}}", 1, "{{range .Prompt}} is not supported; allowed: {{.Name}}"),
        ("a\n{{with .Prompt}}{{end}}", 2, "{{with .Prompt}} is not supported"),
        ('{{define "x"}}{{end}}', 1, '{{define "x"}} is not supported'),
        ('{{template "x"}}', 1, "is not supported"),
        ('{{block "x" .}}', 1, "is not supported"),
        ("{{.Prompt | html}}", 1, "{{.Prompt | html}} is not supported"),
        ("{{.Prompt|html}}", 1, "is not supported"),
        ("{{len .Prompt}}", 1, "is not supported"),
        ("{{(.Prompt)}}", 1, "is not supported"),
        ("{{if (not .Prompt)}}{{end}}", 1, "is not supported"),
        ("{{if and .Prompt .SubTopic}}{{end}}", 1, "is not supported"),
        ("{{if}}{{end}}", 1, "{{if}} is not supported"),
        ("{{if .Prompt}}{{else with .X}}{{end}}", 1, "{{else with .X}} is not supported"),
        ("{{$x := .Prompt}}", 1, "is not supported"),
        ('{{"{{"}}', 1, "is never closed with }}"),
        ('{{"text"}}', 1, "is not supported"),
        ("{{.}}", 1, "is not supported"),
        ("{{.Prompt.Text}}", 1, "is not supported"),
        ("{{Prompt}}", 1, "{{Prompt}} is not supported"),
        ("{{}}", 1, "{{}} is not supported"),
        ("{{-.Prompt}}", 1, "is not supported"),
        ("{{.Prompt-}}", 1, "a space beside the dash"),
        ("{{- -}}", 1, "is not supported"),
        ("{{{.Prompt}}}", 1, "is not supported"),
        ("{{ 7*7 }}", 1, "is not supported"),
        ("{{.Prompt.__class__}}", 1, "is not supported"),
        ("\n\n{{.Prompt", 3, "is never closed with }}"),
        ("{{.Prompt {{.Prompt}}", 1, "is never closed with }}"),
        ("{{", 1, "is never closed with }}"),
        ("{{/* note", 1, "is never closed with */}}"),
        ("{{/* note */ .Prompt}}", 1, "a comment must fill its action"),
        ("\n{{end}}", 2, "{{end}} without an {{if}} before it"),
        ("{{else}}", 1, "{{else}} without an {{if}} before it"),
        ("{{else if .Prompt}}", 1, "without an {{if}} before it"),
        ("{{if .Prompt}}\n{{if .Prompt}}\n{{end}}", 1, "this {{if}} has no {{end}}"),
        ("{{if .Prompt}}{{else}}\n{{else}}{{end}}", 2, "{{else}} after the {{else}}"),
        ("{{if .Prompt}}{{else}}{{else if .Prompt}}{{end}}", 1, "after the {{else}}"),
        ("{{if .Prompt}}" * 51 + "{{end}}" * 51, 1, "more than 50 branches"),
        ("{{if .Prompt}}" + "{{else if .Prompt}}" * 50 + "{{end}}", 1, "more than 50 branches"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_its_line(source: str, line: int, says: str) -> None:
    message = problem(source)
    assert message.startswith(f"line {line}: ")
    assert says in message


def test_a_long_action_is_shortened_in_the_message() -> None:
    assert "{{" + "x" * 60 + "…}} is not supported" in problem("{{" + "x" * 1000 + "}}")


def test_as_deep_as_allowed_still_works() -> None:
    for source in [
        "{{if .Prompt}}" * 50 + "deep" + "{{end}}" * 50,
        "{{if not .Prompt}}" + "{{else if not .Prompt}}" * 48 + "{{else if .Prompt}}deep{{end}}",
    ]:
        assert render(source, Prompt="x") == "deep"


def test_an_unknown_variable_is_named_with_its_nearest_and_all_allowed() -> None:
    assert problem("a\n{{.Promt}}") == (
        "line 2: unknown variable .Promt; did you mean .Prompt? allowed here: .AnswerWords, "
        ".MainTopic, .Prompt, .SubTopic"
    )
    assert "did you mean .MainTopic?" in problem("{{.maintopic}}")
    assert problem("{{.Xyz}}").startswith("line 1: unknown variable .Xyz; allowed here: ")


def test_all_unknown_variables_are_reported_at_once_where_they_are_first_used() -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(KEY, "{{.StoryText}}\n{{if .Other}}{{.StoryText}}{{end}}")
    first, second = (each.message for each in caught.value.problems)
    assert first.startswith("line 1: unknown variable .StoryText")
    assert second.startswith("line 2: unknown variable .Other")


ALPHABET = [
    "{{",
    "}}",
    "-",
    " ",
    "\n",
    ".Prompt",
    ".X",
    "if ",
    "not ",
    "else",
    "end",
    "/*",
    "*/",
    "{%",
    "%}",
    "{",
    "x",
]


@given(st.lists(st.sampled_from(ALPHABET), max_size=25).map("".join) | st.text())
def test_anything_either_compiles_or_is_a_template_error_with_lines(source: str) -> None:
    try:
        template = compile_template(KEY, source)
    except TemplateError as error:
        messages = [each.message for each in error.problems]
    else:
        messages = []
        assert isinstance(template.render(Prompt="p"), str)
    assert all(re.match(r"line [1-9]\d*: ", each) for each in messages)


Block = tuple[str, str]
"""A template, and what it renders to when Prompt is set and SubTopic is empty."""


def an_if(negated: bool, name: str, yes: Block, no: Block, after: Block) -> Block:  # noqa: FBT001 - drawn
    taken = yes if (name == "Prompt") != negated else no
    condition = f"not .{name}" if negated else f".{name}"
    source = f"{{{{if {condition}}}}}{yes[0]}{{{{else}}}}{no[0]}{{{{end}}}}{after[0]}"
    return source, taken[1] + after[1]


blocks = st.recursive(
    st.just(("text {{.MainTopic}}", "text M")),
    lambda inner: st.builds(
        an_if, st.booleans(), st.sampled_from(["Prompt", "SubTopic"]), inner, inner, inner
    ),
    max_leaves=12,
)


@given(blocks)
def test_nested_ifs_take_the_branch_that_their_values_say(block: Block) -> None:
    source, expected = block
    assert render(source, Prompt="yes", SubTopic="", MainTopic="M") == expected

"""The requests of the pipeline: what they say, and what their keys depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.config.load import load_config
from tasks.core.exchange.request import SEED_STRIDE
from tasks.core.keys import phase_key
from tasks.core.models import Job, Phase, Purpose
from tasks.core.questions import Questions, is_judged, model_of, models_of, purposes_of
from tests.core.running import TEMPLATES, configured, kind, some_jobs

(JOB,) = some_jobs(1)


def user(text: str) -> tuple[tuple[str, str], ...]:
    return (("user", text),)


def parameters(**model: Any) -> dict[str, Any]:
    """What is sent with a request for prose to a model configured so."""
    config = configured(**{f"models__main__{name}": value for name, value in model.items()})
    return dict(Questions(config).chosen(JOB, 0).parameters)


def test_what_is_asked_for_each_purpose() -> None:
    questions = Questions(configured())
    assert questions.subtopics(12, "", 0).messages == user("subtopics 12")
    assert questions.subtopics(3, "fog, tides", 0).messages == user("subtopics 3 but fog, tides")
    assert questions.prompts("fog", 3, (), 0).messages == user("prompts 3 of fog")
    assert questions.prompts("fog", 3, ("a", "b"), 0).messages == user(
        "prompts 3 of fog\n\nDo not repeat any of these:\n- a\n- b"
    )
    assert questions.chosen(JOB, 0).messages == user("chosen p0")
    assert questions.rejected(JOB, 0).messages == user("rejected p0")
    assert questions.judge(JOB, "A bell.", 0, explain=True).messages == user("judge A bell.")
    ((_, alone),) = questions.judge(JOB, "A bell.", 0, explain=False).messages
    assert alone.startswith("judge A bell.\n\nGive the scores alone, without reasoning")


def test_every_variable_of_every_template_has_its_value() -> None:
    job = "{{.Prompt}}/{{.MainTopic}}/{{.SubTopic}}"
    templates = {
        "subtopic_system_prompt": "{{.MainTopic}}/{{.NumSubtopics}}/{{.IsRetry}}/{{.ExcludeSubtopics}}",
        "prompt_system_prompt": "{{.SubTopic}}/{{.NumPrompts}}/{{.MainTopic}}",
        "chosen_system_prompt": job,
        "rejected_system_prompt": job,
        "judge_system_prompt": f"{job}/{{{{.StoryText}}}}",
    }
    questions = Questions(configured(prompt_templates=TEMPLATES | templates))
    systems = [
        request.messages[0]
        for request in (
            questions.subtopics(3, "fog", 0),
            questions.prompts("Tides", 2, (), 0),
            questions.chosen(JOB, 0),
            questions.rejected(JOB, 0),
            questions.judge(JOB, "A bell.", 0, explain=True),
        )
    ]
    assert systems == [
        ("system", "The sea/3/true/fog"),
        ("system", "Tides/2/The sea"),
        ("system", "p0/The sea/Tides"),
        ("system", "p0/The sea/Tides"),
        ("system", "p0/The sea/Tides/A bell."),
    ]


def test_what_models_wrote_is_only_text_to_the_templates() -> None:
    job = Job(0, "The sea", "{{.Prompt}}", "{{.MainTopic}} {{if .IsRetry}} {% x %} {{ 7*7 }}")
    questions = Questions(configured())
    assert questions.chosen(job, 0).messages == user(f"chosen {job.prompt}")
    assert questions.judge(job, job.prompt, 0, explain=True).messages == user(f"judge {job.prompt}")
    assert questions.prompts(job.sub_topic, 1, (), 0).messages == user("prompts 1 of {{.Prompt}}")


OTHERS = {Purpose.REASONING, Purpose.COMPARISON, Purpose.CHECKLIST, Purpose.CHECKS}
"""What a plain configuration never asks for."""


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ({}, {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096}),
        (
            {"temperature": 0.0, "top_p": 0.0, "max_output_tokens": 1},
            {"temperature": 0.0, "top_p": 0.0, "max_tokens": 1},
        ),
        ({"top_k": -1}, {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096}),
        ({"top_k": 0}, {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096, "top_k": 0}),
        ({"min_p": 0.0}, {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096, "min_p": 0.0}),
        (
            {"structure_temperature": 0.1, "use_json_mode": True},
            {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096},
        ),
    ],
)
def test_what_is_set_is_sent_and_zero_is_zero(model: dict[str, Any], sent: dict[str, Any]) -> None:
    assert parameters(**model) == sent


@pytest.mark.parametrize(("structured", "temperature"), [(None, 0.7), (0.0, 0.0), (1.5, 1.5)])
def test_lists_and_scores_may_have_a_temperature_of_their_own(
    structured: float | None, temperature: float
) -> None:
    config = configured(
        models__main__structure_temperature=structured, models__judge__structure_temperature=structured
    )
    questions = Questions(config)
    for request in (
        questions.subtopics(1, "", 0),
        questions.prompts("fog", 1, (), 0),
        questions.judge(JOB, "a", 0, explain=True),
    ):
        assert (request.parameters["temperature"], bool(request.schema)) == (temperature, True)
    for request in (questions.chosen(JOB, 0), questions.rejected(JOB, 0)):
        assert (request.parameters["temperature"], request.schema) == (0.7, "")


def test_whole_numbers_and_floats_of_a_setting_are_one_key() -> None:
    one = configured(models__main__temperature=1.0, models__main__top_p=1.0)
    same = configured(models__main__temperature=1, models__main__top_p=1)
    assert Questions(one).chosen(JOB, 0).key == Questions(same).chosen(JOB, 0).key


def test_a_slash_at_the_end_of_an_address_changes_nothing() -> None:
    plain, slashed = (Questions(configured(f"http://127.0.0.1:9/v1{end}")) for end in ("", "/"))
    assert plain.chosen(JOB, 0) == slashed.chosen(JOB, 0)


def test_chosen_and_rejected_are_bought_apart_even_from_one_model() -> None:
    config = configured(
        models__rejected=configured().models.main.model_dump(exclude_unset=True),
        prompt_templates={"chosen_generation": "{{.Prompt}}", "rejected_generation": "{{.Prompt}}"},
    )
    questions = Questions(config)
    chosen, rejected = questions.chosen(JOB, 0), questions.rejected(JOB, 0)
    assert chosen.body() == rejected.body()
    assert chosen.key != rejected.key


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 100), st.integers(0, 100))
def test_the_seed_moves_every_sample_and_no_two_meet(seed: int, other: int, try_: int, later: int) -> None:
    first = Questions(configured(generation__seed=seed)).chosen(JOB, try_)
    second = Questions(configured(generation__seed=other)).chosen(JOB, later)
    assert first.sample == seed * SEED_STRIDE + try_
    assert (first.key == second.key) == ((seed, try_) == (other, later))
    assert first.body() == second.body()


@pytest.mark.parametrize(
    ("options", "judged", "unused"),
    [
        ({"generation__dataset_mode": "sft"}, False, {Purpose.REJECTED, Purpose.JUDGE}),
        ({"generation__dataset_mode": "dpo"}, False, {Purpose.JUDGE}),
        ({"generation__dataset_mode": "kto"}, False, {Purpose.JUDGE}),
        ({"generation__dataset_mode": "mo-dpo"}, True, set()),
        ({"generation__dataset_mode": "sft", "judge_filtering__enabled": True}, True, {Purpose.REJECTED}),
        ({"generation__dataset_mode": "kto", "judge_filtering__enabled": True}, True, set()),
    ],
)
def test_which_calls_a_configuration_makes(
    options: dict[str, Any], unused: set[Purpose], *, judged: bool
) -> None:
    config = configured(**options)
    assert is_judged(config) is judged
    assert set(purposes_of(config)) == set(Purpose) - unused - OTHERS


def test_a_model_that_is_not_configured_cannot_be_asked() -> None:
    config = configured(generation__dataset_mode="sft", models__rejected=None)
    chosen, subtopics = (model_of(config, kind(purpose)) for purpose in (Purpose.CHOSEN, Purpose.SUBTOPICS))
    assert chosen is subtopics is config.models.main
    with pytest.raises(LookupError, match="no model is configured for rejected calls"):
        model_of(config, kind(Purpose.REJECTED))


def test_what_not_every_server_knows_is_sent_only_when_it_is_set() -> None:
    plain = parameters()
    assert set(plain) == {"temperature", "top_p", "max_tokens"}
    given = {"stop": ["END"], "presence_penalty": 0, "frequency_penalty": -0.5, "extra_body": {"a": {"b": 1}}}
    assert parameters(**given) == plain | {
        "stop": ["END"],
        "presence_penalty": 0.0,
        "frequency_penalty": -0.5,
        "a": {"b": 1},
    }
    assert parameters(stop=[], extra_body={}) == plain


def test_what_decides_how_and_not_what_is_asked_is_no_parameter() -> None:
    conduct = {
        "headers": {"X-Title": "tides"},
        "api_key_env": "A_KEY",
        "tokens_per_minute": 5,
        "use_streaming": True,
        "structured_output": "json_schema",
        "max_tokens_parameter": "max_completion_tokens",
    }
    assert parameters(**conduct) == parameters()


def test_a_further_sample_has_another_seed_and_all_are_of_31_bits() -> None:
    questions = Questions(configured(models__main__seed=7, generation__seed=1))
    seeds = [questions.chosen(JOB, sample).parameters["seed"] for sample in (0, 1, 0)]
    assert seeds == [7 + SEED_STRIDE, 8 + SEED_STRIDE, 7 + SEED_STRIDE]
    assert "seed" not in questions.rejected(JOB, 0).parameters
    largest = Questions(configured(models__main__seed=2**31 - 1, generation__seed=2**31 - 1))
    assert 0 <= largest.chosen(JOB, 3).parameters["seed"] < 2**31
    assert Questions(configured(models__main__seed=0)).chosen(JOB, 0).parameters["seed"] == 0


def test_keys_are_those_of_the_ledgers_that_there_are() -> None:
    """Written down before the parameters beyond temperature, top_p, top_k, min_p and max_tokens came."""
    text = """
[generation]
main_topic = "The sea"
num_subtopics = 2
num_prompts_per_subtopic = 2
[models.main]
base_url = "http://127.0.0.1:8000/v1"
model_name = "main"
[models.rejected]
base_url = "http://127.0.0.1:8000/v1"
model_name = "weak"
[models.judge]
enabled = true
base_url = "http://127.0.0.1:8000/v1"
model_name = "judge"
"""
    config = load_config(None, text=text, environ={}).config
    questions, job = Questions(config), Job(0, "The sea", "fog", "Write about fog.")
    requests = (
        questions.subtopics(3, "", 0),
        questions.prompts("fog", 3, ("a",), 1),
        questions.chosen(job, 0),
        questions.rejected(job, 0),
        questions.judge(job, "a", 0, explain=True),
    )
    assert [request.key.hex() for request in requests] == [
        "3d9e13fe8feb3bf2763115102c285bb8daa7dffd3ffbd63a6951cfdbf21d226d",
        "eed702d069483da5cb81264d6efbf9fad3884761aabfa8d60dbfbaecbdbeb6cc",
        "99124e78b4e392451e8368f9360ec2dfe0882fa82d67a82c923f5b50f54b6499",
        "e192c6d4735cd97287ab79ed9a2593a35f2952e262feb6b46e28f6e2818b138a",
        "774a07a234c1b5be35f7d69196219c0ac5f3ff5b7e289e4d714e9f26a663662f",
    ]
    assert [
        phase_key(config, phase, "ledger") for phase in (Phase.SUBTOPICS, Phase.PROMPTS, Phase.PAIRS)
    ] == [
        # Not those of before near-duplicates were dropped: the same answers came to other lists then.
        "0445167914157725",
        "7f3b28bfd2436b34",
        "ad9fe919b72e913b",
    ]


def test_each_model_that_is_asked_is_named_once() -> None:
    config = configured()
    models = config.models
    assert models_of(config) == {"main": models.main, "rejected": models.rejected}
    config = configured(generation__dataset_mode="sft")
    assert models_of(config) == {"main": config.models.main}
    config = configured(generation__dataset_mode="mo-dpo")
    assert list(models_of(config)) == ["main", "rejected", "judge"]


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_small_question_has_the_form_of_its_purpose(purpose: Purpose) -> None:
    sections: dict[str, Any] = {
        "seed": 7,
        "top_k": 3,
        "stop": ["END"],
        "structure_temperature": 0.1,
        "max_output_tokens": 9,
    }
    config = configured(**{f"models__main__{name}": value for name, value in sections.items()})
    questions = Questions(config)
    real = {
        Purpose.SUBTOPICS: questions.subtopics(2, "", 4),
        Purpose.PROMPTS: questions.prompts("fog", 2, (), 4),
        Purpose.CHOSEN: questions.chosen(JOB, 4),
        Purpose.REJECTED: questions.rejected(JOB, 4),
        Purpose.JUDGE: questions.judge(JOB, "a", 4, explain=True),
        Purpose.COMPARISON: questions.comparison(JOB, "a", "b", 4, "judge"),
        Purpose.CHECKLIST: questions.checklist(JOB, 4),
        Purpose.CHECKS: questions.checks(JOB, "a", ["Is it so?", "Is it true?"], 4, "judge"),
        Purpose.REASONING: questions.reasoning(JOB, "a", 4),
    }[purpose]
    small = questions.small(kind(purpose), 4)
    ((role, text),) = small.messages
    assert role == "user"
    assert "json" not in text.lower()
    assert replace(small, messages=real.messages).key == real.key
    assert small.body() | {"messages": []} == real.body() | {"messages": []}
    assert small.key != real.key
    assert small.key != questions.small(kind(purpose), 5).key


def test_a_small_question_has_a_system_message_where_there_is_a_template_for_it() -> None:
    questions = Questions(configured(prompt_templates=TEMPLATES | {"judge_system_prompt": "{{.StoryText}}"}))
    roles = {purpose: [role for role, _ in questions.small(kind(purpose), 0).messages] for purpose in Purpose}
    assert roles.pop(Purpose.JUDGE) == ["system", "user"]
    assert set(map(tuple, roles.values())) == {("user",)}


def test_small_questions_of_chosen_and_rejected_answers_are_bought_apart() -> None:
    questions = Questions(
        configured(models__rejected=configured().models.main.model_dump(exclude_unset=True))
    )
    chosen, rejected = (questions.small(kind(item), 0) for item in (Purpose.CHOSEN, Purpose.REJECTED))
    assert chosen.body() == rejected.body()
    assert chosen.key != rejected.key

"""Where settings come from, in which order, and how unknown ones read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from tasks.core.config import rules
from tasks.core.config import templates as defaults
from tasks.core.config.load import ENV_PREFIX, LARGEST_FILE, load_config
from tasks.core.config.settings import Config, Price, default_of, settings
from tasks.core.errors import ConfigError
from tasks.core.models import Job
from tasks.core.questions import Questions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.config.load import Loaded

MINIMAL = """
[generation]
main_topic = "Bridges"
num_subtopics = 4
num_prompts_per_subtopic = 3
dataset_mode = "dpo"
[models.main]
base_url = "http://127.0.0.1:8000/v1"
model_name = "strong"
[models.rejected]
base_url = "http://127.0.0.1:8000/v1"
model_name = "weak"
"""


def load(text: str = MINIMAL, *, environ: Mapping[str, str] | None = None, **overrides: Any) -> Loaded:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(None, text=text, environ=environ or {}, overrides=dotted)


def problems(
    text: str = MINIMAL, *, environ: Mapping[str, str] | None = None, **overrides: Any
) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(text, environ=environ, **overrides)
    return {problem.key: problem.message for problem in caught.value.problems}


def file_problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    (found,) = caught.value.problems
    assert caught.value.source == str(path)
    assert found.key == ""
    return found.message


# Sources


def test_what_is_left_out_has_the_documented_default() -> None:
    config = load().config
    generation, model = config.generation, config.models.main
    assert (generation.concurrency, generation.subtopic_chunk_size, generation.seed) == (8, 30, 0)
    assert (generation.over_generation_buffer, generation.min_success_rate) == (0.15, 0.90)
    assert (generation.max_exclusion_list_size, generation.prompt_retry_attempts) == (50, 2)
    assert (generation.enable_checkpointing, generation.checkpoint_interval) == (False, 10)
    assert (generation.sft_format, generation.include_topic_columns) == ("sharegpt", True)
    assert default_of("generation.dataset_mode") == "mo-dpo"
    assert (model.temperature, model.structure_temperature, model.top_p) == (0.7, None, 1.0)
    assert (model.top_k, model.min_p, model.max_output_tokens, model.context_size) == (-1, None, 4096, 16384)
    assert (model.rate_limit_per_minute, model.max_retries, model.max_backoff_seconds) == (60, 3, 120)
    assert (model.http_timeout_seconds, model.judge_timeout_seconds) == (120, 100)
    assert (config.judge_filtering.min_chosen_score, config.judge_filtering.max_rejected_score) == (4.0, 3.0)
    assert (config.provider_rate_limits, config.provider_burst_percent) == ({}, 15)
    assert (model.tokens_per_minute, config.provider_token_limits, config.pricing) == (0, {}, {})
    assert (model.structured_output, model.max_tokens_parameter, model.seed) == ("auto", "auto", None)
    assert (model.stop, model.presence_penalty, model.frequency_penalty) == ([], None, None)
    assert (model.extra_body, model.headers, model.api_key_env, model.api_key_block) == ({}, {}, "", "")
    assert set(config.budget.model_dump().values()) == {None}
    assert (config.execution.patience_minutes, config.execution.max_answer_megabytes) == (10, 64)
    assert config.execution.adaptive_concurrency
    assert (config.output.folder, config.output.ledger, config.huggingface.repo_id) == ("output", "", "")
    assert config.prompt_templates.judge_rubric == defaults.JUDGE_RUBRIC


def test_zero_means_zero() -> None:
    config = load(
        models__main__temperature=0.0,
        models__main__max_retries=0,
        models__main__rate_limit_per_minute=0,
        models__main__structure_temperature=0,
        generation__over_generation_buffer=0,
        generation__subtopic_chunk_size=0,
        generation__max_exclusion_list_size=0,
    ).config
    main, generation = config.models.main, config.generation
    assert (main.temperature, main.max_retries, main.rate_limit_per_minute) == (0, 0, 0)
    assert main.structure_temperature == 0
    assert (generation.over_generation_buffer, generation.subtopic_chunk_size) == (0, 0)
    assert generation.max_exclusion_list_size == 0


def test_command_line_wins_over_environment_over_file_over_default() -> None:
    text = MINIMAL.replace(
        "[models.main]", "concurrency = 2\nsubtopic_chunk_size = 2\nseed = 2\n[models.main]"
    )
    environ = {
        "VELLUMFORGE__GENERATION__CONCURRENCY": "3",
        "VELLUMFORGE__GENERATION__SUBTOPIC_CHUNK_SIZE": "3",
    }
    loaded = load(text, environ=environ, generation__concurrency=4)
    generation = loaded.config.generation
    assert (generation.concurrency, generation.subtopic_chunk_size, generation.seed) == (4, 3, 2)
    assert loaded.overridden == {"generation.concurrency": 4, "generation.subtopic_chunk_size": 3}


def test_text_of_the_environment_and_the_command_line_takes_the_type_of_its_setting() -> None:
    environ = {
        "VELLUMFORGE__GENERATION__CONCURRENCY": "64",
        "VELLUMFORGE__GENERATION__MAIN_TOPIC": "1984",
        "VELLUMFORGE__GENERATION__ENABLE_CHECKPOINTING": "1",
        "VELLUMFORGE__MODELS__MAIN__STRUCTURE_TEMPERATURE": "0.25",
        "VELLUMFORGE__PROVIDER_RATE_LIMITS": '{"openai": 30, "provider_burst_percent": 40}',
        "VELLUMFORGE_OTHER": "no setting",
    }
    text = "[provider_rate_limits]\nnvidia = 40\n" + MINIMAL
    config = load(text, environ=environ, generation__include_topic_columns="false").config
    assert (config.generation.concurrency, config.generation.main_topic) == (64, "1984")
    assert (config.generation.enable_checkpointing, config.generation.include_topic_columns) == (True, False)
    assert config.models.main.structure_temperature == 0.25
    assert config.provider_rate_limits == {"openai": 30, "nvidia": 40}
    assert config.provider_burst_percent == 40


def test_lists_and_tables_are_given_as_json_and_lists_as_toml_too() -> None:
    prefix = "VELLUMFORGE__MODELS__MAIN__"
    environ = {
        f"{prefix}STOP": '["END", "it\'s"]',
        f"{prefix}EXTRA_BODY": '{"a": {"b": [1, null]}}',
        f"{prefix}HEADERS": '{"X-Title": "tides"}',
        "VELLUMFORGE__PRICING": '{"strong": {"input": 0.5, "output": 2}}',
    }
    text = MINIMAL + "[models.main.headers]\nX-App = 'bridges'\n[pricing.weak]\ninput = 0.0\noutput = 1.5\n"
    config = load(text, environ=environ, models__rejected__stop="['END']").config
    assert config.models.main.stop == ["END", "it's"]
    assert config.models.rejected is not None
    assert config.models.rejected.stop == ["END"]
    assert config.models.main.extra_body == {"a": {"b": [1, None]}}
    assert config.models.main.headers == {"X-Title": "tides", "X-App": "bridges"}
    assert config.pricing == {
        "strong": Price(input=0.5, output=2.0),
        "weak": Price(input=0.0, output=1.5),
    }
    for value in ("END", "'END'", "[1, ", "[]\nx = 1", "{}"):
        assert "must be a list" in problems(models__main__stop=value)["models.main.stop"]


def test_an_older_name_is_taken_with_a_hint() -> None:
    older = MINIMAL.replace("[generation]", "[generation]\nmax_candidates = 3.0")
    hint = ("generation.max_candidates is called generation.max_prompts_per_pair by now",)
    for found in (
        load(older),
        load(generation__max_candidates="3.0"),
        load(environ={f"{ENV_PREFIX}GENERATION__MAX_CANDIDATES": "3"}),
    ):
        assert (found.config.generation.max_prompts_per_pair, found.hints) == (3.0, hint)
    assert load().hints == ()
    assert load(older, generation__max_prompts_per_pair=5.0).config.generation.max_prompts_per_pair == 5.0
    both = older.replace("max_candidates", "max_prompts_per_pair = 2.0\nmax_candidates")
    assert "keep one" in problems(both)["generation.max_candidates"]
    recorded = load(older).config.model_dump(mode="json", exclude_unset=True)
    recorded["generation"]["max_candidates"] = recorded["generation"].pop("max_prompts_per_pair")
    assert Config.model_validate(recorded) == load(older).config


def test_a_problem_within_an_entry_says_where_the_entry_came_from() -> None:
    prices = '{"gpt-4.1": {"input": -1, "output": 0}}'
    found = problems(MINIMAL + "[pricing.weak]\ninput = 0\noutput = -2", pricing=prices)
    assert found == {
        "pricing.'gpt-4.1'.input": "is -1; allowed: 0 or more (set on the command line)",
        "pricing.weak.output": "is -2; allowed: 0 or more",
    }


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELLUMFORGE__GENERATION__CONCURRENCY", "77")
    assert load_config(None, text=MINIMAL).config.generation.concurrency == 77


def test_the_text_is_kept_character_for_character(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    text = "\ufeff# a note\r\n" + MINIMAL.replace("\n", "\r\n")
    path.write_bytes(text.encode())
    loaded = load_config(path, environ={})
    assert (loaded.text, loaded.source) == (text, str(path))
    assert load().source == "built-in demo"


def test_a_configuration_cannot_be_changed() -> None:
    config = load().config
    with pytest.raises(ValueError, match="frozen"):
        config.generation.concurrency = 1  # type: ignore[misc]


def test_a_configuration_survives_json() -> None:
    config = load(
        provider_rate_limits={"http://127.0.0.1:8000/v1/": 5},
        pricing={"strong": {"input": 1, "output": 2.5}},
        models__main__extra_body={"a": [None, 1.5, "b"]},
        models__main__stop=["END"],
        models__main__headers={"X-Key": "${GATEWAY_KEY}"},
    ).config
    assert Config.model_validate_json(config.model_dump_json()) == config


# Files


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_bytes(b"#" * (LARGEST_FILE + 1))
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")
    (tmp_path / "broken.toml").write_text("a = 1\nb = = 2\n")
    assert file_problem(tmp_path / "missing.toml") == "does not exist"
    assert file_problem(tmp_path) == "is a folder; a file is needed"
    assert "too large" in file_problem(tmp_path / "large.toml")
    assert file_problem(tmp_path / "latin.toml") == "is not UTF-8 text (line 2)"
    assert file_problem(tmp_path / "broken.toml").startswith("is not TOML: line 2, column 5")
    assert file_problem(tmp_path / "broken.toml" / "below").startswith("cannot be read")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a = " + "[" * 5000, "nested too deeply"), ("a = " + "1" * 5000, "too many digits")],
)
def test_toml_that_no_one_means(text: str, expected: str) -> None:
    assert expected in problems(text)[""]


# Unknown keys


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("concurrency = 5", "concurrency", "did you mean generation.concurrency?"),
        ("temprature = 0.5", "temprature", "did you mean models.main.temperature?"),
        ("[model.main]", "model", "did you mean models?"),
        ("[models.rejectd]", "models.rejectd", "did you mean models.rejected?"),
        ("[generation]\nconcurency = 5", "generation.concurency", "did you mean generation.concurrency?"),
        ("[output]\nrepo_id = ''", "output.repo_id", "did you mean huggingface.repo_id?"),
        ("[output]\nzzz = ''", "output.zzz", "known here: folder, ledger"),
        ("[models.main]\napi_key = 'sk-hidden'", "models.main.api_key", "secrets belong in the environment"),
        ("[models.main]\npassword = 'hidden'", "models.main.password", "secrets belong in the environment"),
        (
            "[models.main]\nmax_output_token = 5",
            "models.main.max_output_token",
            "did you mean models.main.max_output_tokens?",
        ),
        (
            "[pricing.'gpt-4.1']\ninput = 1\noutputs = 2\nzzz = 1",
            "pricing.'gpt-4.1'.outputs",
            "did you mean pricing.'gpt-4.1'.output?",
        ),
        ("[pricing.strong]\nzzz = 1", "pricing.strong.zzz", "known here: input, output, cached_input"),
        ("'a.b' = 1", "'a.b'", "unknown key"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(text: str, key: str, expected: str) -> None:
    found = problems(text)
    assert expected in found[key]
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        (
            "GENERATION__CONCURENCY",
            "generation.concurency",
            "did you mean VELLUMFORGE__GENERATION__CONCURRENCY?",
        ),
        ("CONCURRENCY", "concurrency", "did you mean VELLUMFORGE__GENERATION__CONCURRENCY?"),
        ("MODELS__MAIN", "models.main", "is a section; set its keys one by one"),
        ("QQQ", "qqq", "unknown key"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest(name: str, key: str, expected: str) -> None:
    found = problems(environ={ENV_PREFIX + name: "1"})
    assert expected in found[key]
    assert f"environment variable {ENV_PREFIX}{name}" in found[key]


def test_a_problem_says_which_source_it_came_from() -> None:
    text = "[provider_rate_limits]\nopenai = -1\n" + MINIMAL
    environ = {"VELLUMFORGE__GENERATION__SEED": "x", "VELLUMFORGE__PROVIDER_RATE_LIMITS": '{"nvidia": -1}'}
    found = problems(text, environ=environ, generation__sead="1")
    assert found["generation.sead"].endswith("did you mean generation.seed? (set on the command line)")
    assert found["generation.seed"].endswith(
        "(set by the environment variable VELLUMFORGE__GENERATION__SEED)"
    )
    assert found["provider_rate_limits.nvidia"].endswith("VELLUMFORGE__PROVIDER_RATE_LIMITS)")
    assert found["provider_rate_limits.openai"] == "is -1; allowed: 0 or more"


# The settings as such


def test_every_setting_is_described_in_one_line() -> None:
    for key, setting in settings().items():
        assert setting.description, key
        assert "\n" not in setting.description, key


def test_the_default_templates_say_what_the_pipeline_relies_on() -> None:
    assert "{{if .IsRetry}}" in defaults.SUBTOPIC_GENERATION
    assert "{{.ExcludeSubtopics}}" in defaults.SUBTOPIC_GENERATION
    for template, count in (
        (defaults.SUBTOPIC_GENERATION, "{{.NumSubtopics}}"),
        (defaults.PROMPT_GENERATION, "{{.NumPrompts}}"),
    ):
        assert "JSON array of strings" in template
        assert count in template
    for criterion in defaults.DEFAULT_CRITERIA:
        assert f'"{criterion}": {{"score": 3, "reasoning": "..."}}' in defaults.JUDGE_RUBRIC
    assert "{{.StoryText}}" in defaults.JUDGE_RUBRIC


def test_loading_needs_neither_prefect_nor_a_database_nor_an_http_server() -> None:
    code = (
        "import sys, tasks.core.secrets, tasks.core.config.load;"
        "print([name for name in ('prefect', 'sqlalchemy', 'aiohttp') if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def document() -> dict[str, Any]:
    return tomli.loads(MINIMAL)


def sides_of(**sections: Any) -> list[str]:
    """What both sides are asked with in this configuration, when the prompt is `Why?`."""
    found = load_config(None, table=document() | sections, environ={}).config
    job, questions = Job(0, "The sea", "Tides", "Why?"), Questions(found)
    return [ask(job, 0).messages[-1][1] for ask in (questions.chosen, questions.rejected)]


def test_both_sides_are_asked_for_the_same_length() -> None:
    length = {"answer_words": [150, 300]}
    plain, sized = sides_of(), sides_of(length=length)
    assert [text.count("150 to 300 words") for text in sized] == [1, 1]
    assert sized[0].replace("\n\nWrite 150 to 300 words.", "") == plain[0]
    assert sized[1] == "Why?\n\nAnswer in 150 to 300 words."
    # Prompts of one's own go as they are, but for that.
    assert sides_of(length=length, input={"prompts": "p.txt"}) == [sized[1], sized[1]]
    given = {"chosen_generation": "{{.Prompt}}"}
    asked = sides_of(length=length, input={"prompts": "p.txt"}, prompt_templates=given)
    assert asked == ["Why?", sized[1]], "a template that is given stays as it is"
    own = {"chosen_generation": "{{.Prompt}} {{.AnswerWords}}!", "rejected_generation": "{{.Prompt}}?"}
    assert sides_of(length=length, prompt_templates=own) == ["Why? 150 to 300!", "Why??"]
    assert sides_of(prompt_templates=own) == ["Why? !", "Why??"]
    for sections, said in (
        (
            {"length": length, "prompt_templates": own},
            "length.answer_words has no effect: rejected_generation",
        ),
        ({"prompt_templates": own}, "{{.AnswerWords}} of chosen_generation is empty"),
    ):
        config = load_config(None, table=document() | sections, environ={}).config
        (warning,) = [line for line in rules.warnings(config) if "AnswerWords" in line]
        assert warning.startswith(said)


@pytest.mark.parametrize("words", [[300, 150], [5], [1, 2, 3], [0, 5], ["a", "b"], 5])
def test_a_length_is_two_numbers(words: object) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(None, table=document() | {"length": {"answer_words": words}}, environ={})
    assert refused.value.problems[0].key.startswith("length.answer_words")


def test_subtopics_are_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "subtopics.txt"
    path.write_text("\ufefftides\n\n  lamps \r\ntides\n", encoding="utf-8")
    for sections, overrides in (
        ({"input": {"subtopics": str(path)}}, {}),
        ({}, {"input.subtopics": str(path)}),
    ):
        found = load_config(None, table=document() | sections, overrides=overrides, environ={}).config
        assert found.input.subtopics == ["tides", "lamps"]
        assert found.generation.num_subtopics == 2
    none = tmp_path / "none.txt"
    for other, said in ((none, "does not exist"), (tmp_path, "is a folder"), (path, "holds no")):
        path.write_text("\n \n")
        with pytest.raises(ConfigError, match=said) as refused:
            load_config(None, table=document() | {"input": {"subtopics": str(other)}}, environ={})
        assert [problem.key for problem in refused.value.problems] == ["input.subtopics"]

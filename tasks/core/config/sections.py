"""The sections of the configuration, but for the models: what every section is, and what stands in each."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tasks.core.config import templates as defaults
from tasks.core.config.values import (
    MAX_TOPIC_CHARACTERS,
    MOST,
    MOST_CANDIDATES,
    MOST_SHARDS,
    Average,
    Candidates,
    Count,
    Dollars,
    Likeness,
    Limit,
    Line,
    Ratio,
    Seconds,
    Share,
    Size,
    Template,
    check_answering,
    check_each_once,
    check_formats,
    check_kept,
    check_ledger_url,
    check_license,
    check_mirror_url,
    check_no_blank,
    check_section,
    check_sections,
    check_sha256,
    check_some,
    check_topic,
    check_words,
)

if TYPE_CHECKING:
    from pydantic.fields import ComputedFieldInfo, FieldInfo


_CAPITALS: Final = {"http": "HTTP", "json": "JSON", "sft": "SFT", "usd": "USD"}


def _title(name: str, _field: FieldInfo | ComputedFieldInfo) -> str:
    """A setting's name as forms show it, where it has no title of its own."""
    first, *others = (_CAPITALS.get(word, word) for word in name.split("_"))
    return " ".join([first[:1].upper() + first[1:], *others])


def _section_title(section: type[BaseModel]) -> str:
    """The name of a section's class in plain words."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", section.__name__).capitalize()


def _number_fields(schema: dict[str, Any]) -> None:
    # Forms show fields by this number, a switch above what it switches on. The order of names alone may be
    # lost in a server's database.
    fields = schema.get("properties", {})
    for position, name in enumerate(sorted(fields, key=lambda name: name != "enabled")):
        fields[name]["position"] = position


class Section(BaseModel):
    """What all sections share: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        field_title_generator=_title,
        model_title_generator=_section_title,
        json_schema_extra=_number_fields,
    )


DatasetMode = Literal["sft", "dpo", "kto", "mo-dpo"]
SftFormat = Literal["sharegpt", "alpaca"]
LintCheck = Literal[
    "empty",
    "identical",
    "nearly_identical",
    "margin",
    "refusals",
    "think_tags",
    "truncated",
    "markup",
    "script",
    "special_tokens",
    "chatter",
    "tokens",
]
OutputFormat = Literal["native", "trl"]
FileType = Literal["parquet", "jsonl"]
Reasoning = Literal["none", "inline", "reasoning_content"]


RENAMED: Final = {"generation.max_candidates": "generation.max_prompts_per_pair"}
"""Older names of settings, by dotted key."""


class Generation(Section):
    """What to make, how much of it, and how the work is done."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, given: object) -> object:
        """Settings that were recorded under an older name."""
        if not isinstance(given, dict):
            return given
        found = dict(given)
        for old, new in RENAMED.items():
            before, now = old.partition(".")[2], new.partition(".")[2]
            if before in found and now not in found:
                found[now] = found.pop(before)
        return found

    main_topic: Annotated[Line, AfterValidator(check_topic)] = Field(
        title="Main topic",
        description=f"What the dataset is about, in 1 to {MAX_TOPIC_CHARACTERS} characters.",
    )
    num_subtopics: Annotated[Size, Limit(10_000)] = Field(
        title="Subtopics", description="How many subtopics the main topic is divided into."
    )
    num_prompts_per_subtopic: Annotated[Size, Limit(10_000)] = Field(
        title="Prompts per subtopic", description="How many prompts are written for each subtopic."
    )
    dataset_mode: DatasetMode = Field(
        "mo-dpo", title="Dataset mode", description="Which kind of dataset is written."
    )
    target_pairs: Count = Field(
        0,
        title="Pairs",
        description="How many pairs the dataset holds; 0 for num_subtopics x num_prompts_per_subtopic.",
    )
    max_prompts_per_pair: Candidates = Field(
        2.0,
        description="Most prompts that are answered for each pair that is wanted: what is refused, kept out "
        "or fails for good is replaced by new prompts up to there; 1 replaces nothing.",
    )
    similarity_threshold: Likeness = Field(
        0.7,
        description="Share of words in common from which the later of two subtopics or prompts is a "
        "duplicate; 1 for equal ones alone.",
    )
    sft_format: SftFormat = Field("sharegpt", title="SFT format", description="Form of the rows in mode sft.")
    concurrency: Annotated[Size, Limit(1024)] = Field(
        8, description="Jobs that are worked on at the same time."
    )
    enable_checkpointing: bool = Field(
        default=False, description="Write checkpoint.json; finished answers are kept either way."
    )
    checkpoint_interval: Size = Field(10, description="Finished jobs between two checkpoints.")
    seed: Count = Field(0, description="Another number gives other answers to the same questions.")
    enable_reasoning_capture: bool = Field(
        default=False,
        description="Also write dataset_reasoning.jsonl, with the reasoning before the answers.",
    )
    reasoning_capture_rejected: bool = Field(
        default=False, description="Capture the reasoning of rejected answers too."
    )
    cut_chatter: bool = Field(
        default=False,
        description="Cut what a model says before and after its answers, such as 'Sure, here is the story:'.",
    )
    include_topic_columns: bool = Field(
        default=True, description="In mode sft, write the main topic and the subtopic into each row."
    )
    subtopic_chunk_size: Count = Field(
        30, description="Subtopics asked for in one request; 0 asks for all of them at once."
    )
    over_generation_buffer: Share = Field(
        0.15, description="Share of subtopics asked for beyond the count, to make up for duplicates."
    )
    max_exclusion_list_size: Count = Field(
        50, description="Known subtopics listed in a repeated request, so that they are not named again."
    )
    min_success_rate: Share = Field(
        0.90, description="Share of subtopics that must get their prompts for the run to go on."
    )
    prompt_retry_attempts: int = Field(
        2, ge=0, le=5, description="How often subtopics whose prompts failed are tried again."
    )
    disable_validation_limits: bool = Field(
        default=False,
        description="Lift the upper limits of num_subtopics, num_prompts_per_subtopic and concurrency.",
    )
    resume_from_session: Line = Field(
        "", description="Name of a session folder to resume; empty for a new one."
    )

    @property
    def wanted_pairs(self) -> int:
        """The pairs that the dataset is to hold."""
        return self.target_pairs or self.num_subtopics * self.num_prompts_per_subtopic

    @property
    def most_candidates(self) -> int:
        """The prompts that may be answered for them."""
        # The factor as it was written: in floats, 100 * 1.1 is a little over 110.
        return math.ceil(self.wanted_pairs * Fraction(str(self.max_prompts_per_pair)))

    @property
    def replaces(self) -> bool:
        """Whether what yields no usable pair is replaced by new prompts."""
        return self.max_prompts_per_pair > 1


class Input(Section):
    """Prompts or subtopics of one's own, in place of those that a model writes."""

    prompts: Line = Field(
        "",
        title="Prompts",
        description="File of prompts: .txt (one a line), .jsonl, .json, .csv or .parquet, each also as .gz; "
        "all of them are answered, and no subtopics and prompts are written.",
    )
    prompt_column: Line = Field(
        "prompt",
        min_length=1,
        description="Column that holds the prompt: a text, or messages that end with a turn of the user.",
    )
    system_column: Line = Field(
        "", description="Column with a system prompt for its row alone; empty for none."
    )
    keep_columns: Annotated[list[str], AfterValidator(check_each_once), AfterValidator(check_kept)] = Field(
        default_factory=list[str], description="Columns that go along into every row of the dataset."
    )
    skip_bad: bool = Field(default=False, description="Leave lines out that are no prompts.")
    sha256: Annotated[str, AfterValidator(check_sha256)] = Field(
        "",
        title="SHA-256",
        description="Digest of the file, which must then be that very one; a session notes that of its own.",
    )
    subtopics: Annotated[list[Line], AfterValidator(check_each_once), AfterValidator(check_no_blank)] = Field(
        default_factory=list[str],
        description="These subtopics, for which prompts are written; none when empty.",
    )


class JudgeFiltering(Section):
    """Which pairs are kept, by the judge's scores, in every mode but mo-dpo."""

    enabled: bool = Field(default=False, description="Keep only pairs whose scores are within the bounds.")
    use_explanations: bool = Field(
        default=False, description="Ask for reasons beside the scores; costs more tokens."
    )
    min_chosen_score: Average = Field(
        4.0, description="Lowest average score of a chosen answer that is kept."
    )
    max_rejected_score: Average = Field(
        3.0, description="Highest average score of a rejected answer that is kept."
    )


ChoiceRule = Literal["by_model", "best_worst", "best_random", "best_mean_minus_2_sd"]


class CandidateChoice(Section):
    """Several answers to a prompt, and the rule that chooses two of them by the judge's scores."""

    count: int = Field(
        1, ge=1, le=MOST_CANDIDATES, description="Answers of each model to each prompt; all are judged."
    )
    models: Annotated[list[str], AfterValidator(check_each_once), AfterValidator(check_answering)] = Field(
        default_factory=lambda: ["main", "rejected"],
        description="The models that answer, as sections of [models]; further ones may be made there, such "
        "as [models.third]. In mode sft rejected does not.",
    )
    choose: ChoiceRule = Field(
        "by_model",
        description="by_model: the best of main against the worst of rejected; else the best of all, against "
        "the worst, one at random, or the one nearest to two standard deviations below the mean.",
    )
    min_margin: float = Field(
        0.0, ge=0, le=4, description="Least distance of the two scores; pairs that are closer are kept out."
    )
    on_policy: Annotated[Line, AfterValidator(check_section)] = Field(
        "", description="Model of which at least one side must be, as its section; empty for any."
    )
    max_length_ratio: Ratio = Field(
        0.0, description="Most that the longer side may be of the shorter one, 1 or more; 0 for any."
    )


JudgingMode = Literal["score", "pairwise", "checklist"]


class Judging(Section):
    """Who judges the answers, and how."""

    models: Annotated[
        list[str],
        AfterValidator(check_each_once),
        AfterValidator(check_some),
        AfterValidator(check_sections),
    ] = Field(
        default_factory=lambda: ["judge"],
        description="The judges, as sections of [models], such as judge and judge_2; the mean of their "
        "scores counts.",
    )
    mode: JudgingMode = Field(
        "score",
        description="score: each answer by the rubric. pairwise: which of the two answers is better. "
        "checklist: each answer by yes or no to questions that are written for its prompt.",
    )
    swap: bool = Field(
        default=True,
        description="In pairwise, ask in both orders; a judge that then prefers the other one says tie.",
    )
    agree: Count = Field(
        0,
        description="Judges that must prefer the chosen answer; 0 for none: their mean, or most of "
        "them, decide.",
    )


class Lint(Section):
    """Which defects keep a pair out of the dataset while it is made."""

    drop: Annotated[list[LintCheck], AfterValidator(check_each_once)] = Field(
        default_factory=list[LintCheck],
        description="Checks of lint whose pairs are kept out, and replaced; none when empty.",
    )
    max_tokens: Count = Field(
        0, description="Most tokens of a prompt with one answer, by estimate; 0 for no limit."
    )


class Length(Section):
    """How long answers are to be."""

    answer_words: Annotated[list[Size], AfterValidator(check_words)] = Field(
        default_factory=list[int],
        description="Fewest and most words that both sides are asked for, as .AnswerWords of the templates; "
        "empty for no such wish.",
    )


class PromptTemplates(Section):
    """The texts that the models are given, in Go template syntax."""

    subtopic_generation: Template = Field(
        defaults.SUBTOPIC_GENERATION, description="Asks for subtopics, as a JSON array of strings."
    )
    prompt_generation: Template = Field(
        defaults.PROMPT_GENERATION, description="Asks for a subtopic's prompts, as a JSON array of strings."
    )
    chosen_generation: Template = Field(defaults.CHOSEN_GENERATION, description="Asks for the chosen answer.")
    rejected_generation: Template = Field(
        defaults.REJECTED_GENERATION, description="Asks for the rejected answer."
    )
    judge_rubric: Template = Field(
        defaults.JUDGE_RUBRIC, description="Asks for scores of 1 to 5 for each criterion, as JSON."
    )
    judge_comparison: Template = Field(
        defaults.JUDGE_COMPARISON,
        description='Asks which of two answers is better, as JSON: judging.mode = "pairwise".',
    )
    judge_checklist: Template = Field(
        defaults.JUDGE_CHECKLIST,
        description="Asks for questions to judge a prompt's answers by, as a JSON array of strings: "
        'judging.mode = "checklist".',
    )
    judge_checks: Template = Field(
        defaults.JUDGE_CHECKS, description="Asks for yes or no to each of these questions, as JSON."
    )
    reasoning_generation: Template = Field(
        defaults.REASONING_GENERATION,
        description="Asks for the reasoning that leads to an answer: `transform --mode add-reasoning`.",
    )
    subtopic_system_prompt: Template = Field("", description="System prompt for subtopics; empty for none.")
    prompt_system_prompt: Template = Field("", description="System prompt for prompts; empty for none.")
    chosen_system_prompt: Template = Field(
        "", description="System prompt for chosen answers; empty for none."
    )
    rejected_system_prompt: Template = Field(
        "", description="System prompt for rejected answers; empty for none."
    )
    judge_system_prompt: Template = Field("", description="System prompt for the judge; empty for none.")
    reasoning_system_prompt: Template = Field("", description="System prompt for reasoning; empty for none.")


class HuggingFace(Section):
    """Where the dataset is uploaded to, when that is asked for."""

    repo_id: Line = Field("", title="Repository", description="Dataset repository on the hub, as owner/name.")
    license: Annotated[Line, AfterValidator(check_license)] = Field(
        "", title="Licence", description="The dataset's licence as the hub names it; empty for none stated."
    )


class Output(Section):
    """Where results and paid answers are kept."""

    folder: Line = Field("output", min_length=1, description="Folder that the session folders are made in.")
    ledger: Annotated[Line, AfterValidator(check_ledger_url)] = Field(
        "",
        description="Database of paid answers, as sqlite:///path or postgresql+asyncpg://user@host/database; "
        "empty for ledger.db in the output folder.",
    )
    mirror: Annotated[Line, AfterValidator(check_mirror_url)] = Field(
        "",
        description="Where copies of the session's files and answers go, as s3://bucket/prefix, gs://… or "
        "file:///path; empty for none.",
    )
    mirror_minutes: Seconds = Field(5.0, description="Minutes between two copies; phase ends bring one too.")
    formats: Annotated[list[OutputFormat], AfterValidator(check_formats)] = Field(
        default_factory=lambda: list[OutputFormat](["native"]),
        description="What a finished session holds: native, its own rows, and trl, what TRL's trainers take.",
    )
    file_type: FileType = Field("parquet", description="What exported rows are written as.")
    reasoning: Reasoning = Field(
        "none",
        description="The models' reasoning in exported rows: left out, in think tags before the answer, or "
        "in a field of its own.",
    )
    test_share: Share = Field(
        0.0, description="Share of the pairs, by whole subtopics, that exports keep for a test split."
    )
    split_seed: Count = Field(
        0, description="Another number chooses other subtopics for the test split, and mixes kto otherwise."
    )


class Execution(Section):
    """How a run is carried out."""

    grace_seconds: float = Field(
        10.0,
        ge=0,
        le=MOST,
        description="How long calls in flight may still take after the first SIGINT or SIGTERM.",
    )
    patience_minutes: Seconds = Field(
        10.0, description="How long an endpoint may bring no success at all before the run stops."
    )
    stop_at_loss: Likeness = Field(
        0.9,
        description="Share of the first 20 prompts, or more, that may yield no pair for one cause before the "
        "run stops; 1 for never.",
    )
    adaptive_concurrency: bool = Field(
        default=True, description="Find out how many calls at a time an endpoint works best with."
    )
    max_answer_megabytes: Size = Field(
        64, description="Most that one answer may take up on arrival, unpacked; more is a failure."
    )
    preflight: bool = Field(
        default=True,
        description="Ask each model a small question before anything else is paid for, unless it is known.",
    )
    shards: int = Field(
        0,
        ge=0,
        le=MOST_SHARDS,
        description="Parts that the pairs are divided into, each for a worker of Prefect's on any machine; "
        "0 for this process alone. Needs a PostgreSQL ledger.",
    )
    work_pool: Line = Field(
        "vellumforge", min_length=1, description="Prefect's work pool whose workers take the shards."
    )


class Price(Section):
    """What a model costs, in US dollars for a million tokens."""

    input: Dollars = Field(description="Tokens of questions.")
    output: Dollars = Field(description="Tokens of answers, reasoning included.")
    cached_input: Dollars | None = Field(
        None, description="Tokens of questions that the provider still had; as input when left out."
    )


class Budget(Section):
    """What a session may spend, all its resumes together."""

    max_usd: Dollars | None = Field(None, description="US dollars; needs the prices of all models in use.")
    max_tokens: Count | None = Field(None, description="Tokens, of questions and answers.")
    max_calls: Count | None = Field(None, description="Paid calls.")

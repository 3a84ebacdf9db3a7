"""What several settings mean for each other, and which accepted settings have no effect.

The rules read settings one by one, so that they find what is wrong even where other settings are broken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from tasks.core.config.problems import allowed_range, dotted, with_value
from tasks.core.config.settings import (
    CandidateChoice,
    Models,
    PromptTemplates,
    default_of,
    further_models,
    model_named,
    settings,
)
from tasks.core.config.templates import compile_template
from tasks.core.config.values import (
    POSTGRES,
    PROVIDERS,
    SECTION,
    Limit,
    check_provider_name,
    provider_of,
)
from tasks.core.errors import Problem, TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasks.core.config.settings import Config

_PLAIN: Final = ("main", "rejected")
"""Models that are used whether they are enabled or not."""
_ASKED_BY: Final = (
    *("base_url", "model_name", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "extra_body"),
    *("presence_penalty", "frequency_penalty", "max_output_tokens"),
)
# What was set on a model, and what it would need to have an effect there.
_IDLE: Final = (
    ("main", "judge_timeout_seconds", "that model judges nothing"),
    ("rejected", "judge_timeout_seconds", "that model judges nothing"),
    ("rejected", "structure_temperature", "that model is never asked for JSON"),
)

# What a template must use, itself or in its system prompt, for its requests to differ.
_ESSENTIAL: Final = {
    "prompt_generation": "SubTopic",
    "chosen_generation": "Prompt",
    "rejected_generation": "Prompt",
    "judge_rubric": "StoryText",
    "judge_checklist": "Prompt",
    "judge_checks": "StoryText",
}
_SYSTEM_PROMPTS: Final = {
    "prompt_generation": "prompt_system_prompt",
    "chosen_generation": "chosen_system_prompt",
    "rejected_generation": "rejected_system_prompt",
    "judge_rubric": "judge_system_prompt",
}


# What else each of these templates must use, for what is judged to be in it.
_ALSO: Final = {
    "judge_comparison": ("AnswerA", "AnswerB"),
    "judge_checks": ("Checklist",),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """Settings as given, some of which may be broken.

    Attributes:
        data: The merged sources, as nested tables.
        broken: Where the validation of single fields found something, as paths into `data`.
    """

    data: Mapping[str, Any]
    broken: frozenset[tuple[str | int, ...]] = frozenset()

    def has(self, key: str) -> bool:
        """Whether something was given under this dotted key, broken or not."""
        return self._given(key) is not None

    def get(self, key: str) -> Any:
        """The value of the setting with this dotted key, or its default; None when any part is broken."""
        if self.is_broken(*key.split(".")):
            return None
        given = self._given(key)
        return default_of(key) if given is None else given

    def names(self, key: str) -> tuple[str, ...]:
        """The names in the table with this dotted key; none when it is no table."""
        given = self._given(key)
        return tuple(given) if isinstance(given, dict) else ()

    def is_broken(self, *path: str) -> bool:
        """Whether something was found there, in a part of it, or in what it is a part of."""
        return any(all(a == b for a, b in zip(path, place, strict=False)) for place in self.broken)

    def models(self) -> tuple[str, ...]:
        """The sections under [models] that there may be: the known ones, and those that were given."""
        return tuple(dict.fromkeys([*Models.model_fields, *filter(SECTION.fullmatch, self.names("models"))]))

    def _given(self, key: str) -> Any:
        found: Any = self.data
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found


def problems(draft: Draft) -> Iterator[Problem]:
    """Everything that is wrong between settings which are right by themselves."""
    yield from _beyond_limits(draft)
    yield from _input_unclear(draft)
    missing = list(_models_missing(draft))
    yield from _models_unnamed(draft, is_one_missing=any(item.key.startswith("models.") for item in missing))
    yield from missing
    yield from _contexts_too_small(draft)
    yield from _providers_unclear(draft, "provider_rate_limits")
    yield from _providers_unclear(draft, "provider_token_limits")
    yield from _keys_twice(draft)
    yield from _prices_missing(draft)
    yield from _shards_impossible(draft)
    yield from _tokens_unlimited(draft)
    yield from _templates_unusable(draft)


def warnings(config: Config) -> tuple[str, ...]:
    """Accepted settings that have no effect in this configuration, one line each."""
    return tuple(_without_effect(config))


def _beyond_limits(draft: Draft) -> Iterator[Problem]:
    if draft.get("generation.disable_validation_limits"):
        return
    for key, field in settings().items():
        value = draft.get(key)
        for item in field.metadata:
            if isinstance(item, Limit) and value is not None and value > item.maximum:
                yield with_value(key, value, allowed_range(key))


def _input_unclear(draft: Draft) -> Iterator[Problem]:
    """What has no place beside prompts of one's own, which are all answered and are replaced by no others."""
    if not draft.get("input.prompts"):
        return
    if draft.get("input.subtopics"):
        yield Problem("input.subtopics", "has no place beside input.prompts; keep one")
    if draft.get("generation.target_pairs"):
        yield Problem(
            "generation.target_pairs",
            "has no place beside input.prompts: all prompts of the file are answered",
        )


def _tokens_unlimited(draft: Draft) -> Iterator[Problem]:
    if "tokens" in (draft.get("lint.drop") or ()) and draft.get("lint.max_tokens") == 0:
        yield Problem("lint.max_tokens", 'is missing; "tokens" in lint.drop needs it')


def _shards_impossible(draft: Draft) -> Iterator[Problem]:
    shards = draft.get("execution.shards")
    if not shards:
        return
    ledger = draft.get("output.ledger")
    if ledger is not None and not ledger.startswith(f"{POSTGRES}:"):
        where = f"{POSTGRES}://user@host/database"
        yield Problem("output.ledger", f"is {ledger!r}; execution.shards needs one for all machines: {where}")
    limits = {
        f"models.{role}.{name}": draft.get(f"models.{role}.{name}")
        for role in draft.models()
        if draft.has(f"models.{role}")
        for name in ("rate_limit_per_minute", "tokens_per_minute")
    }
    for table in ("provider_rate_limits", "provider_token_limits"):
        limits |= {dotted([table, name]): limit for name, limit in (draft.get(table) or {}).items()}
    for key, limit in limits.items():
        if limit is not None and 0 < limit < shards:
            yield Problem(key, f"is {limit}; allowed: execution.shards ({shards}) or more, which share it")


def _models_unnamed(draft: Draft, *, is_one_missing: bool) -> Iterator[Problem]:
    """Sections under [models] whose names are none, or are meant to be those of another.

    One that nothing names is an error only where another one is missing, or looks like it: a file may
    hold more models than it uses.
    """
    for name in draft.names("models"):
        key = dotted(["models", name])
        if name in Models.model_fields:
            continue
        if not SECTION.fullmatch(name):
            yield Problem(key, "is no name of a model; allowed: small letters, digits and _, a letter first")
            continue
        if hasattr(Models, name):
            yield Problem(key, "is a name that cannot be given to a model; take another one")
            continue
        near = get_close_matches(name, Models.model_fields, n=1, cutoff=0.7)
        is_whole = draft.has(f"models.{name}.base_url") and draft.has(f"models.{(near or [name])[0]}")
        if near and not is_whole and name not in _named(draft):
            yield Problem(key, f"unknown key; did you mean models.{near[0]}?")
        elif is_one_missing and name not in _named(draft):
            yield Problem(key, "unknown model: neither candidates.models nor judging.models names it")


def _named(draft: Draft) -> set[str]:
    """The sections that are named as those that answer or judge."""
    lists = (draft.get("candidates.models"), draft.get("judging.models"))
    return {name for names in lists for name in names or ()}


def _models_missing(draft: Draft) -> Iterator[Problem]:
    mode = draft.get("generation.dataset_mode")
    answering = draft.get("candidates.models") or ("main", "rejected")
    if mode not in {None, "sft"} and "rejected" in answering and not draft.has("models.rejected"):
        yield Problem("models.rejected", f'is missing; generation.dataset_mode = "{mode}" needs it')
    for name in (name for name in answering if name not in _PLAIN):
        if not _is_there(draft, name):
            yield Problem(f"models.{name}", "is missing; candidates.models names it")
        elif draft.has(f"models.{name}.enabled") and draft.get(f"models.{name}.enabled") is False:
            yield Problem(f"models.{name}", "is not enabled; candidates.models names it")
    yield from _answering_twice(draft, answering)
    yield from _candidates_too_few(draft, mode, answering)
    yield from _judges_missing(draft)


def _answering_twice(draft: Draft, answering: Sequence[str]) -> Iterator[Problem]:
    """Models that would give the same answer, for they are asked the same."""
    asked: dict[str, str] = {}
    for name in answering:
        if name == "rejected" or not _is_there(draft, name) or draft.is_broken("models", name):
            continue
        address, *rest = (draft.get(f"models.{name}.{key}") for key in _ASKED_BY)
        known = asked.setdefault(repr([str(address).rstrip("/").lower(), *rest]), name)
        if known != name:
            message = (
                f"holds {known} and {name}, which are asked the same of one model; give one another seed"
            )
            yield Problem("candidates.models", message)


def _judges_missing(draft: Draft) -> Iterator[Problem]:
    reasons, judges = _reasons_for_judge(draft), draft.get("judging.models") or ()
    agree = draft.get("judging.agree")
    if judges and agree is not None and agree > len(judges):
        yield Problem("judging.agree", f"is {agree}; there are {len(judges)} in judging.models")
    if not reasons:
        return
    needed = f"{' and '.join(reasons)} {'needs' if len(reasons) == 1 else 'need'} it with enabled = true"
    for name in judges:
        why = needed if name == "judge" else "judging.models names it"
        if draft.has(f"models.{name}.enabled") and draft.get(f"models.{name}.enabled") is False:
            yield Problem(f"models.{name}", f"is not enabled; {why}")
        elif not _is_there(draft, name):
            yield Problem(f"models.{name}", f"is missing; {why}")
        elif name == "judge" and draft.get("models.judge.enabled") is False:
            yield Problem(f"models.{name}", f"is not enabled; {why}")
    places: dict[tuple[str, str], str] = {}
    for name in judges:
        address, model = (draft.get(f"models.{name}.{key}") for key in ("base_url", "model_name"))
        if not isinstance(address, str) or not isinstance(model, str):
            continue
        known = places.setdefault((address.rstrip("/").lower(), model), name)
        if known != name:
            message = f"holds {known} and {name}, which are one model at one address; it would judge twice"
            yield Problem("judging.models", message)


def _is_there(draft: Draft, name: str) -> bool:
    """Whether there is a model of this name, and not only a word on whether it is used."""
    return draft.has(f"models.{name}") and draft.names(f"models.{name}") not in {(), ("enabled",)}


def _candidates_too_few(draft: Draft, mode: str | None, answering: Sequence[str]) -> Iterator[Problem]:
    """What leaves nothing to choose from."""
    rule, policy = draft.get("candidates.choose"), draft.get("candidates.on_policy")
    if mode in {None, "sft"}:
        return
    if policy and policy not in answering:
        yield Problem("candidates.on_policy", f'is "{policy}", which is not among candidates.models')
    if "rejected" in answering:
        return
    if rule == "by_model":
        why = "main alone answers" if len(answering) == 1 else "rejected is not among candidates.models"
        yield Problem("candidates.choose", f'is "by_model"; {why}, so take another rule')
    if draft.get("candidates.count") == 1 and len(answering) == 1:
        yield Problem("candidates.count", "is 1; main alone answers, so a pair needs 2 or more")


def _reasons_for_judge(draft: Draft) -> list[str]:
    reasons = []
    if draft.get("generation.dataset_mode") == "mo-dpo":
        reasons.append('generation.dataset_mode = "mo-dpo"')
    if draft.get("judge_filtering.enabled"):
        reasons.append("judge_filtering.enabled = true")
    if draft.get("judging.mode") == "pairwise" and draft.get("generation.dataset_mode") != "sft":
        reasons.append('judging.mode = "pairwise"')
    if draft.get("judging.agree") and draft.get("generation.dataset_mode") != "sft":
        reasons.append("judging.agree")
    by_scores = [name for name in CandidateChoice.model_fields if _decides_by_scores(draft, name)]
    return [*reasons, *(f"candidates.{name}" for name in by_scores[:1])]


def _decides_by_scores(draft: Draft, name: str) -> bool:
    """Whether a setting of [candidates] means that something is decided by scores."""
    if name not in {"count", "models", "choose", "min_margin"}:
        return False
    value = draft.get(f"candidates.{name}")
    if name == "models" and value is not None:
        value = sorted(value)
    if name != "count" and draft.get("generation.dataset_mode") == "sft":
        # There, rejected answers nothing, and nothing is set against another.
        return name == "models" and len(set(value or ()) - {"rejected"}) > 1
    return value is not None and value != default_of(f"candidates.{name}")


def _contexts_too_small(draft: Draft) -> Iterator[Problem]:
    for role in draft.models():
        size = draft.get(f"models.{role}.context_size")
        answer = draft.get(f"models.{role}.max_output_tokens")
        if size is not None and answer is not None and size < answer:
            message = f"is {size}; allowed: models.{role}.max_output_tokens ({answer}) or more"
            yield Problem(f"models.{role}.context_size", message)


def _providers_unclear(draft: Draft, table: str) -> Iterator[Problem]:
    names = [name for name in draft.names(table) if not draft.is_broken(table, name, "[key]")]
    addresses = [
        draft.get(f"models.{role}.base_url")
        for role in draft.models()
        if draft.has(f"models.{role}.base_url")
    ]
    used = {provider_of(address) for address in addresses if address is not None}
    first: dict[str, str] = {}
    for name in names:
        provider = check_provider_name(name)
        known = first.setdefault(provider, name)
        if known != name:
            yield Problem(dotted([table, name]), f"is the same provider as {dotted([known])}; keep one")
        if provider not in {*PROVIDERS, *used} and None not in addresses:
            yield Problem(dotted([table, name]), "is the base_url of no model")


def _keys_twice(draft: Draft) -> Iterator[Problem]:
    for role in draft.models():
        if draft.get(f"models.{role}.api_key_env") and draft.get(f"models.{role}.api_key_block"):
            yield Problem(f"models.{role}.api_key_block", "names another key than api_key_env does; keep one")


def _prices_missing(draft: Draft) -> Iterator[Problem]:
    """Models whose calls would not count: an unknown price is no price of zero."""
    if draft.get("budget.max_usd") is None:
        return
    answering = draft.get("candidates.models") or ("main", "rejected")
    is_sft = draft.get("generation.dataset_mode") == "sft"
    used = ["main", *(role for role in answering if not is_sft or role != "rejected")]
    used += draft.get("judging.models") or () if _reasons_for_judge(draft) else ()
    names = (
        draft.get(f"models.{role}.model_name") for role in used if draft.has(f"models.{role}.model_name")
    )
    for name in dict.fromkeys(names):
        if name is not None and name not in draft.names("pricing"):
            yield Problem(
                "budget.max_usd", f"needs the price of every model in use; add [pricing.{json.dumps(name)}]"
            )


def _templates_unusable(draft: Draft) -> Iterator[Problem]:
    needed: set[str] = {"chosen_generation"}
    if not draft.get("input.prompts"):
        needed |= (
            {"prompt_generation"}
            if draft.get("input.subtopics")
            else {"prompt_generation", "subtopic_generation"}
        )
    if draft.get("generation.dataset_mode") != "sft" and "rejected" in (
        draft.get("candidates.models") or ("main", "rejected")
    ):
        needed.add("rejected_generation")
    if _reasons_for_judge(draft):
        needed |= _templates_of_judges(draft)
    for name in PromptTemplates.model_fields:
        source = draft.get(f"prompt_templates.{name}")
        if source is None:
            continue
        if name in needed and not source.strip():
            yield Problem(f"prompt_templates.{name}", "is empty; leave it out for the built-in template")
        try:
            compile_template(name, source)
        except TemplateError as error:
            yield from error.problems
    yield from _templates_aimless(draft, needed)


def _templates_of_judges(draft: Draft) -> set[str]:
    if draft.get("judging.mode") == "checklist":
        return {"judge_checklist", "judge_checks"}
    compared = draft.get("judging.mode") == "pairwise" and draft.get("generation.dataset_mode") != "sft"
    scored = len(_reasons_for_judge(draft)) > compared
    return ({"judge_comparison"} if compared else set()) | ({"judge_rubric"} if scored else set())


def _templates_aimless(draft: Draft, needed: set[str]) -> Iterator[Problem]:
    """Templates that ask the same of every item: each would be answered with what another was."""
    for name, variable in _ESSENTIAL.items():
        keys = [name, *([_SYSTEM_PROMPTS[name]] if name in _SYSTEM_PROMPTS else [])]
        sources = [draft.get(f"prompt_templates.{key}") for key in keys]
        try:
            used = {used for source in sources if source for used in compile_template(name, source).variables}
        except TemplateError:
            continue
        if name in needed and all(source is not None for source in sources) and variable not in used:
            yield Problem(
                f"prompt_templates.{name}", f"does not use {{{{.{variable}}}}}, so all would be alike"
            )
    for name, variables in _ALSO.items():
        source = draft.get(f"prompt_templates.{name}")
        try:
            present = compile_template(name, source).variables if source else variables
        except TemplateError:
            continue
        for variable in variables:
            if name in needed and variable not in present:
                yield Problem(f"prompt_templates.{name}", f"does not use {{{{.{variable}}}}}")


def _without_effect(config: Config) -> Iterator[str]:
    generation, judge = config.generation, config.models.judge
    mode = generation.dataset_mode
    if mode == "mo-dpo" and config.judge_filtering.enabled:
        yield "judge_filtering.enabled has no effect in mode mo-dpo: all pairs are scored and kept"
    if judge is not None and judge.enabled and not _needs_judge(config):
        yield f"models.judge.enabled has no effect in mode {mode} without judge_filtering.enabled"
    if mode != "sft" and generation.sft_format != "sharegpt":
        yield f"generation.sft_format has no effect in mode {mode}"
    if mode != "sft" and not generation.include_topic_columns:
        yield f"generation.include_topic_columns has no effect in mode {mode}"
    if generation.reasoning_capture_rejected and not generation.enable_reasoning_capture:
        yield "generation.reasoning_capture_rejected has no effect without enable_reasoning_capture"
    yield from _candidates_without_effect(config)
    yield from _judging_without_effect(config)
    yield from _length_without_effect(config)
    for role, name, reason in _IDLE:
        model = model_named(config, role)
        if model is not None and name in model.model_fields_set and role not in _judges(config):
            yield f"models.{role}.{name} has no effect: {reason}"
    rejected = config.models.rejected if "rejected" not in _judges(config) else None
    if rejected is not None and rejected.structured_output in {"json_schema", "json_object"}:
        name = "use_json_mode" if rejected.use_json_mode else "structured_output"
        yield f"models.rejected.{name} has no effect: that model is never asked for JSON"


def _judges(config: Config) -> Sequence[str]:
    """The sections that judge; none where nothing is judged."""
    return config.judging.models if _needs_judge(config) else ()


def _needs_judge(config: Config) -> bool:
    return bool(_reasons_for_judge(Draft(config.model_dump(exclude_unset=True))))


def _length_without_effect(config: Config) -> Iterator[str]:
    """Where only one of the two would know of the length, or neither."""
    templates, is_set = config.prompt_templates, bool(config.length.answer_words)
    for side in ("chosen", "rejected"):
        if side == "rejected" and not _asks_rejected(config):
            continue
        sources = {key: getattr(templates, key) for key in (f"{side}_generation", f"{side}_system_prompt")}
        used = {name for key, text in sources.items() for name in compile_template(key, text).variables}
        if is_set and "AnswerWords" not in used:
            yield f"length.answer_words has no effect: {side}_generation does not use {{{{.AnswerWords}}}}"
        if not is_set and "AnswerWords" in used:
            yield f"{{{{.AnswerWords}}}} of {side}_generation is empty: length.answer_words is not set"


def _asks_rejected(config: Config) -> bool:
    return config.generation.dataset_mode != "sft" and "rejected" in config.candidates.models


def _judging_without_effect(config: Config) -> Iterator[str]:
    judging, mode = config.judging, config.generation.dataset_mode
    used = {*config.candidates.models, *_judges(config)}
    for name in further_models(config):
        if name not in used:
            yield f"models.{name} has no effect: neither candidates.models nor judging.models uses it"
    is_set = [name for name in type(judging).model_fields if name in judging.model_fields_set]
    if not _needs_judge(config):
        for name in is_set:
            if getattr(judging, name) != default_of(f"judging.{name}"):
                yield f"judging.{name} has no effect where nothing is judged"
        return
    if mode == "sft" and judging.mode == "pairwise":
        yield "judging.mode has no effect in mode sft: there are no two sides to compare"
    if mode == "sft" and judging.agree:
        yield "judging.agree has no effect in mode sft: there are no two sides to agree on"
    if judging.mode != "pairwise" and not judging.swap:
        yield f'judging.swap has no effect with judging.mode = "{judging.mode}"'


def _candidates_without_effect(config: Config) -> Iterator[str]:
    choice, mode = config.candidates, config.generation.dataset_mode
    is_set = [
        name
        for name in CandidateChoice.model_fields
        if getattr(choice, name) != default_of(f"candidates.{name}")
    ]
    if mode == "sft":
        several = len(set(choice.models) - {"rejected"}) > 1
        for name in is_set:
            if name != "count" and not (name == "models" and several):
                yield f"candidates.{name} has no effect in mode sft: the best answer is taken"
    elif not {"count", "models", "choose"}.intersection(is_set):
        for name in is_set:
            if name in {"on_policy", "max_length_ratio"} and config.judging.mode != "pairwise":
                yield f"candidates.{name} has no effect where each model answers once, and nothing is chosen"
    if mode != "sft" and choice.choose == "by_model":
        for name in sorted(set(choice.models) - {"main", "rejected"}):
            yield f'models.{name} answers for nothing: candidates.choose = "by_model" takes main and rejected'
    if choice.count > 1 and config.models.main.temperature == 0:
        yield "candidates.count has little effect with models.main.temperature = 0: the answers are alike"

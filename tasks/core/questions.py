"""What is asked of the models: every ChatRequest of the pipeline is made here, from templates and jobs.

A request is a pure function of the configuration, of what earlier answers said (in the order of ids, never
of arrival), and of its sample. That is what makes a re-run find every answer in the ledger.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.core.answers.judgements import LEAST_CHECKS
from tasks.core.answers.rubric import criteria_in
from tasks.core.config.settings import model_named
from tasks.core.config.templates import compile_template
from tasks.core.config.values import UNSET
from tasks.core.exchange.request import CHECKS, COMPARISON, ITEMS, SCORES, SEED_STRIDE, ChatRequest
from tasks.core.models import CallKind, GivenJob, Purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tasks.core.config.settings import Config, ModelConfig
    from tasks.core.config.templates import Template
    from tasks.core.models import Job

SEEDS = 1 << 31
"""How many seeds there are: the servers agree on 31 bits alone."""

_SCORES_ALONE = "Give the scores alone, without reasoning: a JSON object of each criterion and its score."
TEMPLATES = {
    Purpose.SUBTOPICS: ("subtopic_generation", "subtopic_system_prompt"),
    Purpose.PROMPTS: ("prompt_generation", "prompt_system_prompt"),
    Purpose.CHOSEN: ("chosen_generation", "chosen_system_prompt"),
    Purpose.REJECTED: ("rejected_generation", "rejected_system_prompt"),
    Purpose.JUDGE: ("judge_rubric", "judge_system_prompt"),
    # The judge's system prompt speaks of scores.
    Purpose.COMPARISON: ("judge_comparison", ""),
    Purpose.CHECKLIST: ("judge_checklist", ""),
    Purpose.CHECKS: ("judge_checks", ""),
    Purpose.REASONING: ("reasoning_generation", "reasoning_system_prompt"),
}
"""The template of each purpose, and that of its system prompt; "" where it has none."""

JUDGEMENTS = (Purpose.JUDGE, Purpose.COMPARISON, Purpose.CHECKLIST, Purpose.CHECKS)
"""What judges are asked for."""

_SHAPES = {
    Purpose.SUBTOPICS: ITEMS,
    Purpose.PROMPTS: ITEMS,
    Purpose.JUDGE: SCORES,
    Purpose.COMPARISON: COMPARISON,
    Purpose.CHECKLIST: ITEMS,
    Purpose.CHECKS: CHECKS,
}
_SMALL_LEAST = 3
_SMALL_HINT = "Answer in JSON."
_SMALL_SYSTEM = "You answer briefly."
# None of them names a form of the answer: a server that ignores `response_format` shows it.
_SMALL = {
    ITEMS: "Name 3 colours.",
    SCORES: "Rate this sentence from 1 to 5 for clarity and for style: The tide turns at dusk.",
    COMPARISON: "Which sentence is clearer? A: The tide turns at dusk. B: At dusk it is the tide that turns.",
    CHECKS: "Answer with yes or no. 1: Is water wet? 2: Is ice warm?",
    "": "Describe the sea in one sentence.",
}


_SMALL_CHECKS = ("1", "2")


def shape_of(purpose: Purpose) -> str:
    """The form of answers that are asked for: `items`, `scores`, `comparison`, `checks`, or "" for prose."""
    return _SHAPES.get(purpose, "")


def sections_for(config: Config, purpose: Purpose) -> tuple[str, ...]:
    """The sections under [models] that answer calls of this purpose, the first one first."""
    match purpose:
        case Purpose.CHOSEN:
            return tuple(name for name in config.candidates.models if name != "rejected")
        case Purpose.REJECTED:
            return ("rejected",)
        case Purpose.CHECKLIST:
            return tuple(config.judging.models[:1])
        case Purpose.JUDGE | Purpose.COMPARISON | Purpose.CHECKS:
            return tuple(config.judging.models)
        case _:
            return ("main",)


def model_of(config: Config, kind: CallKind) -> ModelConfig:
    """The model that answers calls of this kind.

    Raises:
        LookupError: None is configured; the rules of the configuration demand those that are needed.
    """
    model = model_named(config, kind.section)
    if model is None:
        raise LookupError(
            f"no model is configured for {kind.purpose} calls: models.{kind.section} is missing"
        )
    return model


def is_judged(config: Config) -> bool:
    """Whether a judge is asked."""
    return is_scored(config) or is_compared(config)


def is_scored(config: Config) -> bool:
    """Whether answers are scored: always in mo-dpo, elsewhere where something is decided by scores."""
    by_scores = config.judge_filtering.enabled or needs_scores(config)
    return config.generation.dataset_mode == "mo-dpo" or by_scores


def scoring_of(config: Config) -> tuple[Purpose, ...]:
    """The calls by which answers are scored; the last is the one that brings the scores of an answer."""
    if config.judging.mode == "checklist":
        return Purpose.CHECKLIST, Purpose.CHECKS
    return (Purpose.JUDGE,)


def is_compared(config: Config) -> bool:
    """Whether judges are asked which of two answers is better."""
    return config.judging.mode == "pairwise" and config.generation.dataset_mode != "sft"


def chooses(config: Config) -> bool:
    """Whether a pair is chosen of several answers; else each model answers once, as main against rejected."""
    choice = config.candidates
    if config.generation.dataset_mode == "sft":
        return choice.count > 1 or len(sections_for(config, Purpose.CHOSEN)) > 1
    return choice.count > 1 or choice.choose != "by_model" or choice.models != ["main", "rejected"]


def needs_scores(config: Config) -> bool:
    """Whether pairs are scored because of [candidates], or for judges to agree by their scores."""
    if config.generation.dataset_mode == "sft":
        return chooses(config)
    agreed = config.judging.agree > 0 and not is_compared(config)
    return chooses(config) or config.candidates.min_margin != 0 or agreed


def purposes_of(config: Config) -> tuple[Purpose, ...]:
    """The kinds of call that generating with this configuration makes."""
    unused = {Purpose.REASONING}
    if config.input.prompts:
        unused |= {Purpose.SUBTOPICS, Purpose.PROMPTS}
    elif config.input.subtopics:
        unused.add(Purpose.SUBTOPICS)
    if config.generation.dataset_mode == "sft" or "rejected" not in config.candidates.models:
        unused.add(Purpose.REJECTED)
    scoring = {Purpose.JUDGE, Purpose.CHECKLIST, Purpose.CHECKS}
    unused |= scoring - (set(scoring_of(config)) if is_scored(config) else set())
    if not is_compared(config):
        unused.add(Purpose.COMPARISON)
    return tuple(purpose for purpose in Purpose if purpose not in unused)


def kinds_of(config: Config, purposes: Iterable[Purpose] | None = None) -> tuple[CallKind, ...]:
    """The kinds of call, with the models that answer them, in the order of the pipeline.

    Args:
        config: The configuration.
        purposes: What calls are for; left out, all that generating makes.
    """
    wanted = purposes_of(config) if purposes is None else purposes
    return tuple(
        CallKind(purpose, section) for purpose in wanted for section in sections_for(config, purpose)
    )


def models_of(config: Config) -> dict[str, ModelConfig]:
    """The models that this configuration asks, by their section."""
    return {kind.section: model_of(config, kind) for kind in kinds_of(config)}


def known_criteria(config: Config) -> tuple[str, ...]:
    """The criteria that the rubric names, for the schema; () where it does not tell them."""
    return criteria_in(config.prompt_templates.judge_rubric) or ()


_SUBTOPICS, _PROMPTS = CallKind(Purpose.SUBTOPICS, "main"), CallKind(Purpose.PROMPTS, "main")
_REJECTED = CallKind(Purpose.REJECTED, "rejected")


class _Shape(NamedTuple):
    """The shape of an answer: what is said of it in a schema, beside the words of the question."""

    schema: str = ""
    least: int = 0
    criteria: tuple[str, ...] = ()
    explain: bool = False


_PROSE = _Shape()


class Questions:
    """The pipeline's requests for one configuration; each template is compiled once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # Compiled when they are used first: what a configuration never asks costs nothing.
        self._templates: dict[str, Template | None] = {
            key: None
            for keys in TEMPLATES.values()
            for key in filter(None, keys)
            if getattr(config.prompt_templates, key)
        }
        self._parameters: dict[tuple[str, bool], dict[str, Any]] = {}
        self._first_sample = config.generation.seed * SEED_STRIDE
        self._criteria = known_criteria(config)
        self._answer_words = " to ".join(map(str, config.length.answer_words))

    def subtopics(self, count: int, exclude: str, sample: int) -> ChatRequest:
        """Ask for `count` subtopics; `exclude` lists those that exist, "" in the first round."""
        values = {
            "MainTopic": self._config.generation.main_topic,
            "NumSubtopics": count,
            "IsRetry": bool(exclude),
            "ExcludeSubtopics": exclude,
        }
        return self._request(_SUBTOPICS, values, sample, shape=_Shape(ITEMS, least=count))

    def prompts(self, subtopic: str, count: int, exclude: Sequence[str], sample: int) -> ChatRequest:
        """Ask for `count` prompts of a subtopic, other than those in `exclude`."""
        values = {
            "MainTopic": self._config.generation.main_topic,
            "SubTopic": subtopic,
            "NumPrompts": count,
        }
        # The template has no variable for it, so that VellumForge2's templates work unchanged.
        suffix = (
            "Do not repeat any of these:\n" + "\n".join(f"- {item}" for item in exclude) if exclude else ""
        )
        shape = _Shape(ITEMS, least=count)
        return self._request(_PROMPTS, values, sample, shape=shape, suffix=suffix)

    def system_prompt(self, job: Job) -> str:
        """The system prompt under which the job's chosen answer is asked for; "" when there is none."""
        own = job.system if isinstance(job, GivenJob) else ""
        return own or self._system(Purpose.CHOSEN, self._answer_values(job))

    def chosen(self, job: Job, sample: int, section: str = "main") -> ChatRequest:
        """Ask the main model, or another one of this section, to answer the job's prompt."""
        return self._answer(CallKind(Purpose.CHOSEN, section), job, sample)

    def rejected(self, job: Job, sample: int) -> ChatRequest:
        """Ask the rejected model to answer the job's prompt."""
        return self._answer(_REJECTED, job, sample)

    def _answer_values(self, job: Job) -> dict[str, Any]:
        return _job_values(job) | {"AnswerWords": self._answer_words}

    def _answer(self, kind: CallKind, job: Job, sample: int) -> ChatRequest:
        """Ask for an answer: what was said before goes as it is, the template is around the last turn."""
        request = self._request(kind, self._answer_values(job), job.first_sample + sample)
        if not isinstance(job, GivenJob) or not (job.system or job.history):
            return request
        *system, asked = request.messages
        if job.system:
            system = [("system", job.system)]
        return replace(request, messages=(*system, *job.history, asked))

    def judge(
        self, job: Job, text: str, sample: int, *, explain: bool, section: str | None = None
    ) -> ChatRequest:
        """Ask a judge to score `text` as an answer to the job's prompt, with or without reasoning.

        Args:
            job: The job.
            text: The answer that is judged.
            sample: Another number asks the same again.
            explain: Whether it gives reasons.
            section: The judge's section; the first judge when left out.
        """
        kind = CallKind(Purpose.JUDGE, section or self._config.judging.models[0])
        values = _asked_values(job) | {"StoryText": text}
        suffix = "" if explain else _SCORES_ALONE
        shape = _Shape(SCORES, criteria=self._criteria, explain=explain)
        return self._request(kind, values, job.first_sample + sample, shape=shape, suffix=suffix)

    def comparison(self, job: Job, first: str, second: str, sample: int, section: str) -> ChatRequest:
        """Ask a judge which of two answers to the job's prompt is better; `first` is shown as A."""
        values = _asked_values(job) | {"AnswerA": first, "AnswerB": second}
        kind = CallKind(Purpose.COMPARISON, section)
        return self._request(kind, values, job.first_sample + sample, shape=_Shape(COMPARISON))

    def checklist(self, job: Job, sample: int) -> ChatRequest:
        """Ask the first judge for questions to judge the answers to the job's prompt by."""
        kind = CallKind(Purpose.CHECKLIST, self._config.judging.models[0])
        shape = _Shape(ITEMS, least=LEAST_CHECKS)
        return self._request(kind, _asked_values(job), job.first_sample + sample, shape=shape)

    def checks(self, job: Job, text: str, checklist: Sequence[str], sample: int, section: str) -> ChatRequest:
        """Ask a judge for yes or no to each question about `text` as an answer to the job's prompt."""
        numbered = "\n".join(f"{number}. {question}" for number, question in enumerate(checklist, 1))
        values = _asked_values(job) | {"StoryText": text, "Checklist": numbered}
        shape = _Shape(CHECKS, criteria=tuple(str(number) for number in range(1, len(checklist) + 1)))
        kind = CallKind(Purpose.CHECKS, section)
        return self._request(kind, values, job.first_sample + sample, shape=shape)

    def reasoning(self, job: Job, answer: str, sample: int) -> ChatRequest:
        """Ask the main model for the reasoning that leads from the job's prompt to `answer`."""
        values = _job_values(job) | {"Answer": answer}
        return self._request(CallKind(Purpose.REASONING, "main"), values, job.first_sample + sample)

    def example(
        self, kind: CallKind, job: Job, answer: str, checklist: Sequence[str], *, explain: bool
    ) -> ChatRequest:
        """What a call of this kind looks like.

        Args:
            kind: The kind of call.
            job: What stands for a job.
            answer: What stands for an answer that is judged.
            checklist: What stands for a checklist.
            explain: Whether the judge gives reasons.
        """
        generation = self._config.generation
        chunk = min(generation.subtopic_chunk_size or generation.num_subtopics, generation.num_subtopics)
        section = kind.section
        made: dict[Purpose, Callable[[], ChatRequest]] = {
            Purpose.SUBTOPICS: lambda: self.subtopics(chunk, "", 0),
            Purpose.PROMPTS: lambda: self.prompts(job.sub_topic, generation.num_prompts_per_subtopic, (), 0),
            Purpose.CHOSEN: lambda: self.chosen(job, 0, section),
            Purpose.REJECTED: lambda: self.rejected(job, 0),
            Purpose.JUDGE: lambda: self.judge(job, answer, 0, explain=explain, section=section),
            Purpose.COMPARISON: lambda: self.comparison(job, answer, answer, 0, section),
            Purpose.CHECKLIST: lambda: self.checklist(job, 0),
            Purpose.CHECKS: lambda: self.checks(job, answer, checklist, 0, section),
            Purpose.REASONING: lambda: self.reasoning(job, answer, 0),
        }
        return made[kind.purpose]()

    def small(self, kind: CallKind, sample: int) -> ChatRequest:
        """A small question in the form of this kind: it shows whether the model can be used for it.

        All that a server may refuse is as in the purpose's own requests: model, sampling parameters, token
        limit, the schema, and a system message where there is a template for one. The words are ours and
        harmless, the same for every configuration, and do not ask for JSON. It differs from every request
        of the pipeline in its messages alone, hence in its key.

        Args:
            kind: The kind, which the request keeps.
            sample: Another number asks the same again.
        """
        purpose, schema = kind.purpose, shape_of(kind.purpose)
        model = model_of(self._config, kind)
        system = (("system", _SMALL_SYSTEM),) if TEMPLATES[purpose][1] in self._templates else ()
        return ChatRequest(
            purpose=purpose,
            endpoint=model.base_url.rstrip("/"),
            model=model.model_name,
            messages=(*system, ("user", _SMALL[schema])),
            json_hint=_SMALL_HINT if schema else "",
            least=_SMALL_LEAST if schema == ITEMS else 0,
            criteria={SCORES: self._criteria, CHECKS: _SMALL_CHECKS}.get(schema, ()),
            parameters=self._sampling(kind, model, self._first_sample + sample, structured=bool(schema)),
            schema=schema,
            sample=self._first_sample + sample,
            section=kind.section,
        )

    def _request(
        self,
        kind: CallKind,
        values: dict[str, Any],
        sample: int,
        *,
        shape: _Shape = _PROSE,
        suffix: str = "",
    ) -> ChatRequest:
        purpose = kind.purpose
        user = self._rendered(TEMPLATES[purpose][0], values)
        if suffix:
            user = f"{user}\n\n{suffix}"
        system = self._system(purpose, values)
        model = model_of(self._config, kind)
        return ChatRequest(
            purpose=purpose,
            endpoint=model.base_url.rstrip("/"),
            model=model.model_name,
            messages=(("system", system), ("user", user)) if system else (("user", user),),
            parameters=self._sampling(
                kind, model, self._first_sample + sample, structured=bool(shape.schema)
            ),
            schema=shape.schema,
            sample=self._first_sample + sample,
            least=shape.least,
            criteria=shape.criteria,
            explain=shape.explain,
            section=kind.section,
        )

    def _system(self, purpose: Purpose, values: dict[str, Any]) -> str:
        # Mostly there is none, and rendering nothing costs as much as rendering something.
        key = TEMPLATES[purpose][1]
        return self._rendered(key, values) if key in self._templates else ""

    def _rendered(self, key: str, values: dict[str, Any]) -> str:
        template = self._templates[key]
        if template is None:
            text = getattr(self._config.prompt_templates, key)
            self._templates[key] = template = compile_template(key, text)
        return template.render(**values)

    def _sampling(
        self, kind: CallKind, model: ModelConfig, sample: int, *, structured: bool
    ) -> dict[str, Any]:
        """The sampling parameters that are sent; made once for each model and form, but for the seed."""
        parameters = self._parameters.get((kind.section, structured))
        if parameters is None:
            parameters = _sampling_parameters(model, structured=structured)
            self._parameters[kind.section, structured] = parameters
        if model.seed is None:
            return parameters
        # With the same seed, a further sample would be the same answer once more.
        return {**parameters, "seed": (model.seed + sample) % SEEDS}


def whole_prompt(job: Job) -> str:
    """What a job asks, with what was said before it: a judge must know what is answered."""
    if not isinstance(job, GivenJob) or not (job.history or job.system):
        return job.prompt
    system = (("system", job.system),) if job.system else ()
    turns = (*system, *job.history, ("user", job.prompt))
    return "\n\n".join(f"{role}: {content}" for role, content in turns)


def _asked_values(job: Job) -> dict[str, Any]:
    """The values of a template that judges: the prompt is all that was asked."""
    return _job_values(job) | {"Prompt": whole_prompt(job)}


def _job_values(job: Job) -> dict[str, Any]:
    return {"Prompt": job.prompt, "MainTopic": job.main_topic, "SubTopic": job.sub_topic}


def _sampling_parameters(model: ModelConfig, *, structured: bool) -> dict[str, Any]:
    """Zero is zero; what not every server knows is there only when it is set, and nothing that is "unset"."""
    temperature = model.temperature
    if structured and model.structure_temperature is not None:
        temperature = model.structure_temperature
    parameters: dict[str, Any] = {}
    if temperature != UNSET:
        parameters["temperature"] = float(temperature)
    if model.top_p != UNSET:
        parameters["top_p"] = float(model.top_p)
    parameters["max_tokens"] = model.max_output_tokens
    if model.top_k >= 0:
        parameters["top_k"] = model.top_k
    if model.min_p is not None:
        parameters["min_p"] = float(model.min_p)
    if model.stop:
        parameters["stop"] = model.stop
    if model.presence_penalty is not None:
        parameters["presence_penalty"] = float(model.presence_penalty)
    if model.frequency_penalty is not None:
        parameters["frequency_penalty"] = float(model.frequency_penalty)
    return parameters | model.extra_body

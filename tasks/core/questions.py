"""What is asked of the models: every ChatRequest of the pipeline is made here, from templates and jobs.

A request is a pure function of the configuration, of what earlier answers said (in the order of ids, never
of arrival), and of its sample. That is what makes a re-run find every answer in the ledger.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.core.answers.rubric import criteria_in
from tasks.core.config.templates import compile_template
from tasks.core.config.values import UNSET
from tasks.core.exchange.request import ITEMS, SCORES, SEED_STRIDE, ChatRequest
from tasks.core.models import GivenJob, Purpose

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    Purpose.REASONING: ("reasoning_generation", "reasoning_system_prompt"),
}

_SHAPES = {Purpose.SUBTOPICS: ITEMS, Purpose.PROMPTS: ITEMS, Purpose.JUDGE: SCORES}
_SMALL_LEAST = 3
_SMALL_HINT = "Answer in JSON."
_SMALL_SYSTEM = "You answer briefly."
# None of them names a form of the answer: a server that ignores `response_format` shows it.
_SMALL = {
    ITEMS: "Name 3 colours.",
    SCORES: "Rate this sentence from 1 to 5 for clarity and for style: The tide turns at dusk.",
    "": "Describe the sea in one sentence.",
}


def shape_of(purpose: Purpose) -> str:
    """The form of the answers that are asked for: `items`, `scores`, or "" for prose."""
    return _SHAPES.get(purpose, "")


def model_for(config: Config, purpose: Purpose) -> ModelConfig:
    """The model that answers calls of this purpose.

    Raises:
        LookupError: None is configured; the rules of the configuration demand those that are needed.
    """
    models = config.models
    model = {Purpose.REJECTED: models.rejected, Purpose.JUDGE: models.judge}.get(purpose, models.main)
    if model is None:
        raise LookupError(f"no model is configured for {purpose} calls")
    return model


def is_judged(config: Config) -> bool:
    """Whether pairs are scored: always in mo-dpo, elsewhere where something is decided by scores."""
    by_scores = config.judge_filtering.enabled or needs_scores(config)
    return config.generation.dataset_mode == "mo-dpo" or by_scores


def chooses(config: Config) -> bool:
    """Whether a pair is chosen of several answers; else each model answers once, as main against rejected."""
    choice = config.candidates
    if config.generation.dataset_mode == "sft":
        return choice.count > 1
    return choice.count > 1 or choice.choose != "by_model" or choice.models != ["main", "rejected"]


def needs_scores(config: Config) -> bool:
    """Whether pairs are judged because of [candidates]."""
    margin = config.candidates.min_margin if config.generation.dataset_mode != "sft" else 0
    return chooses(config) or margin != 0


def purposes_of(config: Config) -> tuple[Purpose, ...]:
    """The kinds of call that generating with this configuration makes."""
    unused = {Purpose.REASONING}
    if config.input.prompts:
        unused |= {Purpose.SUBTOPICS, Purpose.PROMPTS}
    elif config.input.subtopics:
        unused.add(Purpose.SUBTOPICS)
    if config.generation.dataset_mode == "sft" or "rejected" not in config.candidates.models:
        unused.add(Purpose.REJECTED)
    if not is_judged(config):
        unused.add(Purpose.JUDGE)
    return tuple(purpose for purpose in Purpose if purpose not in unused)


def models_of(config: Config) -> tuple[ModelConfig, ...]:
    """The models that this configuration asks, each section once."""
    return tuple({id(model): model for model in (model_for(config, p) for p in purposes_of(config))}.values())


def known_criteria(config: Config) -> tuple[str, ...]:
    """The criteria that the rubric names, for the schema; () where it does not tell them."""
    return criteria_in(config.prompt_templates.judge_rubric) or ()


class _Shape(NamedTuple):
    """The shape of an answer: what is said of it in a schema, beside the words of the question."""

    schema: str = ""
    least: int = 0
    criteria: tuple[str, ...] = ()
    explain: bool = False


_PROSE = _Shape()


class Questions:
    """The pipeline's requests for one configuration; its templates are compiled once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._templates: dict[str, Template] = {
            key: compile_template(key, getattr(config.prompt_templates, key))
            for keys in TEMPLATES.values()
            for key in keys
            if getattr(config.prompt_templates, key)
        }
        self._parameters: dict[tuple[Purpose, bool], dict[str, Any]] = {}
        self._first_sample = config.generation.seed * SEED_STRIDE
        self._criteria = known_criteria(config)

    def subtopics(self, count: int, exclude: str, sample: int) -> ChatRequest:
        """Ask for `count` subtopics; `exclude` lists those that exist, "" in the first round."""
        values = {
            "MainTopic": self._config.generation.main_topic,
            "NumSubtopics": count,
            "IsRetry": bool(exclude),
            "ExcludeSubtopics": exclude,
        }
        return self._request(Purpose.SUBTOPICS, values, sample, shape=_Shape(ITEMS, least=count))

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
        return self._request(Purpose.PROMPTS, values, sample, shape=shape, suffix=suffix)

    def system_prompt(self, job: Job) -> str:
        """The system prompt under which the job's chosen answer is asked for; "" when there is none."""
        own = job.system if isinstance(job, GivenJob) else ""
        return own or self._system(Purpose.CHOSEN, _job_values(job))

    def chosen(self, job: Job, sample: int) -> ChatRequest:
        """Ask the main model to answer the job's prompt."""
        return self._answer(Purpose.CHOSEN, job, sample)

    def rejected(self, job: Job, sample: int) -> ChatRequest:
        """Ask the rejected model to answer the job's prompt."""
        return self._answer(Purpose.REJECTED, job, sample)

    def _answer(self, purpose: Purpose, job: Job, sample: int) -> ChatRequest:
        """Ask for an answer: what was said before goes as it is, the template is around the last turn."""
        request = self._request(purpose, _job_values(job), job.first_sample + sample)
        if not isinstance(job, GivenJob) or not (job.system or job.history):
            return request
        *system, asked = request.messages
        if job.system:
            system = [("system", job.system)]
        return replace(request, messages=(*system, *job.history, asked))

    def judge(self, job: Job, text: str, sample: int, *, explain: bool) -> ChatRequest:
        """Ask the judge to score `text` as an answer to the job's prompt, with or without reasoning."""
        values = _job_values(job) | {"Prompt": whole_prompt(job), "StoryText": text}
        suffix = "" if explain else _SCORES_ALONE
        shape = _Shape(SCORES, criteria=self._criteria, explain=explain)
        return self._request(Purpose.JUDGE, values, job.first_sample + sample, shape=shape, suffix=suffix)

    def reasoning(self, job: Job, answer: str, sample: int) -> ChatRequest:
        """Ask the main model for the reasoning that leads from the job's prompt to `answer`."""
        values = _job_values(job) | {"Answer": answer}
        return self._request(Purpose.REASONING, values, job.first_sample + sample)

    def small(self, purpose: Purpose, sample: int) -> ChatRequest:
        """A small question in the form of this purpose: it shows whether the model can be used for it.

        All that a server may refuse is as in the purpose's own requests: model, sampling parameters, token
        limit, the schema, and a system message where there is a template for one. The words are ours and
        harmless, the same for every configuration, and do not ask for JSON. It differs from every request
        of the pipeline in its messages alone, hence in its key.

        Args:
            purpose: The purpose, which the request keeps.
            sample: Another number asks the same again.
        """
        schema = shape_of(purpose)
        model = model_for(self._config, purpose)
        system = (("system", _SMALL_SYSTEM),) if TEMPLATES[purpose][1] in self._templates else ()
        return ChatRequest(
            purpose=purpose,
            endpoint=model.base_url.rstrip("/"),
            model=model.model_name,
            messages=(*system, ("user", _SMALL[schema])),
            json_hint=_SMALL_HINT if schema else "",
            least=_SMALL_LEAST if schema == ITEMS else 0,
            criteria=self._criteria if schema == SCORES else (),
            parameters=self._sampling(purpose, model, self._first_sample + sample, structured=bool(schema)),
            schema=schema,
            sample=self._first_sample + sample,
        )

    def _request(
        self,
        purpose: Purpose,
        values: dict[str, Any],
        sample: int,
        *,
        shape: _Shape = _PROSE,
        suffix: str = "",
    ) -> ChatRequest:
        user = self._templates[TEMPLATES[purpose][0]].render(**values)
        if suffix:
            user = f"{user}\n\n{suffix}"
        system = self._system(purpose, values)
        model = model_for(self._config, purpose)
        return ChatRequest(
            purpose=purpose,
            endpoint=model.base_url.rstrip("/"),
            model=model.model_name,
            messages=(("system", system), ("user", user)) if system else (("user", user),),
            parameters=self._sampling(
                purpose, model, self._first_sample + sample, structured=bool(shape.schema)
            ),
            schema=shape.schema,
            sample=self._first_sample + sample,
            least=shape.least,
            criteria=shape.criteria,
            explain=shape.explain,
        )

    def _system(self, purpose: Purpose, values: dict[str, Any]) -> str:
        # Mostly there is none, and rendering nothing costs as much as rendering something.
        key = TEMPLATES[purpose][1]
        return self._templates[key].render(**values) if key in self._templates else ""

    def _sampling(
        self, purpose: Purpose, model: ModelConfig, sample: int, *, structured: bool
    ) -> dict[str, Any]:
        """The sampling parameters that are sent; made once for each kind of call, but for the seed."""
        parameters = self._parameters.get((purpose, structured))
        if parameters is None:
            parameters = _sampling_parameters(model, structured=structured)
            self._parameters[purpose, structured] = parameters
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

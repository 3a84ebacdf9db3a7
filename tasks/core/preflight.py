"""Found out before it is paid for: whether each model can be used in each form that a run asks it in.

A model is asked one small question in a form (a list, prose, scores) as the run asks it: with its sampling
parameters, its token limit, its schema and its system role. Before a run buys anything, `checked_first` asks
those of which the ledger knows no answer; `validate --ping` asks all of them (`ping.py`).
"""

from __future__ import annotations

import itertools
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from tasks.core.answers import read_rejected
from tasks.core.errors import CallError, EndpointError, ModelError, UnusableAnswerError, VellumforgeError
from tasks.core.json_regions import json_values
from tasks.core.llm.ledger_records import earlier_answers
from tasks.core.llm.retry import AttemptError, Verdict
from tasks.core.llm.schemas import ITEMS, SCORES
from tasks.core.models import Purpose
from tasks.core.questions import TEMPLATES, Questions, model_for, shape_of
from tasks.core.run import all_of
from tasks.core.thinking import split_thinking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tasks.core.config.models import Config, ModelConfig
    from tasks.core.llm.types import Answer
    from tasks.core.run import Run

log = logging.getLogger("vellumforge.preflight")

FORMS: Final = {ITEMS: "a list", SCORES: "scores", "": "prose"}
"""The forms of answers, in words."""

MOST_TRIES: Final = 3
"""Small questions that are asked of a model in one form, where answers come and are empty."""

_MOST_CHARACTERS: Final = 1_000_000
_ROLES: Final = {Purpose.REJECTED: "rejected", Purpose.JUDGE: "judge"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A form in which a model is asked.

    Attributes:
        purposes: The purposes that are asked so, in order.
        purpose: The one whose small question stands for them: it has a system message if any of them has.
        model: The model's settings.
        shape: The form: `items`, `scores`, or "" for prose.
    """

    purposes: tuple[Purpose, ...]
    purpose: Purpose
    model: ModelConfig
    shape: str

    @property
    def form(self) -> str:
        """The form in words, with what it is for."""
        return f"{FORMS[self.shape]} ({', '.join(self.purposes)})"


def trials_of(config: Config, purposes: Iterable[Purpose]) -> tuple[Trial, ...]:
    """The distinct forms in which these purposes ask their models."""
    questions = Questions(config)
    alike: dict[bytes, list[Purpose]] = {}
    for purpose in purposes:
        alike.setdefault(_likeness(config, questions, purpose), []).append(purpose)
    return tuple(
        Trial(
            purposes=tuple(group),
            purpose=next((purpose for purpose in group if _has_system(config, purpose)), group[0]),
            model=model_for(config, group[0]),
            shape=shape_of(group[0]),
        )
        for group in alike.values()
    )


def _likeness(config: Config, questions: Questions, purpose: Purpose) -> bytes:
    """Alike for purposes of which one shows what a server thinks of the other."""
    model, small = model_for(config, purpose), questions.small(purpose, 0)
    conduct = (
        model.api_key_env,
        model.api_key_block,
        model.headers,
        model.structured_output,
        model.max_tokens_parameter,
        model.use_streaming,
    )
    likeness = (small.endpoint, small.model, small.schema, small.parameters, conduct)
    return orjson.dumps(likeness, option=orjson.OPT_SORT_KEYS)


def _has_system(config: Config, purpose: Purpose) -> bool:
    return bool(getattr(config.prompt_templates, TEMPLATES[purpose][1]))


def small_keys(config: Config, purposes: Iterable[Purpose]) -> list[bytes]:
    """The ledger keys of the small questions that runs with this configuration may have asked."""
    questions = Questions(config)
    return [questions.small(purpose, sample).key for purpose in purposes for sample in range(MOST_TRIES)]


def check_answer(answer: Answer, shape: str) -> None:
    """Nothing, for an answer that shows that a model can be used in this form.

    Any text does: the real templates say in words what they want, where a schema alone does not reach a
    model. A list or scores may stand in the reasoning.

    Raises:
        UnusableAnswerError: The answer cannot be used.
    """
    if not (shape and is_json(answer.reasoning)):
        read_rejected(answer)


def is_json(text: str) -> bool:
    """Whether there is JSON in an answer: a list or an object, also one whose end was cut off."""
    return any(True for _ in json_values(split_thinking(text[:_MOST_CHARACTERS]).answer))


@asynccontextmanager
async def checked_first(run: Run, purposes: Iterable[Purpose]) -> AsyncIterator[None]:
    """Have the models checked before the run buys anything in the block; where it buys nothing, none is.

    What is found out is raised where the run wants to buy, and stops it.

    Args:
        run: The run.
        purposes: The kinds of call that it makes.
    """
    if run.config.execution.preflight:
        trials = trials_of(run.config, purposes)
        run.client.gate.guard(lambda: check_models(run, trials))
    try:
        yield
    finally:
        await run.client.gate.close()


async def check_models(run: Run, trials: Iterable[Trial]) -> None:
    """Ask what the ledger does not know, all at once.

    Raises:
        ModelError: Models cannot be used; the message has a line for each of them.
        EndpointError: A model brought no answer, for a reason that may pass.
        VellumforgeError: The run was told to stop, its budget is spent, or the ledger failed.
    """
    # Looked up before the first is asked: then all are asked at once, and one message names all that fail.
    unknown = [trial for trial in trials if not await _is_known(run, trial)]
    found = await all_of(_noted(run, trial) for trial in unknown)
    # What stopped the run is raised in many places.
    errors = list(dict.fromkeys(itertools.chain.from_iterable(found)))
    unusable = [error for error in errors if isinstance(error, ModelError)]
    if len(unusable) > 1:
        raise ModelError("\n".join(map(str, unusable)))
    if errors:
        raise (unusable or errors)[0]


async def _noted(run: Run, trial: Trial) -> list[VellumforgeError]:
    """What is wrong with a model; the run is stopped for it at once, so that no other question is begun."""
    try:
        await _check(run, trial)
    except VellumforgeError as error:
        run.stop.request(error)
        return [error]
    return []


async def _check(run: Run, trial: Trial) -> None:
    tries = min(MOST_TRIES, 1 + run.tries(trial.purpose))
    first = await _first_unasked(run, trial)
    for sample in range(tries):
        try:
            answer = await run.client.try_out(run.questions.small(trial.purpose, first + sample))
            check_answer(answer, trial.shape)
        except UnusableAnswerError as error:
            if sample + 1 == tries:
                raise _unusable(trial, str(error)) from error
        except AttemptError as error:
            raise _unusable(trial, _in_words(error)) from error
        except CallError as error:
            # It does answer in another form, so this was no reason to stop.
            raise EndpointError(
                f"{_name(trial)} brought no answer in the form of {trial.form}: {error}"
            ) from error
        else:
            log.debug("%s answers in the form of %s", _name(trial), trial.form)
            return


async def _first_unasked(run: Run, trial: Trial) -> int:
    """The sample of the first small question: the first whose answer is not known to be unusable."""
    sample = 0
    while True:
        some = [run.questions.small(trial.purpose, sample + more) for more in range(MOST_TRIES)]
        known = await run.client.recall(some)
        for request in some:
            answer = known[request.key]
            if answer is None:
                return sample
            try:
                check_answer(answer, trial.shape)
            except UnusableAnswerError:
                sample += 1
            else:
                return sample


async def _is_known(run: Run, trial: Trial) -> bool:
    """Whether the ledger has an answer of the model in this form that shows that it can be used."""
    small = run.questions.small(trial.purpose, 0)
    if (await run.client.recall([small]))[small.key] is not None:
        # It was asked before; where the answer is of no use, it still shows what it showed.
        return False
    roles = {
        str(purpose): _ROLES.get(purpose, "main") for purpose in Purpose if shape_of(purpose) == trial.shape
    }
    async for answer in earlier_answers(run.ledger, roles, small.endpoint, small.model):
        try:
            check_answer(answer, trial.shape)
        except UnusableAnswerError:
            continue
        return True
    return False


def _name(trial: Trial) -> str:
    return f"{trial.model.model_name} at {trial.model.base_url.rstrip('/')}"


def _in_words(error: AttemptError) -> str:
    if error.verdict is Verdict.RENEGOTIATE:
        return f"it {' '.join(getattr(error, '__notes__', ()))}: {error}"
    return str(error)


def _unusable(trial: Trial, reason: str) -> ModelError:
    # A refusal may name the model already.
    reason = reason.removeprefix(f"{_name(trial)}: ")
    return ModelError(
        f"{_name(trial)} cannot be used for {trial.form}: {reason}; nothing but small questions was paid for "
        "(execution.preflight = false leaves these out)"
    )

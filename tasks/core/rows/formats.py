"""Record formats: pure functions from a pair to the rows of its dataset, as VellumForge2 writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from tasks.core.config.settings import model_named
from tasks.core.models import GivenJob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.core.config.settings import Config
    from tasks.core.models import Job, Pair, Scores, Text

Row = dict[str, Any]
Message = dict[str, str]

CONVERSATIONS = "conversations"
HISTORY = "history"
"""The column of a row with what was said before its prompt, where that was more than a question."""
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


def rows_of(config: Config, pair: Pair) -> list[Row]:
    """The rows of a pair: two in kto, one in every other mode; their keys stand in the reference's order."""
    generation = config.generation
    match generation.dataset_mode:
        case "sft":
            rows = [_sft(pair, generation.sft_format, topics=generation.include_topic_columns)]
        case "dpo":
            rows = [_dpo(pair)]
        case "kto":
            rows = _kto(pair)
        case _:
            rows = [_mo_dpo(pair) | judges_of(config, pair)]
    return rows if not isinstance(pair.job, GivenJob) else [_given(row, pair.job) for row in rows]


def messages_before(job: Job) -> list[Message]:
    """What was said before a job's prompt, with a system prompt of its own; nothing where it has none."""
    if not isinstance(job, GivenJob):
        return []
    system = [("system", job.system)] if job.system else []
    return [{"role": role, "content": content} for role, content in (*system, *job.history)]


def asked_text(before: Iterable[str], prompt: str) -> str:
    """A prompt with what was said before it, as one text: by it, two prompts are told apart."""
    return "\n\n".join([*before, prompt])


def text_of(job: Job) -> str:
    """All that a job asks, as one text."""
    return asked_text((turn["content"] for turn in messages_before(job)), job.prompt)


def _given(row: Row, job: GivenJob) -> Row:
    """A row of a prompt of the user's own: what was said before it, and the columns that go along."""
    before = messages_before(job)
    if before and CONVERSATIONS in row:
        turns = [{"from": _SHAREGPT[turn["role"]], "value": turn["content"]} for turn in before]
        return row | {CONVERSATIONS: [*turns, *row[CONVERSATIONS]], **job.kept}
    return row | ({HISTORY: before} if before else {}) | job.kept


def lines_of(config: Config, pair: Pair) -> bytes:
    """The rows of a pair as JSON lines in UTF-8, each with its newline."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows_of(config, pair))


def candidates_line(config: Config, pair: Pair) -> bytes:
    """All answers to a prompt as one JSON line: of each its model, its scores, and what it was taken for.

    Where there are several judges, or answers are compared, it also says what each of them prefers.
    """
    sides = {id(pair.chosen): "chosen", id(pair.rejected): "rejected"}
    row: Row = {
        "prompt": pair.job.prompt,
        "candidates": [
            {
                "model": item.model,
                "number": item.number,
                "content": item.text.content,
                "reasoning": item.text.reasoning,
                "score_total": item.total,
                "scores": _scores(item.scores) if item.scores else {},
                **_totals_by_judge(item.scores),
                "choice": sides.get(id(item.text), ""),
            }
            for item in pair.candidates
        ],
        **judges_of(config, pair),
    }
    if isinstance(pair.job, GivenJob):
        row = _given(row, pair.job)
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def with_reasoning(config: Config, pair: Pair) -> Pair:
    """The pair as `dataset_reasoning.jsonl` holds it: each answer after its reasoning in think tags."""
    rejected = pair.rejected
    if rejected is not None and config.generation.reasoning_capture_rejected:
        rejected = thinking(rejected)
    return replace(pair, chosen=thinking(pair.chosen), rejected=rejected)


def thinking(text: Text) -> Text:
    """An answer after its reasoning in think tags; as it is where there is none."""
    if not text.reasoning:
        return text
    return replace(text, content=f"<think>\n{text.reasoning}\n</think>\n\n{text.content}")


def _sft(pair: Pair, sft_format: str, *, topics: bool) -> Row:
    job = pair.job
    row: Row = {"main_topic": job.main_topic, "sub_topic": job.sub_topic} if topics else {}
    if sft_format == "alpaca":
        return row | {"instruction": job.prompt, "output": pair.chosen.content}
    turns = [{"from": "human", "value": job.prompt}, {"from": "gpt", "value": pair.chosen.content}]
    return row | {CONVERSATIONS: turns}


def _dpo(pair: Pair) -> Row:
    return {"prompt": pair.job.prompt, "chosen": pair.chosen.content, "rejected": _rejected(pair)}


def _kto(pair: Pair) -> list[Row]:
    prompt = pair.job.prompt
    return [
        {"prompt": prompt, "completion": pair.chosen.content, "label": True},
        {"prompt": prompt, "completion": _rejected(pair), "label": False},
    ]


def _mo_dpo(pair: Pair) -> Row:
    chosen, rejected = pair.chosen_scores, pair.rejected_scores
    if chosen is None or rejected is None:
        raise ValueError(f"job {pair.job.id} has no scores; mo-dpo rows are made of judged pairs")
    return {
        "main_topic": pair.job.main_topic,
        "sub_topic": pair.job.sub_topic,
        **_dpo(pair),
        "chosen_scores": _scores(chosen),
        "rejected_scores": _scores(rejected),
        "chosen_score_total": chosen.total,
        "rejected_score_total": rejected.total,
        "preference_margin": chosen.total - rejected.total,
    }


def tells_judges(config: Config) -> bool:
    """Whether rows say what each judge prefers: where there are several, or answers are compared."""
    return config.judging.mode == "pairwise" or len(config.judging.models) > 1


def judges_of(config: Config, pair: Pair) -> Row:
    """What each judge says of a pair, where there are several or answers are compared; else no columns.

    `agreement` is the share of judges that prefer the chosen side, `flipped` the number of those that changed
    their mind with the order of the answers.
    """
    if pair.rejected is None or not tells_judges(config):
        return {}
    sides = (pair.chosen_scores, pair.rejected_scores)
    good, bad = (dict(scores.judges) if scores else {} for scores in sides)
    judges = [
        {
            "judge": item.judge,
            "model": judge.model_name if (judge := model_named(config, item.judge)) else "",
            "prefers": item.prefers,
            "chosen": good.get(item.judge),
            "rejected": bad.get(item.judge),
        }
        for item in pair.opinions
    ]
    compared = config.judging.mode == "pairwise"
    flipped = {"flipped": sum(item.flipped for item in pair.opinions)} if compared else {}
    return {"judges": judges, "agreement": pair.agreement} | flipped


def _totals_by_judge(scores: Scores | None) -> Row:
    """What each of several judges gave on average."""
    return {"judges": dict(scores.judges)} if scores and scores.judges else {}


def _scores(scores: Scores) -> Row:
    return {
        name: {"score": _number(item.score), "reasoning": item.reasoning}
        for name, item in scores.criteria.items()
    }


def _number(score: float) -> int | float:
    """A whole score as the whole number that VellumForge2 writes."""
    return int(score) if score.is_integer() else score


def _rejected(pair: Pair) -> str:
    if pair.rejected is None:
        raise ValueError(f"job {pair.job.id} has no rejected answer; only sft rows do without")
    return pair.rejected.content

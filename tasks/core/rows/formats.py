"""Record formats: pure functions from a pair to the rows of its dataset, as VellumForge2 writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from tasks.core.config.settings import Config
    from tasks.core.models import Pair, Scores, Text

Row = dict[str, Any]


def rows_of(config: Config, pair: Pair) -> list[Row]:
    """The rows of a pair: two in kto, one in every other mode; their keys stand in the reference's order."""
    generation = config.generation
    match generation.dataset_mode:
        case "sft":
            return [_sft(pair, generation.sft_format, topics=generation.include_topic_columns)]
        case "dpo":
            return [_dpo(pair)]
        case "kto":
            return _kto(pair)
        case _:
            return [_mo_dpo(pair)]


def lines_of(config: Config, pair: Pair) -> bytes:
    """The rows of a pair as JSON lines in UTF-8, each with its newline."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows_of(config, pair))


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
    return row | {"conversations": turns}


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

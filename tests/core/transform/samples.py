"""Rows in every form that a transform takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]

ANSWER = "The lamp was lit before the fog came in, and nobody on the quay thanked the keeper for it."
OTHER = "A lamp was on."
SCORES = {"plot": {"score": 4, "reasoning": "It holds."}}


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def model(text: str, **more: str) -> Row:
    return {"role": "assistant", "content": text, **more}


def sharegpt(prompt: str, **topics: str) -> Row:
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": ANSWER}]
    return {**topics, "conversations": turns}


def alpaca(prompt: str, **more: str) -> Row:
    return {"instruction": prompt, **more, "output": ANSWER}


def dpo(prompt: str) -> Row:
    return {"prompt": prompt, "chosen": ANSWER, "rejected": OTHER}


def kto(prompt: str, *, label: bool) -> Row:
    return {"prompt": prompt, "completion": ANSWER if label else OTHER, "label": label}


def mo_dpo(prompt: str) -> Row:
    return {
        "main_topic": "The sea",
        "sub_topic": "Lamps",
        **dpo(prompt),
        "chosen_scores": SCORES,
        "rejected_scores": SCORES,
        "chosen_score_total": 4.0,
        "rejected_score_total": 4.0,
        "preference_margin": 0.0,
    }


TRL_SFT = [
    {"messages": [user("p"), model(ANSWER)]},
    {"messages": [{"role": "system", "content": "Be brief."}, user("p"), model(ANSWER)]},
    {"prompt": [user("p")], "completion": [model(ANSWER)]},
    {"prompt": "p", "completion": ANSWER},
]
TRL_DPO = [
    {"prompt": [user("p")], "chosen": [model(ANSWER)], "rejected": [model(OTHER)]},
    {"chosen": [user("p"), model(ANSWER)], "rejected": [user("p"), model(OTHER)]},
]
TRL_KTO = [{"prompt": [user("p")], "completion": [model(ANSWER)], "label": True}]


def write(path: Path, *rows: Row | str) -> Path:
    """Write rows as JSON lines; a text is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path

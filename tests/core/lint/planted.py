"""Dataset files made by hand: rows without a defect in each mode, for defects to be planted in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.core.lint.linter import lint_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.core.lint.report import Report

Row = dict[str, Any]

NAMES = (
    "Agnes",
    "Bertram",
    "Cora",
    "Dietrich",
    "Edith",
    "Fabian",
    "Greta",
    "Henrik",
    "Irma",
    "Jasper",
    "Klara",
    "Lorenz",
    "Mathilda",
    "Nestor",
)


def pair(number: int, **changed: Any) -> Row:
    """A row of dpo without a defect; now one side is longer, now the other."""
    name = NAMES[number % len(NAMES)]
    other = NAMES[(number * 5 + 3) % len(NAMES)]
    sides = [
        f"{name} went down to the harbour at dusk, and the {number}th lamp was lit before any ship was seen.",
        f"Nobody had told {other} about the storm. It came all the same, and {number} boats were lost in it!",
    ]
    if number % 2:
        sides = [f"{sides[1]} {name} knew.", sides[0]]
    else:
        sides[1] += " That was all of it."
    return {"prompt": f"Tell of night no. {number}.", "chosen": sides[0], "rejected": sides[1]} | changed


def clean(mode: str, count: int = 40) -> list[Row]:
    """Rows of a mode without a defect; `mode` is a dataset mode, with sft's format in place of `sft`."""
    pairs = [pair(number) for number in range(count)]
    match mode:
        case "alpaca":
            return [{"instruction": row["prompt"], "output": row["chosen"]} for row in pairs]
        case "sharegpt":
            return [
                {
                    "conversations": [
                        {"from": "human", "value": row["prompt"]},
                        {"from": "gpt", "value": row["chosen"]},
                    ]
                }
                for row in pairs
            ]
        case "kto":
            return [
                {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
                for row in pairs
                for side in ("chosen", "rejected")
            ]
        case "mo-dpo":
            # The margins know nothing of the lengths, which change from row to row.
            return [judged(row, 1 + number // 2 % 2) for number, row in enumerate(pairs)]
        case _:
            return pairs


def judged(row: Row, margin: float) -> Row:
    """The row with a judge's margin."""
    totals = {"chosen_score_total": 3 + margin, "rejected_score_total": 3, "preference_margin": margin}
    return {"main_topic": "Nights", "sub_topic": "Harbours"} | row | totals


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Write a dataset file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def lint(folder: Path, rows: Sequence[Row], *, max_tokens: int | None = None) -> Report:
    """What lint finds in a file of these rows."""
    return lint_file(write(folder / "dataset.jsonl", rows), max_tokens=max_tokens)


def found(report: Report) -> dict[str, list[int]]:
    """The rows that are shown as examples, by check; all of them, as long as there are three at most."""
    return {item.check: [example.row for example in item.examples] for item in report.findings}

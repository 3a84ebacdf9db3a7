"""Datasets for the Hub: an export of Parquet files made by hand, and the facts of its card."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.config.load import load_config
from tasks.core.cost import Bill, Prices, Usage
from tasks.core.export.rows import Exported, ExportedFile, path_of
from tasks.core.hub.card import CardFacts

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.config.settings import Config

REPO = "ada/tides"

Spread = dict[tuple[str, str], list[int]]
"""Configuration and split to the rows of each of its files."""

SPREAD: Spread = {("native", "train"): [4], ("dpo", "train"): [30, 20], ("dpo", "test"): [7]}


def exported(folder: Path, spread: Spread = SPREAD, mark: str = "") -> Exported:
    """Files with so many rows; `mark` stands in each of them."""
    files = []
    for (configuration, split), shards in spread.items():
        for number, count in enumerate(shards):
            name = path_of(configuration, split, number, len(shards), "parquet")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            said = f"{mark} {split} {number}"
            rows = [{"prompt": f"{said} {row}", "chosen": "yes", "rejected": "no"} for row in range(count)]
            pq.write_table(pa.Table.from_pylist(rows), path)
            files.append(ExportedFile(name, configuration, split, count, path.stat().st_size))
    return Exported(folder, tuple(files))


def config_of(text: str = "", **settings: Any) -> Config:
    """A small configuration; `settings` by dotted key, with `__` for each dot."""
    base = {
        "generation.main_topic": "Tides",
        "generation.num_subtopics": 2,
        "generation.num_prompts_per_subtopic": 3,
        "generation.dataset_mode": "dpo",
        "models.main.base_url": "https://llm.example.com:8443/v1",
        "models.main.model_name": "strong-model",
        "models.rejected.base_url": "http://127.0.0.1:8000/v1",
        "models.rejected.model_name": "weak-model",
    }
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return load_config(None, text=text, overrides=base | given, environ={}).config


def facts_of(files: Exported, config: Config | None = None, **more: Any) -> CardFacts:
    """What is known of a dataset of this configuration."""
    bill = Bill()
    bill.add("strong-model", "chosen", Usage(6, 1_200, 3_400))
    bill.add("weak-model", "rejected", Usage(6, 600, 900))
    config = config or config_of()
    known: dict[str, Any] = {
        "repo": REPO,
        "license": "",
        "config": config,
        "created": 1_769_860_800.0,
        "complete": True,
        "exported": files,
        "bill": bill,
        "prices": Prices(config.pricing),
        "failures": {},
        "lint": None,
        "version": "9.8.7",
        "environ": {},
    }
    return CardFacts(**(known | more))


HALF = Decimal("0.5")

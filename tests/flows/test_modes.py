"""Each mode's dataset: its rows, their number, and what else is in the session folder."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.command import TIMEOUT, User, config, model, rows_of

if TYPE_CHECKING:
    from pathlib import Path

SUBTOPICS, PROMPTS = 3, 4
JOBS = SUBTOPICS * PROMPTS
FILTERED = """
[judge_filtering]
enabled = true
min_chosen_score = 3.9
max_rejected_score = 2.4
"""
CASES: dict[str, dict[str, Any]] = {
    "sft sharegpt": {"mode": "sft"},
    "sft alpaca": {
        "mode": "sft",
        "generation": 'sft_format = "alpaca"\ninclude_topic_columns = false',
    },
    "dpo": {"mode": "dpo"},
    "kto": {"mode": "kto"},
    "mo-dpo": {"mode": "mo-dpo"},
    "dpo filtered": {"mode": "dpo", "more": FILTERED},
}
KEYS = {
    "sft sharegpt": ["main_topic", "sub_topic", "conversations"],
    "sft alpaca": ["instruction", "output"],
    "dpo": ["prompt", "chosen", "rejected"],
    "kto": ["prompt", "completion", "label"],
    "mo-dpo": [
        "main_topic",
        "sub_topic",
        "prompt",
        "chosen",
        "rejected",
        "chosen_scores",
        "rejected_scores",
        "chosen_score_total",
        "rejected_score_total",
        "preference_margin",
    ],
    "dpo filtered": ["prompt", "chosen", "rejected"],
}
LOADER = """
import json, sys, datasets
datasets.disable_progress_bars()
load = lambda file: datasets.load_dataset("json", data_files=file, cache_dir=sys.argv[1], split="train")
json.dump([load(file).num_rows for file in sys.argv[2:]], sys.stdout)
"""


@dataclass(frozen=True)
class Made:
    """A finished session, its configuration file, and the summary."""

    session: Path
    text: str
    summary: dict[str, Any]

    @property
    def checkpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.session / "checkpoint.json").read_text())
        return found

    @property
    def filtered(self) -> int:
        """Pairs that thresholds kept out; nothing else yielded no usable pair."""
        assert self.summary["lost"].keys() <= {"filtered"}
        found: int = self.summary["lost"].get("filtered", 0)
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> dict[str, Made]:
    """A session of each case, two at a time: mostly they wait."""
    folder = tmp_path_factory.mktemp("modes")
    with model() as server, ThreadPoolExecutor(2) as pool:
        users = {name: User.made(folder / name, PREFECT_API_URL=prefect_url) for name in CASES}
        texts = {
            name: config(server.url, subtopics=SUBTOPICS, prompts=PROMPTS, **case)
            for name, case in CASES.items()
        }
        for name, user in users.items():
            user.write("config.toml", texts[name])
        runs = {
            name: pool.submit(user.run, "--json", PREFECT_HOME=str(user.home / "prefect"))
            for name, user in users.items()
        }
        ends = {name: run.result() for name, run in runs.items()}
    assert {name: (ended.code, ended.err) for name, ended in ends.items()} == dict.fromkeys(CASES, (0, ""))
    return {name: Made(users[name].sessions()[0], texts[name], ended.summary) for name, ended in ends.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_rows_have_exactly_the_keys_of_their_mode(made: dict[str, Made], name: str) -> None:
    rows = rows_of(made[name].session)
    assert [list(row) for row in rows] == [KEYS[name]] * len(rows)
    filtered = made[name].filtered
    assert len(rows) == made[name].summary["rows"] == (JOBS - filtered) * (2 if name == "kto" else 1)
    assert 0 < filtered < JOBS if name == "dpo filtered" else filtered == 0


@pytest.mark.parametrize("name", CASES)
def test_the_folder_says_that_the_session_is_complete(made: dict[str, Made], name: str) -> None:
    session, checkpoint = made[name].session, made[name].checkpoint
    assert (session / "config.toml.bak").read_text() == made[name].text
    assert checkpoint["current_phase"] == "complete"
    assert checkpoint["completed_job_ids"] == {str(job): True for job in range(JOBS)}
    assert len(checkpoint["subtopics"]) == SUBTOPICS
    assert [job["ID"] for job in checkpoint["prompts"]] == list(range(JOBS))
    stats, filtered = checkpoint["stats"], made[name].filtered
    assert stats["TotalPrompts"] == JOBS
    assert (stats["SuccessCount"], stats["FilteredCount"]) == (JOBS - filtered, filtered)
    entries = [json.loads(line) for line in (session / "session.log").read_text().splitlines()]
    assert entries
    assert {frozenset(entry) for entry in entries} == {frozenset({"time", "level", "logger", "message"})}


def test_rows_say_what_their_columns_promise(made: dict[str, Made]) -> None:
    sft = rows_of(made["sft sharegpt"].session)
    assert [[turn["from"] for turn in row["conversations"]] for row in sft] == [["human", "gpt"]] * JOBS
    kto = rows_of(made["kto"].session)
    assert [row["label"] for row in kto] == [True, False] * JOBS
    assert [row["prompt"] for row in kto[::2]] == [row["prompt"] for row in kto[1::2]]
    for row in rows_of(made["mo-dpo"].session):
        for side in ("chosen", "rejected"):
            scores = row[f"{side}_scores"]
            assert list(scores) == ["plot_quality", "creativity", "writing_quality"]
            assert all(1 <= item["score"] <= 5 and item["reasoning"] for item in scores.values())
            average = sum(item["score"] for item in scores.values()) / len(scores)
            assert row[f"{side}_score_total"] == average
        assert row["preference_margin"] == row["chosen_score_total"] - row["rejected_score_total"]


def test_rows_stand_in_the_order_of_jobs(made: dict[str, Made]) -> None:
    prompts = [job["Prompt"] for job in made["dpo"].checkpoint["prompts"]]
    assert [row["prompt"] for row in rows_of(made["dpo"].session)] == prompts
    assert [row["instruction"] for row in rows_of(made["sft alpaca"].session)] == prompts
    kept = [row["prompt"] for row in rows_of(made["dpo filtered"].session)]
    assert kept == [prompt for prompt in prompts if prompt in kept]


def test_every_dataset_is_read_by_the_datasets_library(made: dict[str, Made], tmp_path: Path) -> None:
    user = User.made(tmp_path, HF_HOME=str(tmp_path / "hub"), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    files = [str(case.session / "dataset.jsonl") for case in made.values()]
    loaded = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path / "cache"), *files],
        env=user.environment,
        cwd=user.folder,
        timeout=TIMEOUT,
        check=True,
        stdout=subprocess.PIPE,
    )
    assert json.loads(loaded.stdout) == [case.summary["rows"] for case in made.values()]

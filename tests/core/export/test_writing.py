"""Exported files: rows, schemas, shards, row groups; the same bytes from the same pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tasks.core.errors import SessionError, UsageError
from tasks.core.export.shards import Bounds
from tasks.core.export.writing import Spool, Wanted, write_export
from tasks.core.models import Job, Pair, Score, Scores, Text
from tasks.core.rows.formats import rows_of, with_reasoning
from tasks.core.session.exporting import export_to
from tests.core.running import configured
from tests.core.session.full_disk import no_file_larger_than

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.core.config.settings import DatasetMode, FileType, OutputFormat, Reasoning
    from tasks.core.export.rows import Exported

SYSTEM = "You write about {{.SubTopic}}."
HOSTILE = '"\u2028\\ \U0001f9d9<script>\x1b[2J\u202e</think> <|im_end|>\n'


def pair(number: int, size: int = 0) -> Pair:
    scores = Scores({"plot": Score(4.0, "Good."), f"style {number % 2}": Score(3.5, "")})
    job = Job(number, "The sea", f"subtopic {number % 5}", f"prompt {number}{HOSTILE}")
    filler = "".join(Random(number).choices("abcdefghij ", k=size))
    reasoning = "" if number % 3 else f"thought {number}"
    return Pair(job, Text(f"good {number}{filler}", reasoning), Text(HOSTILE), scores, scores)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    (tmp_path / "spool").mkdir()
    with Spool(tmp_path / "spool") as made:
        yield made


def wanted(
    mode: DatasetMode,
    output_format: OutputFormat = "trl",
    *,
    file_type: FileType = "parquet",
    reasoning: Reasoning = "none",
    test_share: float = 0.0,
    **settings: Any,
) -> Wanted:
    config = configured(
        generation__dataset_mode=mode, prompt_templates__chosen_system_prompt=SYSTEM, **settings
    )
    return Wanted(config, output_format, file_type, reasoning, test_share, seed=0)


def rows_in(exported: Exported, configuration: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in exported.of(configuration):
        path = exported.folder / file.path
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        else:
            rows = pq.read_table(path).to_pylist()
        assert (len(rows), path.stat().st_size) == (file.rows, file.size)
        found += rows
    return found


def said(role: str, content: str, **more: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content, **more}]


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
def test_rows_are_those_that_trainers_take(spool: Spool, tmp_path: Path, file_type: FileType) -> None:
    one = pair(3)
    spool.add(one)
    prompt = said("system", "You write about subtopic 3.") + said("user", one.job.prompt)
    thinking = "<think>\nthought 3\n</think>\n\ngood 3"
    forms: dict[Reasoning, tuple[list[dict[str, str]], list[dict[str, str]]]] = {
        "none": (said("assistant", "good 3"), said("assistant", HOSTILE)),
        "inline": (said("assistant", thinking), said("assistant", HOSTILE)),
        "reasoning_content": (
            said("assistant", "good 3", reasoning_content="thought 3"),
            said("assistant", HOSTILE, reasoning_content=""),
        ),
    }
    for reasoning, (chosen, rejected) in forms.items():
        found: dict[str, Any] = {}
        for mode in ("sft", "dpo", "kto", "mo-dpo"):
            folder = tmp_path / f"{reasoning}-{mode}"
            folder.mkdir()
            made = write_export(spool, wanted(mode, file_type=file_type, reasoning=reasoning), folder)
            found |= {configuration: rows_in(made, configuration) for configuration in made.rows}
        dpo = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        (messages,) = found["sft"]
        # In Parquet all messages of a list have the same fields.
        assert [{k: v for k, v in message.items() if v is not None} for message in messages["messages"]] == [
            *prompt,
            *chosen,
        ]
        assert found["sft-prompt-completion"] == [{"prompt": prompt, "completion": chosen}]
        assert found["dpo"] == [dpo]
        assert sorted(found["kto"], key=lambda row: row["label"]) == [
            {"prompt": prompt, "completion": rejected, "label": False},
            {"prompt": prompt, "completion": chosen, "label": True},
        ]
        (scores,) = found["scores"]
        criteria = [
            {"criterion": "plot", "score": 4.0, "reasoning": "Good."},
            {"criterion": "style 1", "score": 3.5, "reasoning": ""},
        ]
        assert scores == dpo | {
            "main_topic": "The sea",
            "sub_topic": "subtopic 3",
            "chosen_scores": criteria,
            "rejected_scores": criteria,
            "chosen_score_total": 3.75,
            "rejected_score_total": 3.75,
            "preference_margin": 0.0,
        }


@pytest.mark.parametrize("mode", ["sft", "dpo", "kto", "mo-dpo"])
def test_native_rows_are_those_of_the_session(spool: Spool, tmp_path: Path, mode: DatasetMode) -> None:
    pairs = [pair(number) for number in range(0, 12, 2)]
    for each in pairs:
        spool.add(each)
    for reasoning in ("none", "inline"):
        for file_type in ("jsonl", "parquet"):
            order = wanted(
                mode,
                "native",
                file_type=file_type,
                reasoning=reasoning,
                generation__reasoning_capture_rejected=True,
            )
            folder = tmp_path / f"{reasoning}-{file_type}"
            folder.mkdir()
            made = [with_reasoning(order.config, each) if reasoning == "inline" else each for each in pairs]
            assert rows_in(write_export(spool, order, folder), "native") == [
                row for each in made for row in rows_of(order.config, each)
            ]
    with pytest.raises(UsageError, match="native rows have no field"):
        wanted(mode, "native", reasoning="reasoning_content").check()


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
def test_files_are_bounded_and_the_same_whatever_the_order_of_pairs(
    tmp_path: Path, file_type: FileType
) -> None:
    bounds = Bounds(shard_bytes=12_000, group_rows=7, group_bytes=10_000)
    contents = []
    for order in (1, 2):
        pairs = [pair(number, size=1_000) for number in range(60)]
        Random(order).shuffle(pairs)
        folder = tmp_path / str(order)
        folder.mkdir()
        with Spool(tmp_path) as spool:
            for each in (*pairs, pairs[0]):
                spool.add(each)
            made = write_export(spool, wanted("kto", file_type=file_type, test_share=0.2), folder, bounds)
        contents.append({file.path: (folder / file.path).read_bytes() for file in made.files})
    assert contents[0] == contents[1]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == sorted(contents[0])

    train, test = ([file for file in made.files if file.split == split] for split in ("train", "test"))
    assert len(train) > 2
    assert [file.path for file in train] == [
        f"data/kto/train-{number:05}-of-{len(train):05}.{file_type}" for number in range(len(train))
    ]
    assert (sum(file.rows for file in train), sum(file.rows for file in test)) == (96, 24)
    assert made.rows == {"kto": 120}
    assert all(12_000 <= file.size < 20_000 for file in train[:-1])
    prompts = [{row["prompt"][1]["content"] for row in rows_in(made, "kto")[half]} for half in _halves(96)]
    assert not prompts[0] & prompts[1]
    if file_type == "parquet":
        metadata = [pq.read_metadata(folder / file.path) for file in train]
        groups = [found.row_group(place) for found in metadata for place in range(found.num_row_groups)]
        assert max(group.num_rows for group in groups) <= 7
        assert len({found.schema.to_arrow_schema() for found in metadata}) == 1


def _halves(first: int) -> tuple[slice, slice]:
    return slice(None, first), slice(first, None)


def test_a_judge_with_too_many_criteria_is_told_what_to_take(spool: Spool, tmp_path: Path) -> None:
    many = Scores({f"criterion {number}": Score(3.0, "") for number in range(300)})
    spool.add(Pair(pair(0).job, Text("yes"), Text("no"), many, many))
    with pytest.raises(UsageError, match="300 criteria, too many for columns of Parquet; take --jsonl"):
        write_export(spool, wanted("mo-dpo", "native"), tmp_path)
    (tmp_path / "trl").mkdir()
    made = write_export(spool, wanted("mo-dpo"), tmp_path / "trl")
    assert len(rows_in(made, "scores")[0]["chosen_scores"]) == 300


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
def test_a_full_disk_leaves_the_export_that_was_there(
    spool: Spool, tmp_path: Path, file_type: FileType
) -> None:
    target = tmp_path / "export"
    for number in range(40):
        spool.add(pair(number, size=2_000))
    order = wanted("dpo", file_type=file_type)
    export_to(target, spool, order)
    before = {path: path.read_bytes() for path in target.rglob("*.*")}
    with no_file_larger_than(10_000), pytest.raises(SessionError, match="cannot be written"):
        export_to(target, spool, order)
    assert {path: path.read_bytes() for path in target.rglob("*.*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "spool"]
    with Spool(tmp_path) as small, no_file_larger_than(1_000), pytest.raises(SessionError, match="room"):
        small.add(pair(0, size=100_000))


def test_pyarrow_is_brought_by_parquet_alone() -> None:
    modules = (
        "flows.commands.app, flows.commands.dataset, tasks.core.session.exporting, tasks.core.session.session"
    )
    source = f"import sys, {modules}; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False, timeout=60).returncode == 0

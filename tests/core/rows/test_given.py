"""Prompts of one's own: each kind of file, line for line, and what is wrong with lines that are none."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.config.settings import Input
from tasks.core.errors import UsageError
from tasks.core.models import GivenJob, Pair, Purpose, Score, Scores, Text
from tasks.core.questions import Questions, purposes_of
from tasks.core.rows.formats import rows_of, text_of
from tasks.core.rows.given import read_prompts
from tasks.core.session.adoption import pack_jobs, unpack_jobs
from tests.core.running import configured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tasks.core.models import Job

COUNT = 1_000
ROWS = [
    {"prompt": f'What is {number} · 7, "in words"?\nAnd why?', "id": number, "of": {"a": [number]}}
    for number in range(COUNT)
]
TALK = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Who keeps the lamp?"},
    {"role": "assistant", "content": "The keeper."},
    {"role": "user", "content": "And by day?"},
]


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "prompt"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    found = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), found)
    return found.getvalue()


def pair_of(job: Job) -> Pair:
    scores = Scores({"style": Score(4.0, "")})
    return Pair(job, Text("good"), Text("bad"), scores, scores)


KINDS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {
    ".txt": lambda rows: "".join(row["prompt"].replace("\n", " ") + "\n" for row in rows).encode(),
    ".jsonl": lambda rows: b"".join(orjson.dumps(row) + b"\n" for row in rows),
    ".json": orjson.dumps,
    ".csv": as_csv,
    ".parquet": as_parquet,
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_gives_its_prompts_in_their_order(
    tmp_path: Path, kind: str, *, packed: bool
) -> None:
    path = tmp_path / f"mine.1{kind}{'.gz' * packed}"
    content = KINDS[kind](ROWS)
    path.write_bytes(gzip.compress(content) if packed else content)
    keep = [] if kind == ".txt" else ["id"] if kind == ".csv" else ["id", "of"]
    found = read_prompts(Input(prompts=str(path), keep_columns=keep), "mine")
    asked = [str(row["prompt"]).replace("\n", " " if kind == ".txt" else "\n") for row in ROWS]
    assert [job.prompt for job in found.jobs] == asked
    as_text = str if kind == ".csv" else lambda value: value
    assert [job.kept for job in found.jobs] == [{name: as_text(row[name]) for name in keep} for row in ROWS]
    first, step = {".csv": (2, 2)}.get(kind, (1, 1))
    assert [job.id for job in found.jobs] == list(range(first, first + step * COUNT, step))


def test_all_bad_lines_are_named_at_once_with_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    bad = {
        2: (b"{", "it is no JSON"),
        4: (b'{"question": "a", "id": 1}', "it has no column 'prompt'; it has question, id"),
        6: (b'{"prompt": "  "}', "its prompt is blank"),
        8: (b"17", "it is neither a text nor an object with columns"),
        10: (b'{"prompt": 5}', "prompt is neither a text nor a list of messages"),
        12: (b'{"prompt": []}', "prompt does not end with a turn of the user"),
        14: (orjson.dumps({"prompt": TALK[:3]}), "prompt does not end with a turn of the user"),
        16: (b'{"prompt": [{"role": "tool", "content": "x"}]}', "prompt holds a message of 'tool'"),
        18: (b'{"prompt": "a", "system": 3}', "system is no text"),
        19: (b'{"prompt": "a", "id": 123456789012345678901234567890}', "id cannot be kept as JSON"),
        20: (b"\xff\xfe", "it is no JSON"),
    }
    lines = [bad.get(number, (b'{"prompt": "good %d"}' % number, ""))[0] for number in range(1, 22)]
    path.write_bytes(b"\n".join(lines))
    wanted = Input(prompts=str(path), system_column="system", keep_columns=["id"])
    with pytest.raises(UsageError) as refused:
        read_prompts(wanted, "mine")
    said = str(refused.value).splitlines()
    assert len(said) == len(bad)
    for line, (number, (_, reason)) in zip(said, bad.items(), strict=True):
        assert line.startswith(f"{path}:{number}: {reason}")
    assert said[-1].endswith("; --skip-bad leaves bad lines out")
    found = read_prompts(wanted.model_copy(update={"skip_bad": True}), "mine")
    assert found.skipped == f"11 lines are no prompts and are left out; the first is {said[0]}"
    assert [job.id for job in found.jobs] == [number for number in range(1, 22) if number not in bad]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("mine.xlsx", b"x", "is of no kind that holds prompts: .txt, .jsonl, .json, .csv, .parquet"),
        ("mine.gz", b"x", "is of no kind that holds prompts"),
        ("mine.jsonl", b"\n\n", "holds no prompts"),
        ("mine.txt.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("mine.txt.gz", gzip.compress(b"a\nb\n" * 999, mtime=0)[:-20], "cannot be read: its end is missing"),
        ("mine.json", b'{"prompt": "a"}', "is no JSON array of prompts or rows"),
        ("mine.json", b'["a",\n"b"', "is no JSON: EOF while parsing a list at line 2"),
        ("mine.csv", b"prompt,id,id\na,1,2\n", "names the column 'id' twice"),
        ("mine.csv", b'prompt\n"a\nb', "cannot be read as CSV from line 2 on"),
        ("mine.csv", b"prompt\na\n\xff\n", "is not UTF-8 text"),
        ("mine.parquet", b"PAR1 and nothing else", "cannot be read as Parquet after row 0"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_one_line(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_prompts(Input(prompts=str(path)), "mine")
    assert str(refused.value).startswith(f"{path} {reason}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_none_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path / "folder.txt"):
        (tmp_path / "folder.txt").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=r"txt cannot be read: (No such file|Is a directory)"):
            read_prompts(Input(prompts=str(path)), "mine")


def test_rows_of_a_table_have_as_many_fields_as_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('\ufeffprompt,id\n"two\nlines",1\n\nshort\nmore,2,3\nlast,4\n', encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_prompts(Input(prompts=str(path)), "mine")
    assert [line.partition(": ")[0] for line in str(refused.value).splitlines()] == [f"{path}:5", f"{path}:6"]
    found = read_prompts(Input(prompts=str(path), skip_bad=True), "mine")
    assert [(job.id, job.prompt) for job in found.jobs] == [(2, "two\nlines"), (7, "last")]


def test_equal_prompts_count_once_and_near_ones_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    same = "Write a short story about a keeper who finds a letter in a bottle on the beach"
    path.write_text(f"{same}.\n{same}.\n{same}!\n{same} once.\nWhat is a tide?\n")
    found = read_prompts(Input(prompts=str(path)), "mine")
    assert ([job.id for job in found.jobs], found.dropped) == ([1, 3, 4, 5], {"duplicate": 1})
    found = read_prompts(Input(prompts=str(path)), "mine", threshold=0.7)
    assert [job.id for job in found.jobs] == [1, 5]
    assert found.dropped == {"duplicate": 2, "near_duplicate": 1}


def test_the_file_is_the_one_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a\n")
    digest = read_prompts(Input(prompts=str(path)), "mine").digest
    assert read_prompts(Input(prompts=str(path), sha256=digest), "mine").digest == digest
    path.write_text("b\n")
    with pytest.raises(UsageError, match=r"is not the file whose SHA-256 input\.sha256 names"):
        read_prompts(Input(prompts=str(path), sha256=digest), "mine")


@pytest.mark.parametrize("column", ["prompt", "messages"])
def test_a_conversation_goes_to_the_models_as_it_is(tmp_path: Path, column: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({column: TALK}) + "\n" + json.dumps({"prompt": "Alone", "with": "Be kind."}))
    wanted = Input(prompts=str(path), system_column="with")
    talk, alone = read_prompts(wanted, "mine").jobs
    settings = {
        "input__prompts": str(path),
        "prompt_templates__chosen_generation": "Question: {{.Prompt}}",
        "prompt_templates__rejected_system_prompt": "Of the template.",
        "prompt_templates__judge_rubric": "{{.Prompt}} {{.StoryText}}",
    }
    questions = Questions(configured(**settings))
    last = {"role": "user", "content": "Question: And by day?"}
    assert questions.chosen(talk, 0).body()["messages"] == [*TALK[:3], last]
    asked = questions.rejected(talk, 0).body()["messages"]
    assert [turn["role"] for turn in asked] == ["system", "user", "assistant", "user"]
    assert asked[0]["content"] == "You are terse."
    assert questions.rejected(alone, 0).messages[0] == ("system", "Be kind.")
    judged = questions.judge(talk, "At dusk.", 0, explain=False).messages[-1][1]
    assert "user: Who keeps the lamp?\n\nassistant: The keeper.\n\nuser: And by day?" in judged
    assert text_of(talk).endswith("The keeper.\n\nAnd by day?")


@pytest.mark.parametrize("mode", ["sft", "dpo", "kto", "mo-dpo"])
def test_rows_hold_what_was_said_before_and_the_kept_columns(mode: str) -> None:
    history = (("user", "Who keeps the lamp?"), ("assistant", "The keeper."))
    job = GivenJob(
        7, "mine", "", "And by day?", system="Be terse.", history=history, kept={"id": 7, "x": None}
    )
    config = configured(generation__dataset_mode=mode, generation__include_topic_columns=False)
    for row in rows_of(config, pair_of(job)):
        assert (row["id"], row["x"]) == (7, None)
        if mode == "sft":
            roles = [turn["from"] for turn in row["conversations"]]
            assert roles == ["system", "human", "gpt", "human", "gpt"]
        else:
            assert row["prompt"] == "And by day?"
            assert [turn["role"] for turn in row["history"]] == ["system", "user", "assistant"]
    plain = rows_of(config, pair_of(GivenJob(7, "mine", "", "Alone", kept={})))
    assert all("history" not in row for row in plain)


def test_only_what_prompts_of_ones_own_need_is_asked() -> None:
    config = configured(input__prompts="mine.txt")
    assert purposes_of(config) == (Purpose.CHOSEN, Purpose.REJECTED)
    config = configured(input__subtopics=["a", "b"])
    assert Purpose.SUBTOPICS not in purposes_of(config)
    assert Purpose.PROMPTS in purposes_of(config)


def test_a_column_that_no_row_has_is_said_and_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "id": 1}\n{"prompt": "b", "system": "Be kind."}\n')
    for given, name in (({"system_column": "sytem"}, "sytem"), ({"keep_columns": ["id", "idd"]}, "idd")):
        with pytest.raises(UsageError) as refused:
            read_prompts(Input.model_validate({"prompts": str(path), **given}), "mine")
        assert str(refused.value) == f"{path} has no column {name!r} in any row; it has id, prompt, system"
    found = read_prompts(Input(prompts=str(path), keep_columns=["id"], system_column="system"), "mine")
    assert [(job.kept["id"], job.system) for job in found.jobs] == [(1, ""), (None, "Be kind.")]


def test_of_parquet_only_what_is_asked_for_is_read_and_times_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "broken": pa.array([2**62, 2], pa.timestamp("us")),
            "at": pa.array([1_700_000_000_123_456_789, 0], pa.timestamp("ns")),
        }
    )
    pq.write_table(table, path)
    assert len(read_prompts(Input(prompts=str(path)), "mine").jobs) == 2
    found = read_prompts(Input(prompts=str(path), keep_columns=["at"]), "mine").jobs
    assert [str(job.kept["at"])[:19] for job in found] == ["2023-11-14T22:13:20", "1970-01-01T00:00:00"]
    with pytest.raises(UsageError, match="cannot be read as Parquet after row 0"):
        read_prompts(Input(prompts=str(path), keep_columns=["broken"]), "mine")
    with pytest.raises(UsageError, match="has no column 'question'; it has prompt, broken, at"):
        read_prompts(Input(prompts=str(path), prompt_column="question"), "mine")


def test_what_is_kept_comes_back_from_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"

    def nested(levels: int) -> str:
        return "[" * levels + "]" * levels

    path.write_text(f'{{"prompt": "a", "k": {nested(100)}}}\n{{"prompt": "b", "k": {nested(195)}}}\n')
    wanted = Input(prompts=str(path), keep_columns=["k"], skip_bad=True)
    found = read_prompts(wanted, "mine")
    assert "mine.jsonl:2: k cannot be kept as JSON" in found.skipped
    assert unpack_jobs(pack_jobs((), found.jobs))[1] == found.jobs

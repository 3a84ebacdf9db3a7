"""Rows of every form, in JSONL and Parquet, and lines that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import UsageError
from tasks.core.rows.samples import BadLine
from tasks.core.rows.transformed import MODES, InputRow, find_mode
from tasks.core.transform.reading import Source, check_input
from tests.core.transform.samples import (
    ANSWER,
    OTHER,
    TRL_DPO,
    TRL_KTO,
    TRL_SFT,
    alpaca,
    dpo,
    kto,
    mo_dpo,
    model,
    sharegpt,
    user,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, mode: str = "add-reasoning") -> list[InputRow | BadLine]:
    return list(Source(find_mode(mode), path, None).read())


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (sharegpt("p"), "sft"),
        (alpaca("p"), "sft"),
        *((row, "sft") for row in TRL_SFT),
        (dpo("p"), "dpo"),
        *((row, "dpo") for row in TRL_DPO),
        (kto("p", label=True), "kto"),
        *((row, "kto") for row in TRL_KTO),
        (mo_dpo("p"), "mo-dpo"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_every_form_is_read(tmp_path: Path, row: dict[str, Any], kind: str, form: str) -> None:
    path = tmp_path / "rows"
    if form == "jsonl":
        write(path, row)
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    found = read(path)[0]
    assert isinstance(found, InputRow), found
    assert found.chosen is not None
    assert (found.kind, found.prompt, found.chosen.content) == (kind, "p", ANSWER)
    assert (found.rejected.content if found.rejected else None) == (OTHER if "dpo" in kind else None)


def test_an_alpaca_rows_input_stands_below_its_instruction(tmp_path: Path) -> None:
    found = read(write(tmp_path / "rows", alpaca("p", input="context")))[0]
    assert isinstance(found, InputRow)
    assert found.prompt == "p\n\ncontext"


def test_places_count_rows_and_lines_count_lines(tmp_path: Path) -> None:
    entries = read(write(tmp_path / "rows", dpo("a"), "", "{", dpo("b")))
    assert [type(entry) for entry in entries] == [InputRow, BadLine, InputRow]
    places = [(entry.place, entry.line) for entry in entries if isinstance(entry, InputRow)]
    assert places == [(0, 1), (1, 4)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "no row of"),
        ({"prompt": " ", "completion": ANSWER}, "prompt is blank"),
        ({"prompt": "p", "completion": ""}, "chosen answer is blank"),
        ({"prompt": 3, "completion": ANSWER}, "prompt is neither"),
        ({"prompt": "p", "chosen": ANSWER}, "rejected is missing"),
        ({"prompt": "p", "completion": ANSWER, "label": "true"}, "label is neither"),
        ({"messages": [user("p")]}, "does not end with an answer"),
        ({"messages": [user("p"), model("a"), user("q"), model("b")]}, "3 turns"),
        ({"conversations": [{"from": "human"}]}, "without a role or a text"),
        (
            {"chosen": [user("p"), model("a")], "rejected": [user("q"), model("b")]},
            "chosen and rejected begin differently",
        ),
    ],
)
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, row: Any, reason: str) -> None:
    path = write(tmp_path / "rows", dpo("a"), row)
    bad = read(path)[1]
    assert isinstance(bad, BadLine)
    assert reason in bad.reason
    source = Source(find_mode("add-reasoning"), path, None)
    with pytest.raises(UsageError, match=rf"rows:2: .*{reason}"):
        check_input(source, skip_bad=False)
    found = check_input(source, skip_bad=True)
    assert (found.rows, found.bad) == (1, 1)


@pytest.mark.parametrize("name", MODES)
def test_a_mode_refuses_rows_that_it_has_nothing_for(tmp_path: Path, name: str) -> None:
    rows = {"sft": alpaca("p"), "dpo": dpo("p"), "kto": kto("p", label=True), "mo-dpo": mo_dpo("p")}
    found = dict(zip(rows, read(write(tmp_path / "rows", *rows.values()), name), strict=True))
    taken = {kind for kind, entry in found.items() if isinstance(entry, InputRow)}
    assert taken == MODES[name].kinds


def test_what_is_made_anew_need_not_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "rows", {"prompt": "p", "chosen": ANSWER})
    assert isinstance(read(path, "regen-rejected")[0], InputRow)
    assert isinstance(read(path, "rejudge")[0], BadLine)


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    source = Source(find_mode("rejudge"), write(tmp_path / "rows", *["{"] * 12), None)
    with pytest.raises(UsageError, match="and 2 more bad lines"):
        check_input(source, skip_bad=False)


def test_input_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no rows"):
        check_input(Source(find_mode("rejudge"), write(tmp_path / "rows", ""), None), skip_bad=True)


def test_a_torn_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    pq.write_table(pa.Table.from_pylist([dpo("p")]), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read(path)


class TestReasoning:
    thought = f"<think>\nWhat is a lamp for?\n</think>\n\n{ANSWER}"

    def read(self, plain: Path | None, reasoning: Path) -> list[InputRow | BadLine]:
        return list(Source(find_mode("regen-rejected"), plain, reasoning).read())

    def test_alone_is_split(self, tmp_path: Path) -> None:
        (row,) = self.read(None, write(tmp_path / "r", dpo("p") | {"chosen": self.thought}))
        assert isinstance(row, InputRow)
        assert row.chosen is not None
        assert (row.chosen.content, row.chosen.reasoning) == (ANSWER, "What is a lamp for?")

    def test_beside_the_plain_rows_gives_reasoning_alone(self, tmp_path: Path) -> None:
        plain = write(tmp_path / "p", dpo("p") | {"chosen": "Mine."}, "", dpo("q"))
        other = write(tmp_path / "r", dpo("p") | {"chosen": self.thought}, dpo("q"))
        first, second = self.read(plain, other)
        assert isinstance(first, InputRow)
        assert isinstance(second, InputRow)
        assert first.chosen is not None
        assert (first.chosen.content, first.chosen.reasoning) == ("Mine.", "What is a lamp for?")
        assert (second.line, second.prompt) == (3, "q")

    def test_other_prompts_and_missing_rows_are_bad(self, tmp_path: Path) -> None:
        plain = write(tmp_path / "p", dpo("p"), dpo("q"))
        bad = self.read(plain, write(tmp_path / "r", dpo("x")))
        assert [entry.reason for entry in bad if isinstance(entry, BadLine)] == [
            f"{tmp_path / 'r'}:1 has another prompt, or is a row of another kind",
            f"{tmp_path / 'r'} has no row for it",
        ]
        *_, last = self.read(plain, write(tmp_path / "r", *map(dpo, "pqrs")))
        assert isinstance(last, BadLine)
        assert last.line == 3

    def test_reasoning_content_of_a_message_is_reasoning(self, tmp_path: Path) -> None:
        row = {"prompt": "p", "chosen": [model(ANSWER, reasoning_content="Why?")], "rejected": OTHER}
        (found,) = read(write(tmp_path / "rows", row))
        assert isinstance(found, InputRow)
        assert found.chosen is not None
        assert found.chosen.reasoning == "Why?"

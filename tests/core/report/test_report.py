"""The report: what is counted, what is shown of texts, and what the page holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import SessionError, UsageError
from tasks.core.printable import visible_text
from tasks.core.report.page import write_report
from tasks.core.report.tally import SAMPLED, length_bin, tally_session
from tests.core.report.made import HOSTILE, facts, judged_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def put(folder: Path, rows: Sequence[dict[str, Any]], name: str = "dataset.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("a\r\nb", "a\nb"),
        ("a\rb\0c\x1b[2J", "a⟨U+000D⟩b⟨U+0000⟩c⟨U+001B⟩[2J"),
        ("\u202eabc\u2066", "⟨U+202E⟩abc⟨U+2066⟩"),
        ("\ufeffa\U000e0041", "⟨U+FEFF⟩a⟨U+E0041⟩"),
        ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),
        ("<script>", "<script>"),
        ("x" * 31, "x" * 30),
        ("\u202e" * 30, "⟨U+202E⟩" * 3 + "⟨U+202"),
        ("\r\n" * 31, "\n" * 30),
    ],
)
def test_hidden_characters_are_made_visible(text: str, shown: str) -> None:
    assert visible_text(text, 30) == shown


def test_what_stands_in_the_rows_is_counted(tmp_path: Path) -> None:
    rows = judged_rows(30)
    put(tmp_path, rows)
    with (tmp_path / "dataset.jsonl").open("a") as file:
        file.write("no row\n")
    tally = tally_session(tmp_path, ())
    assert (tally.samples, tally.bad_lines) == (30, 1)
    assert sum(tally.chosen_lengths.values()) == sum(tally.rejected_lengths.values()) == 30
    assert set(tally.rejected_lengths) == {length_bin(len(row["rejected"])) for row in rows}
    assert tally.margins == {4: 10, 0: 10, -4: 10}
    plot = tally.scores["plot"]
    assert (plot.chosen, plot.chosen_count, plot.rejected, plot.rejected_count) == (120, 30, 120, 30)
    assert set(tally.subtopics.values()) == {10}
    examples = tally.examples()
    assert len(examples) == SAMPLED
    assert [item.row for item in examples] == sorted(item.row for item in examples)
    assert examples == tally_session(tmp_path, ()).examples()
    thought = [item.chosen.reasoning is not None for item in examples if item.chosen]
    assert thought == [item.row % 2 == 0 for item in examples]


def test_subtopics_of_rows_that_have_none_are_those_of_their_prompts(tmp_path: Path) -> None:
    rows = judged_rows(6)
    put(tmp_path, [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])
    tally = tally_session(tmp_path, facts(rows).jobs)
    assert tally.subtopics == {row["sub_topic"]: 2 for row in rows}


@pytest.mark.parametrize("mode", ["dpo", "kto"])
def test_the_sample_shows_the_reasoning_from_the_other_file(tmp_path: Path, mode: str) -> None:
    for name, thought in (("dataset.jsonl", ""), ("dataset_reasoning.jsonl", "<think>\nhm {}\n</think>\n\n")):
        pairs = [(f"p{at}", f"{thought.format(at)}good {at}", f"bad {at}") for at in range(50)]
        if mode == "dpo":
            rows: list[Any] = [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in pairs]
        else:
            rows = [
                {"prompt": p, "completion": side, "label": label}
                for p, good, bad in pairs
                for side, label in ((good, True), (bad, False))
            ]
        put(tmp_path, rows, name)
    examples = tally_session(tmp_path, ()).examples()
    assert len(examples) == SAMPLED
    for item in examples:
        number = item.prompt.text[1:]
        assert item.chosen is not None
        assert item.chosen.reasoning is not None
        assert item.rejected is not None
        assert (item.chosen.answer.text, item.chosen.reasoning.text) == (f"good {number}", f"hm {number}")
        assert (item.rejected.answer.text, item.rejected.reasoning) == (f"bad {number}", None)


def test_the_page_is_small_whatever_the_texts_are(tmp_path: Path) -> None:
    rows = [{"prompt": "p" * 10**6, "chosen": "<&\"'" * 10**6, "rejected": "\u202e" * 10**6}] * 25
    put(tmp_path, rows)
    page = write_report(tmp_path, facts(judged_rows(3), topic=HOSTILE)).read_text(encoding="utf-8")
    assert len(page) < 2_000_000
    assert "Cut: the whole text has 4,000,000 characters." in page
    assert "<script" not in page
    assert "\u202e" not in page


def test_the_page_holds_what_is_known_and_leaves_out_what_is_not(tmp_path: Path) -> None:
    rows = judged_rows(9)
    put(tmp_path, rows)
    path = write_report(tmp_path, facts(rows), alike=[(0.912, "one prompt", "another prompt")])
    page = path.read_text(encoding="utf-8")
    for said in ("69.2%", "refused", "failed: timeout", "thresholds", "91%", "another prompt", "14,500"):
        assert said in page
    assert page.count('class="plot"') == 7
    put(tmp_path, [{"instruction": "do", "output": "done"}])
    bare = facts([], jobs=[], subtopics=[], failed={}, lost={}, rate=None, models={}, wanted=1)
    page = write_report(tmp_path, bare).read_text(encoding="utf-8")
    assert page.count('class="plot"') == 3
    assert "The most alike prompts" not in page
    (tmp_path / "dataset.jsonl").write_bytes(b"")
    assert "A sample" not in write_report(tmp_path, bare).read_text(encoding="utf-8")


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset\.jsonl cannot be read"):
        write_report(tmp_path, facts([], jobs=[]))
    put(tmp_path, judged_rows(1))
    (tmp_path / "report.html").mkdir()
    with pytest.raises(SessionError, match=r"report\.html cannot be written: Is a directory"):
        write_report(tmp_path, facts(judged_rows(1)))

"""The report: what is counted, what is shown of texts, and what the page holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import SessionError, UsageError
from tasks.core.models import Phase, Purpose
from tasks.core.printable import visible_text
from tasks.core.report.page import MOST_SUBTOPICS, Review, write_report
from tasks.core.report.tally import (
    OF_ALL,
    SAMPLED,
    cover,
    evenly,
    find_alike,
    length_bin,
    shares_of,
)
from tasks.core.session.retrying import Answered
from tests.core.report.made import HOSTILE, facts, judged_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tasks.core.models import Job
    from tasks.core.report.tally import Tally


def tally_of(folder: Path, jobs: Iterable[Job] = ()) -> Tally:
    review = Review(folder, jobs)
    review.go_on()
    return review.tally()


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


def test_a_review_goes_on_where_it_was(tmp_path: Path) -> None:
    put(tmp_path, judged_rows(30))
    whole, parts = Review(tmp_path, ()), Review(tmp_path, ())
    whole.go_on()
    assert [parts.go_on(20) for _ in range(3)] == [True, True, False]
    assert parts.lint() == whole.lint()
    assert parts.tally().examples() == whole.tally().examples()
    assert parts.tally().samples == 30


def test_what_stands_in_the_rows_is_counted(tmp_path: Path) -> None:
    rows = judged_rows(30)
    put(tmp_path, rows)
    with (tmp_path / "dataset.jsonl").open("a") as file:
        file.write("no row\n")
    tally = tally_of(tmp_path)
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
    assert examples == tally_of(tmp_path).examples()
    thought = [item.chosen.reasoning is not None for item in examples if item.chosen]
    assert thought == [item.row % 2 == 0 for item in examples]


def test_subtopics_of_rows_that_have_none_are_those_of_their_prompts(tmp_path: Path) -> None:
    rows = judged_rows(6)
    put(tmp_path, [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])
    tally = tally_of(tmp_path, facts(rows).jobs)
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
    examples = tally_of(tmp_path).examples()
    assert len(examples) == SAMPLED
    for item in examples:
        number = item.prompt.text[1:]
        assert item.chosen is not None
        assert item.chosen.reasoning is not None
        assert item.rejected is not None
        assert (item.chosen.answer.text, item.chosen.reasoning.text) == (f"good {number}", f"hm {number}")
        assert (item.rejected.answer.text, item.rejected.reasoning) == (f"bad {number}", None)


def test_the_page_is_small_whatever_the_texts_are(tmp_path: Path) -> None:
    rows = [{"prompt": "p" * 10**5, "chosen": "<&\"'" * 10**5, "rejected": "\u202e" * 10**5}] * 25
    put(tmp_path, rows)
    page = write_report(tmp_path, facts(judged_rows(3), topic=HOSTILE)).read_text(encoding="utf-8")
    assert len(page) < 600_000
    assert "Cut: the whole text has 400,000 characters." in page
    assert "<script" not in page
    assert "\u202e" not in page


def test_an_answer_that_could_not_be_used_is_shown_as_text(tmp_path: Path) -> None:
    put(tmp_path, judged_rows(3))
    answered = Answered(
        Phase.PAIRS,
        Purpose.JUDGE,
        "bad_scores",
        f"job 1 {HOSTILE}",
        f"no scores {HOSTILE}",
        "00",
        HOSTILE + "x" * 10**6,
        "",
        "stop",
        {"Prompt": HOSTILE},
    )
    page = write_report(tmp_path, facts(judged_rows(3), answered=[answered])).read_text(encoding="utf-8")
    assert "an answer that could not be used: bad_scores" in page
    assert len(page) < 200_000
    assert "<script" not in page
    assert "\u202e" not in page


def test_the_page_holds_what_is_known_and_leaves_out_what_is_not(tmp_path: Path) -> None:
    rows = judged_rows(9)
    put(tmp_path, rows)
    page = write_report(tmp_path, facts(rows)).read_text(encoding="utf-8")
    for said in (
        "69.2%",
        "refused",
        "failed: timeout",
        "thresholds",
        "nearly the same as an earlier",
        "14,500",
    ):
        assert said in page
    assert "4 of 13 pairs are missing." in page
    assert page.count('class="plot"') == 7
    put(tmp_path, [{"instruction": "do", "output": "done"}])
    bare = facts([], jobs=[], subtopics=[], failed={}, lost={}, rate=None, hosts={}, wanted=1)
    page = write_report(tmp_path, bare).read_text(encoding="utf-8")
    assert page.count('class="plot"') == 3
    assert "The most alike" not in page
    (tmp_path / "dataset.jsonl").write_bytes(b"")
    assert "A sample" not in write_report(tmp_path, bare).read_text(encoding="utf-8")


def test_what_was_replaced_is_said_with_its_causes(tmp_path: Path) -> None:
    rows = judged_rows(9)
    put(tmp_path, rows)
    known = facts(
        rows, wanted=9, lost={"lint_identical": 2, "too_short": 1}, failed={}, dropped={"duplicate": 7}
    )
    page = write_report(tmp_path, known).read_text(encoding="utf-8")
    assert "Every pair that was wanted is there; 3 more prompts than pairs are wanted were answered" in page
    for why, count in (
        ("kept out by lint: identical", 2),
        ("yielded no usable pair: too short", 1),
        ("left out: the same as an earlier prompt", 7),
    ):
        assert f'<td>{why}</td><td class="number">{count}</td>' in page
    assert "are missing" not in page
    known = facts(rows, wanted=9, jobs=known.jobs[:9], lost={}, failed={}, dropped={})
    page = write_report(tmp_path, known).read_text(encoding="utf-8")
    assert "Nothing: every prompt that was wanted has its row." in page


def test_each_subtopic_has_its_rows_its_share_and_its_spread(tmp_path: Path) -> None:
    rows = judged_rows(6, text="")
    for row, prompt in zip(rows, ("a b c", "e f", "x", "a b d", "g h", "not in the dataset"), strict=True):
        row |= {"prompt": prompt, "sub_topic": row["sub_topic"].strip()}
    put(tmp_path, rows[:5])
    known = facts(rows, shares={"subtopic 0": 1, "subtopic 1": 4, "subtopic 2": 2, "subtopic 9": 3})
    found = cover(known, tally_of(tmp_path, known.jobs))
    assert [(item.name, item.rows, item.wanted, item.share, item.spread) for item in found] == [
        ("subtopic 9", 0, 3, 0.0, None),
        ("subtopic 2", 1, 2, 0.5, None),
        ("subtopic 1", 2, 4, 0.5, 1.0),
        ("subtopic 0", 2, 1, 2.0, pytest.approx(4 / 7)),
    ]
    page = write_report(tmp_path, known).read_text(encoding="utf-8")
    cells = "".join(f'<td class="number">{cell}</td>' for cell in ("2", "1", "200.0%", "0.57"))
    assert f"<bdi>subtopic 0</bdi></td>{cells}" in page


@pytest.mark.parametrize(
    ("wanted", "shares"), [(7, {"a": 3, "b": 2, "c": 2}), (2, {"a": 1, "b": 1}), (0, {})]
)
def test_a_subtopic_is_to_bring_its_share(wanted: int, shares: dict[str, int]) -> None:
    assert shares_of(["a", "b", "c"], wanted) == shares
    assert shares_of([], wanted) == {}


def test_of_very_many_texts_some_are_looked_at_and_the_page_says_so(tmp_path: Path) -> None:
    assert [len(evenly(range(count), 30)) for count in (0, 1, 30, 31, 60, 61)] == [0, 1, 30, 16, 30, 21]
    names = [f"{HOSTILE * 4} {number}" for number in range(OF_ALL + 1)]
    rows = judged_rows(2)
    put(tmp_path, rows)
    page = write_report(tmp_path, facts(rows, subtopics=names, shares=dict.fromkeys(names, 1)))
    text = page.read_text(encoding="utf-8")
    assert len(text) < 2_000_000
    assert f"Looked for among {OF_ALL // 2 + 1:,} of {OF_ALL + 1:,}." in text
    # Those of the rows and jobs come on top.
    assert f"{OF_ALL + 1 + 2 - MOST_SUBTOPICS:,} that lack less are not shown." in text


def test_the_most_alike_prompts_of_the_rows_are_shown(tmp_path: Path) -> None:
    same = "Write a short story about a keeper who finds a letter in a bottle, "
    rows = judged_rows(9, text="")
    for row, end in zip(rows, "abcdefghi", strict=True):
        row["prompt"] = f"{end} {end}x {end}y {end}z"
    rows[2]["prompt"], rows[7]["prompt"], rows[8]["prompt"] = same + "once", same + "twice", same + "thrice"
    put(tmp_path, rows[:8])
    page = write_report(tmp_path, facts(rows)).read_text(encoding="utf-8")
    (found,) = find_alike([row["prompt"] for row in rows[:8]]).found
    assert (found.first, found.second) == (same + "once", same + "twice")
    cells = f"<td><bdi>{found.first}</bdi></td><td><bdi>{found.second}</bdi></td>"
    assert f'<td class="number">{found.likeness:.0%}</td>{cells}' in page
    assert "thrice" not in page.partition("The most alike prompts")[2].partition("<h2>")[0]
    put(tmp_path, rows[:2])
    page = write_report(tmp_path, facts(rows)).read_text(encoding="utf-8")
    assert "No two have half of their words and neighbouring words in common." in page


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset\.jsonl cannot be read"):
        write_report(tmp_path, facts([], jobs=[]))
    put(tmp_path, judged_rows(1))
    (tmp_path / "report.html").mkdir()
    with pytest.raises(SessionError, match=r"report\.html cannot be written: Is a directory"):
        write_report(tmp_path, facts(judged_rows(1)))

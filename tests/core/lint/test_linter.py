"""Lint over whole files: each planted defect is found where it is, and nothing in a clean one."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import UsageError
from tasks.core.lint.linter import EXCERPT, NAMES, lint_file
from tasks.core.rows import samples as reading
from tests.core.lint.planted import clean, found, judged, lint, pair, write
from tests.core.session import vellumforge2

if TYPE_CHECKING:
    from pathlib import Path

MODES = {"alpaca": "sft", "sharegpt": "sft", "dpo": "dpo", "kto": "kto", "mo-dpo": "mo-dpo"}
OF_ANSWERS = [
    "empty",
    "refusals",
    "think_tags",
    "truncated",
    "special_tokens",
    "chatter",
    "duplicate_prompts",
    "tokens",
]
OF_JUDGED = ["margin", "margin_follows_length"]

WORDS = [f"word{number}" for number in range(200)]
STORY = " ".join(WORDS) + "."
EDITED = (
    " ".join(f"other{number}" if number in {20, 90, 150} else WORDS[number] for number in range(200)) + "."
)
REFUSAL = (
    "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can't write that story for you. Ask me something else."
)
CUT = "The keeper had climbed all of the stairs when, far below, a door was opened and the"
CODE = "Here is how it is done:\n\n```python\nfor lamp in lamps:\n    lamp.light()\n"
LIST = "He had with him:\n\n- a lamp of brass\n- a box of matches\n\nThat was all he had."
RUSSIAN = "Смотритель маяка спустился к гавани в сумерках, и лампа была зажжена до прихода кораблей."

PLANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "a blank chosen": ("empty", {"chosen": " \n"}),
    "an answer of nothing but thinking": ("empty think_tags", {"rejected": "<think>Let me see.</think>"}),
    "a blank prompt": ("empty", {"prompt": ""}),
    "equal sides": ("identical", {"chosen": STORY, "rejected": f" {STORY}\n"}),
    "three of 200 words edited": ("nearly_identical", {"chosen": STORY, "rejected": EDITED}),
    "a refusal": ("refusals", {"chosen": REFUSAL}),
    "a whole thought": ("think_tags", {"chosen": f"<think>\nHm.\n</think>\n\n{pair(7)['chosen']}"}),
    "the end of a thought": ("think_tags", {"rejected": f"Hm.</think>{pair(7)['rejected']}"}),
    "a sentence cut off": ("truncated", {"chosen": CUT}),
    "a sentence cut off in rejected": ("truncated", {"rejected": CUT}),
    "code that is not closed": ("truncated markup", {"chosen": CODE}),
    "a list against plain text": ("markup", {"chosen": LIST}),
    "a heading against plain text": ("markup", {"rejected": f"# The keeper\n\n{pair(7)['rejected']}"}),
    "another script": ("script", {"rejected": RUSSIAN}),
    "a turn of the user played by the model": (
        "special_tokens",
        {"rejected": f"{pair(7)['rejected']}<|im_end|>\n<|im_start|>user\nWho was it? {pair(9)['chosen']}"},
    ),
    "a token at the end": ("special_tokens", {"chosen": f"{pair(7)['chosen']}</s>"}),
    "a token at the beginning": ("special_tokens", {"chosen": f"<|begin_of_text|>{pair(7)['chosen']}"}),
    "a bracketed thought": ("think_tags", {"chosen": f"[THINK]Hm.[/THINK]{pair(7)['chosen']}"}),
    "an opening": ("chatter", {"chosen": f"Sure, here is the story:\n\n{pair(7)['chosen']}"}),
    "an ending": ("chatter", {"rejected": f"{pair(7)['rejected']}\n\nI hope this helps!"}),
    "a prompt that is there already": ("duplicate_prompts", {"prompt": " TELL of  night no. 3"}),
    "a long row": ("tokens", {"prompt": "Tell of a night. " * 40}),
}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_found_in_a_clean_file(tmp_path: Path, mode: str) -> None:
    report = lint(tmp_path, clean(mode), max_tokens=100)
    assert report.findings == ()
    assert (report.mode, report.samples, report.unpaired, report.bad_lines) == (MODES[mode], 40, 0, 0)
    assert report.rows == (80 if mode == "kto" else 40)
    applied = [name for name in NAMES if name not in OF_JUDGED or mode == "mo-dpo"]
    assert sorted(report.shares) == sorted(OF_ANSWERS if MODES[mode] == "sft" else applied)
    assert report.lines()[-1] == "nothing found"
    assert report.brief() == ""


@pytest.mark.parametrize("mode", ["dpo", "kto", "mo-dpo"])
@pytest.mark.parametrize(("checks", "defect"), PLANTED.values(), ids=PLANTED)
def test_a_planted_defect_is_found_in_its_row_and_nowhere_else(
    tmp_path: Path, checks: str, defect: dict[str, Any], mode: str
) -> None:
    rows, place = clean(mode), 30
    planted = pair(place) | defect
    if mode == "kto":
        rows[2 * place]["completion"], rows[2 * place + 1]["completion"] = (
            planted["chosen"],
            planted["rejected"],
        )
        rows[2 * place]["prompt"] = rows[2 * place + 1]["prompt"] = planted["prompt"]
    else:
        rows[place] |= defect
    report = lint(tmp_path, rows, max_tokens=150 if checks == "tokens" else 1000)
    row = 2 * place + 1 if mode == "kto" else place + 1
    assert found(report) == {check: [row] for check in checks.split()}
    for finding in report.findings:
        assert (finding.count, finding.of, finding.share) == (1, 40, 1 / 40)
        assert (finding.about == "", finding.advice == "") == (False, False)


@pytest.mark.parametrize("mode", ["alpaca", "sharegpt"])
def test_defects_of_single_answers_are_found_in_both_forms_of_sft(tmp_path: Path, mode: str) -> None:
    rows = clean(mode)
    for number, text in enumerate((REFUSAL, CUT, "<think>Hm.</think>It was a dark night.", " ")):
        if mode == "alpaca":
            rows[10 + number]["output"] = text
        else:
            rows[10 + number]["conversations"][1]["value"] = text
    rows.append(rows[5])
    expected = {
        "empty": [14],
        "refusals": [11],
        "think_tags": [13],
        "truncated": [12],
        "duplicate_prompts": [41],
    }
    assert found(lint(tmp_path, rows)) == expected


def test_margins_of_zero_and_below_are_told_apart(tmp_path: Path) -> None:
    rows = clean("mo-dpo")
    rows[4], rows[8], rows[9] = (judged(pair(n), margin) for n, margin in ((4, 0), (8, -1.5), (9, -0.1)))
    del rows[8]["preference_margin"]  # then it is that of the totals
    (finding,) = lint(tmp_path, rows).findings
    assert (finding.check, finding.count, finding.of) == ("margin", 3, 40)
    assert finding.sides == {"zero": 1, "negative": 2}
    assert [example.row for example in finding.examples] == [5, 9, 10]


def test_rows_that_the_judge_has_not_seen_are_among_those_that_it_has(tmp_path: Path) -> None:
    rows = [*clean("dpo", 20), *clean("mo-dpo", 40)[20:]]
    rows[30] = judged(pair(30), -1)
    (finding,) = lint(tmp_path, rows).findings
    assert (finding.check, finding.of) == ("margin", 20)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_side_that_is_nearly_always_longer_is_a_bias(tmp_path: Path, side: str) -> None:
    rows = clean("dpo", 20)
    for row in rows[:16]:
        row[side] += " And so it went on, night after night, until the last of the lamps was out."
    (finding,) = lint(tmp_path, rows).findings
    assert (finding.check, finding.of) == ("length_bias", 20)
    assert finding.share >= 16 / 20
    assert finding.about.startswith(f"{side} is the longer one; ")
    # Of a few pairs nothing can be said.
    few = lint(tmp_path, rows[:19])
    assert (few.findings, "length_bias" in few.shares) == ((), False)


def test_margins_that_grow_with_length_are_the_judges_bias(tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        row = pair(number)
        row = row | {"chosen": row["chosen"] + " So it was." * (number % 5)}
        rows.append(judged(row, 1 + (len(row["chosen"]) - len(row["rejected"]) + 60) / 100))
    report = lint(tmp_path, rows)
    (finding,) = report.findings
    assert (finding.check, finding.of) == ("margin_follows_length", 40)
    assert report.lengths is not None
    assert report.lengths.margin_correlation == pytest.approx(1)
    assert finding.share == report.shares["margin_follows_length"] == pytest.approx(1)


def test_sides_of_kto_find_each_other_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clean("kto", 30)
    chosen, rejected = rows[::2], rows[1::2]
    rejected[3] |= {"completion": chosen[3]["completion"]}
    report = lint(tmp_path, [*chosen, *reversed(rejected)])
    assert (report.samples, report.unpaired, found(report)) == (30, 0, {"identical": [4]})
    # Those that wait for too long are looked at alone, and are no duplicates of the other side.
    monkeypatch.setattr(reading, "MOST_WAITING", 10)
    report = lint(tmp_path, [*chosen, *rejected])
    assert (report.samples, report.unpaired, report.findings) == (60, 60, ())
    again = lint(tmp_path, [*chosen, *rejected, chosen[2]])
    assert found(again) == {"duplicate_prompts": [61]}


def test_rows_of_kto_of_one_label_are_looked_at_alone(tmp_path: Path) -> None:
    report = lint(tmp_path, clean("kto")[::2])
    assert (report.samples, report.unpaired, report.lengths) == (40, 40, None)
    assert sorted(report.shares) == sorted(set(OF_ANSWERS) - {"tokens"})
    assert "40 of the rows have no row of the other label with their prompt" in report.lines()


BAD = {
    '{"prompt": "a", "chosen": "b"}': "rejected is missing",
    '{"prompt": "a", "chosen": "b", "rejected": null}': "rejected is no text",
    '{"prompt": "a", "completion": "b", "label": 1}': "label is neither true nor false",
    '{"prompt": "a", "chosen": "b", "rejected": "c", "preference_margin": "d"}': "is no number",
    '{"prompt": "a", "chosen": "b", "rejected": "c", "preference_margin": true}': "is no number",
    '{"instruction": "a", "output": "b"}': "it is a row of sft, and those before it are of dpo",
    '{"conversations": [{"from": "human", "value": "a"}]}': "no turn of human that one of gpt answers",
    '{"conversations": ["a"]}': "no list of turns",
    '{"text": "a"}': "it is no row of sft, dpo, kto or mo-dpo",
    '["a"]': "it is no JSON object",
    '{"prompt": "a", "cho': "it is no JSON",
    '{"prompt": "\\ud800", "chosen": "b", "rejected": "c"}': "it is no JSON",
    "[" * 100_000: "it is no JSON",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=BAD.values())
def test_a_bad_line_is_named_and_the_others_are_looked_at(tmp_path: Path, line: str, reason: str) -> None:
    lines = [json.dumps(row) for row in clean("dpo", 4)]
    path = tmp_path / "dataset.jsonl"
    path.write_text("\n".join([lines[0], "", line, *lines[1:]]))
    report = lint_file(path)
    assert (report.samples, report.bad_lines) == (4, 1)
    (bad,) = report.first_bad_lines
    assert bad.line == 3
    assert reason in bad.reason


def test_a_line_without_end_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 4096)
    rows = clean("dpo", 3)
    rows[1]["chosen"] = "x" * 50_000
    report = lint(tmp_path, rows)
    assert (report.samples, [bad.line for bad in report.first_bad_lines]) == (2, [2])


def test_bytes_that_are_no_text_are_bad_lines_of_which_ten_are_named(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    path.write_bytes(b'{"prompt": "\xff\xfe"}\n' * 15)
    report = lint_file(path)
    assert (report.rows, report.bad_lines, len(report.first_bad_lines)) == (0, 15, 10)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        lint_file(tmp_path)


HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u2066\N{ZERO WIDTH SPACE}\r\n<script>alert(1)</script>\x9b31m"


def test_what_models_wrote_is_shown_without_what_moves_a_cursor_or_turns_a_line(tmp_path: Path) -> None:
    row = {"prompt": HOSTILE, "chosen": HOSTILE * 5_000, "rejected": HOSTILE * 5_000}
    report = lint(tmp_path, [row, row], max_tokens=10)
    assert {"identical", "duplicate_prompts", "tokens"} <= set(found(report))
    for line in report.lines():
        assert line.isprintable()
    for finding in report.findings:
        for example in finding.examples:
            assert len(example.text) <= 2 * (EXCERPT + len("rejected: …") + 3)


@pytest.mark.parametrize("mode", ["alpaca", "sharegpt", "dpo", "kto", "mo-dpo"])
def test_rows_as_vellumforge2_writes_them_are_looked_at(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "dataset.jsonl"
    lines = vellumforge2.rows_of_all(mode, vellumforge2.go_jobs())
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    report = lint_file(path)
    assert (report.samples, report.bad_lines) == (40, 0)
    # Its chosen answers are all longer than its rejected ones.
    assert list(found(report)) == ([] if MODES[mode] == "sft" else ["length_bias"])


def test_sharegpt_rows_of_several_turns_are_looked_at_by_their_last_answer(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Who are you?"},
        {"from": "gpt", "value": "I cannot write that."},
        {"from": "human", "value": "And now?"},
        {"from": "gpt", "value": "The keeper of the lamp."},
    ]
    report = lint(tmp_path, [{"conversations": turns}])
    assert (report.samples, report.findings) == (1, ())


def test_memory_holds_no_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "dataset.jsonl", [])
    with path.open("w") as file:
        for number in range(300):
            file.write(json.dumps(pair(number) | {"prompt": f"{number} " + "x" * 100_000}) + "\n")
    tracemalloc.start()
    report = lint_file(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.samples == 300
    assert peak < 3_000_000  # of a file of thirty

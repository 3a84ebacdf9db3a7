"""Texts from outside, where they are shown."""

from __future__ import annotations

import json
import sys
import unicodedata

from tasks.core.printable import escaped, fenced, plain_json, reason_of, shown, shown_line, table


def test_a_foreign_error_is_one_line_that_moves_no_cursor() -> None:
    hostile = ValueError("no\x1b[2J\n such \u202e  file\x07\r")
    assert reason_of(hostile) == "no [2J such file"
    assert reason_of(hostile, 5) == "no [2"
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(ValueError("\x1b \n")) == "ValueError"
    missing = FileNotFoundError(2, "No such file", "a/b")
    assert reason_of(missing) == "[Errno 2] No such file: 'a/b'"
    assert reason_of(missing, bare=True) == "No such file"


HIDDEN = "\x00\x1b\x7f\x85\x9b\xad\u061c\u115f\u200b\u200e\u2028\u202e\u2066\u3164\ufeff\ud800\U000e0041"


def test_what_is_printed_holds_nothing_that_is_hidden() -> None:
    categories = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    # Signs of Arabic and Kaithi that are seen, although they are of this category.
    seen = {
        *map(chr, (0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x8E2, 0x890, 0x891, 0x110BD, 0x110CD))
    }
    every = (chr(code) for code in range(sys.maxunicode + 1))
    hidden = [
        each for each in every if unicodedata.category(each) in categories and each not in {*seen, *"\t\n"}
    ]
    assert [each for each in hidden if shown(f"a{each}a") == f"a{each}a"] == []
    assert shown(HIDDEN) == "".join(f"⟨U+{ord(each):04X}⟩" for each in HIDDEN)
    for text in ("می‌خواهم", "👩\u200d👩\u200d👧", "क्\u200dष", "plain\ttext\n", "é ☀️ 漢"):
        assert shown(text) == text
    for joiner in "\u200c\u200d":
        for around in ("ab", "é\u2066", "\u200b\ufeff", "\U000e0041é"):
            assert joiner not in shown(joiner.join(around))


def test_nothing_in_a_line_begins_another_one() -> None:
    assert (
        shown_line("  a\tb\r\nvellumforge2: c\rd\x0be\x0cf\u2028g") == "  a b vellumforge2: c d e f⟨U+2028⟩g"
    )


def test_json_means_the_same_when_nothing_in_it_is_hidden() -> None:
    document = {f"a{HIDDEN[:-2]}": [HIDDEN[:-2], "\U000e0041", "é 😀"]}
    text = json.dumps(document, ensure_ascii=False)
    for ascii_only in (False, True):
        plain = plain_json(text, ascii_only=ascii_only)
        assert json.loads(plain) == document
        assert shown(plain) == plain
        assert plain.isascii() is ascii_only


def test_markdown_holds_nothing_that_is_hidden_either() -> None:
    for text in (escaped(HIDDEN), fenced(f"a{HIDDEN}\nb"), table(("x",), [(HIDDEN,)])):
        assert shown(text) == text

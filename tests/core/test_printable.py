"""Texts from outside on one line."""

from __future__ import annotations

from tasks.core.printable import reason_of


def test_a_foreign_error_is_one_line_that_moves_no_cursor() -> None:
    hostile = ValueError("no\x1b[2J\n such \u202e  file\x07\r")
    assert reason_of(hostile) == "no [2J such file"
    assert reason_of(hostile, 5) == "no [2"
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(ValueError("\x1b \n")) == "ValueError"
    missing = FileNotFoundError(2, "No such file", "a/b")
    assert reason_of(missing) == "[Errno 2] No such file: 'a/b'"
    assert reason_of(missing, bare=True) == "No such file"

"""`--fail-on`: what may be given, and what is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.core.errors import LintError, UsageError
from tasks.core.lint.linter import check_gates, read_gates
from tests.core.lint.planted import clean, lint

if TYPE_CHECKING:
    from pathlib import Path


def test_checks_and_shares_are_read_however_they_are_given() -> None:
    assert read_gates(["identical, markup=0.1", "tokens=0"], max_tokens=1) == {
        "identical": None,
        "markup": 0.1,
        "tokens": 0.0,
    }
    assert read_gates([], max_tokens=None) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("identicle", "no such check; there are empty, identical, nearly_identical, margin, "),
        ("", "no such check"),
        ("markup=", "a number from 0 to 1"),
        ("markup=2", "a number from 0 to 1"),
        ("markup=-1", "a number from 0 to 1"),
        ("markup=nan", "a number from 0 to 1"),
        ("markup=5%", "a number from 0 to 1"),
        ("tokens", "needs a limit: give --max-tokens"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as raised:
        read_gates([text], max_tokens=None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        ("identical", False),
        ("identical=0", False),
        ("identical=0.049", False),
        ("identical=0.05", True),
        ("identical=1", True),
        ("refusals", True),
        # The check does not apply to pairs without margins.
        ("margin", True),
        # Nothing is found, for less than 80 % is no bias; a share of one's own is held to.
        ("length_bias", True),
        ("length_bias=0.2", False),
        ("refusals,identical", False),
    ],
)
def test_a_report_passes_or_fails(tmp_path: Path, gate: str, *, passes: bool) -> None:
    rows = clean("dpo")
    for row in rows[10:12]:
        row["rejected"] = row["chosen"]
    report, gates = lint(tmp_path, rows), read_gates([gate], max_tokens=None)
    if passes:
        check_gates(report, gates)
        return
    with pytest.raises(LintError, match="more than --fail-on allows: ") as raised:
        check_gates(report, gates)
    assert raised.value.exit_code == 1
    assert "refusals" not in str(raised.value)

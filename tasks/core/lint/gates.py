"""`--fail-on`: which findings, and how much of them, make lint end with an exit code of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.errors import LintError, UsageError
from tasks.core.lint.checks import TOKENS
from tasks.core.lint.linter import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tasks.core.lint.report import Report


def read_gates(texts: Iterable[str], *, max_tokens: int | None) -> dict[str, float | None]:
    """Allowed shares by check, from `CHECK` or `CHECK=SHARE`, several with commas between them.

    Args:
        texts: What was given.
        max_tokens: The limit of the check of tokens, without which it is not made.

    Returns:
        The share that is allowed of each check; None where none was given: then any finding is too much.

    Raises:
        UsageError: There is no such check, or the share is no number from 0 to 1.
    """
    gates: dict[str, float | None] = {}
    for item in (part.strip() for text in texts for part in text.split(",")):
        name, equals, share = (part.strip() for part in item.partition("="))
        if name not in NAMES:
            raise UsageError(f"--fail-on {item!r}: there is no such check; there are {', '.join(NAMES)}")
        if name == TOKENS and max_tokens is None:
            raise UsageError(f"--fail-on {TOKENS} needs a limit: give --max-tokens")
        gates[name] = _share(item, share) if equals else None
    return gates


def _share(item: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--fail-on {item!r}: the share is a number from 0 to 1, e.g. 0.05")
    return share


def check_gates(report: Report, gates: Mapping[str, float | None]) -> None:
    """Nothing, for a report within what is allowed; a check that did not apply is within it.

    Raises:
        LintError: There is more of something than is allowed; it says of what.
    """
    found = {item.check for item in report.findings}
    exceeded = []
    for name, most in gates.items():
        share = report.shares.get(name)
        if share is not None and (name in found if most is None else share > most):
            allowed = "none is allowed" if most is None else f"allowed: {most:g}"
            exceeded.append(f"{name} {share:.4g} ({allowed})")
    if exceeded:
        raise LintError(f"more than --fail-on allows: {', '.join(exceeded)}")

"""Which findings keep pairs out of a dataset, and which end lint with an exit code of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.cost import tokens_for
from tasks.core.errors import LintError, UsageError
from tasks.core.lint.checks import CHECKS, TOKENS, Texts
from tasks.core.lint.linter import NAMES
from tasks.core.rows.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from tasks.core.config.settings import Config
    from tasks.core.lint.report import Report
    from tasks.core.models import Pair


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


PREFIX = "lint_"
"""Before a check's name, it is the cause of which a pair is kept out."""


def dropped_by(config: Config, pair: Pair) -> str:
    """The first check that keeps a pair out, as `lint_<check>`; "" when none does.

    Scores that are not there yet are not looked at.
    """
    wanted = config.lint.drop
    if not wanted:
        return ""
    name = _found(pair, wanted, config.lint.max_tokens)
    return PREFIX + name if name else ""


def _found(pair: Pair, wanted: Container[str], max_tokens: int) -> str:
    rejected = pair.rejected.content if pair.rejected else None
    margin = None
    if pair.chosen_scores and pair.rejected_scores:
        margin = pair.chosen_scores.total - pair.rejected_scores.total
    sample = Sample("", 0, pair.job.prompt, pair.chosen.content, rejected, margin)
    texts = Texts.of(sample)
    for check in CHECKS:
        if check.name in wanted and tuple(check.find(texts) or ()):
            return check.name
    if TOKENS in wanted:
        longest = max(len(text) for text in (sample.chosen, sample.rejected) if text is not None)
        if tokens_for(len(sample.prompt) + longest) > max_tokens:
            return TOKENS
    return ""

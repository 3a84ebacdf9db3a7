"""Which pairs `[lint] drop` keeps out while a dataset is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.cost import tokens_for
from tasks.core.lint.checks import CHECKS, TOKENS, Texts
from tasks.core.lint.rows import Sample

if TYPE_CHECKING:
    from collections.abc import Container

    from tasks.core.config.models import Config
    from tasks.core.models import Pair

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

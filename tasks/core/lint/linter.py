"""Lint over a whole file, and the gates: what keeps pairs out of a dataset, what ends lint with an exit code.

A file is read in one pass, in time linear in its length. What is kept of a row is a digest of its prompt,
some hundred bytes; all else are sums and a few examples.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from tasks.core.cost import CHARACTERS_PER_TOKEN, tokens_for
from tasks.core.errors import LintError, UsageError
from tasks.core.lint.checks import BOTH, CHECKS, CHOSEN, REJECTED, TOKENS, Hit, Texts
from tasks.core.lint.report import Example, Finding, Lengths, Report
from tasks.core.printable import printable_line
from tasks.core.rows.samples import BadLine, Sample, read_samples
from tasks.core.sameness import fingerprint

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.models import Pair


MOST_EXAMPLES: Final = 3
MOST_BAD_LINES: Final = 10
EXCERPT: Final = 100
"""Characters of an example."""

FEW: Final = 20
"""Pairs below which nothing is said about all of them together."""
BIASED: Final = 0.8
"""Share of pairs in which the same side is the longer one, from which that is a bias."""
FOLLOWING: Final = 0.5
"""Correlation of lengths with margins from which the judge is taken to go by length."""

DUPLICATES: Final = "duplicate_prompts"
LENGTH_BIAS, MARGIN_FOLLOWS_LENGTH = "length_bias", "margin_follows_length"
OF_ALL: Final = (LENGTH_BIAS, MARGIN_FOLLOWS_LENGTH)
"""Checks that all pairs together pass or fail."""
NAMES: Final = (*(check.name for check in CHECKS), DUPLICATES, TOKENS, *OF_ALL)


def lint_file(path: Path, *, max_tokens: int | None = None) -> Report:
    """What lint finds in a dataset file.

    Args:
        path: The file: JSON lines of any dataset mode.
        max_tokens: What a prompt with one answer may have at most, by estimate; None for no such check.

    Raises:
        UsageError: The file cannot be read.
    """
    linter = Linter(max_tokens=max_tokens)
    for item in read_samples(path):
        linter.add(item)
    return linter.report()


@dataclass(slots=True)
class _Tally:
    """What one check has found so far."""

    of: int = 0
    count: int = 0
    sides: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    def add(self, sample: Sample, hits: Iterable[Hit]) -> None:
        """Note that the check looked at a sample, and what it found there."""
        self.of += 1
        hits = tuple(hits)
        if not hits:
            return
        self.count += 1
        self.sides.update(hit.side for hit in hits if hit.side != BOTH)
        if len(self.examples) < MOST_EXAMPLES:
            said = (" ".join((f"{hit.side}:" if hit.side else "", _excerpt(hit.text))) for hit in hits)
            self.examples.append(Example(sample.row, " | ".join(said).strip()))

    def finding(self, check: str, about: str, advice: str) -> Finding:
        """What the check found."""
        return Finding(
            check,
            count=self.count,
            of=self.of,
            share=self.count / self.of,
            sides=dict(self.sides),
            about=about,
            advice=advice,
            examples=tuple(self.examples),
        )


class Linter:
    """Lint over samples as they come."""

    def __init__(self, *, max_tokens: int | None = None) -> None:
        """Begin with nothing.

        Args:
            max_tokens: See `lint_file`.
        """
        self._tallies = {name: _Tally() for name in NAMES}
        self._checks = [(check, self._tallies[check.name]) for check in CHECKS]
        self._max_tokens = max_tokens
        self._seen: dict[bytes, int] = {}
        self._lengths = _LengthSums()
        self._modes: set[str] = set()
        self._rows = self._samples = self._unpaired = self._longest = self._bad = 0
        self._bad_lines: list[BadLine] = []

    def add(self, item: Sample | BadLine) -> None:
        """Look at a sample, or note a bad line."""
        if isinstance(item, BadLine):
            self._bad += 1
            if len(self._bad_lines) < MOST_BAD_LINES:
                self._bad_lines.append(item)
            return
        texts = Texts.of(item)
        self._modes.add(item.mode)
        self._rows += item.rows
        self._samples += 1
        self._unpaired += item.mode == "kto" and not texts.is_pair
        for check, tally in self._checks:
            hits = check.find(texts)
            if hits is not None:
                tally.add(item, hits)
        self._tallies[DUPLICATES].add(item, self._duplicates(item))
        self._count_tokens(item)
        if texts.chosen is not None and texts.rejected is not None:
            self._lengths.add(len(texts.chosen), len(texts.rejected), item.margin)

    def _duplicates(self, sample: Sample) -> Iterator[Hit]:
        """The prompt, when another sample had it that has a side of this one."""
        mark = blake2b(fingerprint(sample.prompt).encode("utf-8", "replace"), digest_size=12).digest()
        sides = (sample.chosen is not None) + 2 * (sample.rejected is not None)
        before = self._seen.get(mark, 0)
        self._seen[mark] = before | sides
        if before & sides:
            yield Hit(BOTH, sample.prompt)

    def _count_tokens(self, sample: Sample) -> None:
        longest = max(len(text) for text in (sample.chosen, sample.rejected) if text is not None)
        tokens = tokens_for(len(sample.prompt) + longest)
        self._longest = max(self._longest, tokens)
        if self._max_tokens is not None:
            hits = [Hit(f"about {tokens:,} tokens", sample.prompt)] if tokens > self._max_tokens else []
            self._tallies[TOKENS].add(sample, hits)

    def report(self) -> Report:
        """What was found so far."""
        lengths = self._lengths.lengths()
        shares = {
            name: tally.count / tally.of
            for name, tally in self._tallies.items()
            if tally.of and name not in OF_ALL
        }
        findings = [
            tally.finding(check.name, check.about, check.advice)
            for check, tally in self._checks
            if tally.count
        ]
        findings += self._further_findings()
        if lengths is not None and lengths.pairs >= FEW:
            shares[LENGTH_BIAS] = max(lengths.chosen_longer, lengths.rejected_longer)
            findings += _bias(lengths)
            if lengths.margin_correlation is not None and self._lengths.judged >= FEW:
                shares[MARGIN_FOLLOWS_LENGTH] = max(0.0, lengths.margin_correlation) ** 2
                findings += _following(lengths.margin_correlation, self._lengths.judged)
        return Report(
            mode=max(self._modes, key=len, default=""),
            rows=self._rows,
            samples=self._samples,
            unpaired=self._unpaired,
            longest_tokens=self._longest,
            lengths=lengths,
            shares=shares,
            findings=tuple(findings),
            bad_lines=self._bad,
            first_bad_lines=tuple(self._bad_lines),
        )

    def _further_findings(self) -> Iterator[Finding]:
        duplicates, tokens = self._tallies[DUPLICATES], self._tallies[TOKENS]
        if duplicates.count:
            about = "the prompt stands in an earlier row, but for case, spaces and punctuation around it"
            yield duplicates.finding(
                DUPLICATES, about, "keep one row of each prompt: else test rows repeat training rows"
            )
        if tokens.count:
            # How many tokens stands at each example, and is no side.
            tokens.sides.clear()
            about = (
                f"prompt and answer have more than {self._max_tokens:,} tokens by estimate "
                f"({CHARACTERS_PER_TOKEN} characters a token)"
            )
            advice = "remove these rows, or raise the trainer's limit: else it cuts them off in silence"
            yield tokens.finding(TOKENS, about, advice)


def _bias(lengths: Lengths) -> Iterator[Finding]:
    longer, side = max((lengths.chosen_longer, CHOSEN), (lengths.rejected_longer, REJECTED))
    if longer < BIASED:
        return
    about = (
        f"{side} is the longer one; chosen has {lengths.chosen_mean:,.0f} characters on average, rejected "
        f"{lengths.rejected_mean:,.0f}"
    )
    advice = "ask for the same length in both templates, or train with a length penalty: else it is learned"
    yield Finding(LENGTH_BIAS, round(longer * lengths.pairs), lengths.pairs, longer, {}, about, advice)


def _following(correlation: float, judged: int) -> Iterator[Finding]:
    if correlation < FOLLOWING:
        return
    about = f"the judge's margin grows with chosen's length beyond rejected's (correlation {correlation:.2f})"
    advice = "say in the judge's rubric that length is no merit, or balance the lengths of both sides"
    yield Finding(MARGIN_FOLLOWS_LENGTH, judged, judged, correlation**2, {}, about, advice)


def _excerpt(text: str) -> str:
    shown = printable_line(text, EXCERPT)
    return f"{shown}…" if len(text) > EXCERPT else shown


class _LengthSums:
    """Lengths of pairs as running sums; those with margins by Welford's method, which loses no digits."""

    def __init__(self) -> None:
        self._pairs = self._chosen = self._rejected = 0
        self._chosen_longer = self._rejected_longer = 0
        self.judged = 0
        self._mean_length = self._mean_margin = 0.0
        self._lengths = self._margins = self._both = 0.0

    def add(self, chosen: int, rejected: int, margin: float | None) -> None:
        self._pairs += 1
        self._chosen_longer += chosen > rejected
        self._rejected_longer += rejected > chosen
        self._chosen += chosen
        self._rejected += rejected
        if margin is None:
            return
        self.judged += 1
        of_length, of_margin = chosen - rejected - self._mean_length, margin - self._mean_margin
        self._mean_length += of_length / self.judged
        self._mean_margin += of_margin / self.judged
        length_left = chosen - rejected - self._mean_length
        self._lengths += of_length * length_left
        self._margins += of_margin * (margin - self._mean_margin)
        self._both += of_margin * length_left

    def lengths(self) -> Lengths | None:
        if not self._pairs:
            return None
        spread = math.sqrt(self._lengths) * math.sqrt(self._margins)
        correlation = self._both / spread if spread else math.nan
        return Lengths(
            pairs=self._pairs,
            chosen_longer=self._chosen_longer / self._pairs,
            rejected_longer=self._rejected_longer / self._pairs,
            chosen_mean=self._chosen / self._pairs,
            rejected_mean=self._rejected / self._pairs,
            ratio=self._chosen / self._rejected if self._rejected else None,
            # Rounding may leave a little more than 1, and margins beyond all reason none at all.
            margin_correlation=max(-1.0, min(1.0, correlation)) if math.isfinite(correlation) else None,
        )


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

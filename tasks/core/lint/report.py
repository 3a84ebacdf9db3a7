"""What lint found, as data and as lines for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.core.rows.samples import BadLine


@dataclass(frozen=True, slots=True)
class Example:
    """Where a finding shows.

    Attributes:
        row: The line's number in the file, from 1.
        text: A few words of it, on one line that a terminal may show.
    """

    row: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: The check's name.
        count: In how many samples.
        of: Of how many that it looked at.
        share: `count / of`; of `margin_follows_length`, the share of the margins that lengths explain.
        sides: How often on which side, where that can be told.
        about: What is wrong, to be read after the count.
        advice: What to do.
        examples: The first three.
    """

    check: str
    count: int
    of: int
    share: float
    sides: Mapping[str, int]
    about: str
    advice: str
    examples: Sequence[Example] = ()


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the answers of all pairs are.

    Attributes:
        pairs: Pairs with both sides.
        chosen_longer: Share of them in which the chosen answer is the longer one.
        rejected_longer: The same for the rejected one.
        chosen_mean: Characters of a chosen answer, on average.
        rejected_mean: The same of a rejected one.
        ratio: The first by the second; None when rejected answers have no characters.
        margin_correlation: Of the difference in characters with the judge's margin, -1 to 1; None where
            there are no margins, or no two that differ.
    """

    pairs: int
    chosen_longer: float
    rejected_longer: float
    chosen_mean: float
    rejected_mean: float
    ratio: float | None
    margin_correlation: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What lint found in a dataset file.

    Attributes:
        mode: The dataset mode by the form of the rows; "" when there are none.
        rows: Rows that were read.
        samples: Pairs that they hold; in sft, and of kto rows without another side, single answers.
        unpaired: Rows of kto whose other side was not found.
        longest_tokens: Tokens of the longest prompt with one answer, by estimate.
        lengths: How long both sides are; None without pairs.
        shares: The share of each check that applied, whether it found anything or not.
        findings: What was found, in the order of the checks.
        bad_lines: How many lines are no rows.
        first_bad_lines: The first of them.
    """

    mode: str
    rows: int
    samples: int
    unpaired: int
    longest_tokens: int
    lengths: Lengths | None
    shares: Mapping[str, float]
    findings: Sequence[Finding]
    bad_lines: int
    first_bad_lines: Sequence[BadLine]

    @property
    def unit(self) -> str:
        """What a sample is called: `pair`, `answer`, or `row` where both occur."""
        if self.mode == "sft":
            return "answer"
        return "row" if self.unpaired else "pair"

    def document(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def figures(self) -> dict[str, Any]:
        """The same without texts: no examples, no advice."""
        without = {"about", "advice", "examples"}
        found = [
            {name: value for name, value in asdict(item).items() if name not in without}
            for item in self.findings
        ]
        return asdict(self) | {"findings": found}

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = [f"{self.counted} ({self.mode}); {len(self.shares)} checks: {', '.join(self.shares)}"]
        if self.lengths is not None:
            lines.append(_length_line(self.lengths))
        lines.append(f"the longest row has about {self.longest_tokens:,} tokens (an estimate)")
        if self.unpaired:
            lines.append(f"{self.unpaired:,} of the rows have no row of the other label with their prompt")
        for item in self.findings:
            lines += ["", f"{item.check}: {in_words(item, self.unit)}"]
            lines += [f"  row {example.row}: {example.text}" for example in item.examples]
            lines.append(f"  what to do: {item.advice}")
        return lines if self.findings else [*lines, "nothing found"]

    def brief(self) -> str:
        """All findings on one line; "" when there are none."""
        found = ", ".join(f"{item.check} {item.count:,} ({_percent(item.share)})" for item in self.findings)
        return f"lint found in {self.counted}: {found}" if found else ""

    @property
    def counted(self) -> str:
        """How many there are: `1 pair`, `12 pairs`."""
        return f"{self.samples:,} {self.unit}{'' if self.samples == 1 else 's'}"


def in_words(finding: Finding, unit: str) -> str:
    """A finding on one line: how many of how many, what is wrong, on which side."""
    sides = ", ".join(f"{count:,} {side}" for side, count in finding.sides.items())
    which = f" ({sides})" if sides else ""
    return f"{finding.count:,} of {finding.of:,} {unit}s, {_percent(finding.share)}: {finding.about}{which}"


def _length_line(lengths: Lengths) -> str:
    line = (
        f"chosen is longer in {_percent(lengths.chosen_longer)}: {lengths.chosen_mean:,.0f} characters "
        f"on average against {lengths.rejected_mean:,.0f}"
    )
    if lengths.margin_correlation is not None:
        line += (
            f"; the judge's margin and the difference in length correlate by {lengths.margin_correlation:.2f}"
        )
    return line


def _percent(share: float) -> str:
    """A share as it is shown; what is there is never shown as nothing, nor what lacks some as all."""
    text = f"{share:.1%}"
    if text == "0.0%" and share:
        return "<0.1%"
    return ">99.9%" if text == "100.0%" and share < 1 else text

"""The report's plots: what is drawn of the facts and of the rows."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from unicodedata import east_asian_width

from tasks.core.generation.pairs import is_kept_out
from tasks.core.models import Purpose
from tasks.core.printable import printable_line
from tasks.core.report.svg import LEGEND, LETTER, Plot, Scale
from tasks.core.report.tally import LENGTH_BINS, MARGIN_BINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markupsafe import Markup

    from tasks.core.report.svg import Colour
    from tasks.core.report.tally import AnswerRate, ReportFacts, Tally


LABEL: Final = 28
"""Characters of a name beside a bar."""
LOWEST, TALLEST = 195.0, 330.0
"""Points of the plot of scores, however many criteria there are."""
COLOURS: Final[dict[Purpose, Colour]] = {
    Purpose.SUBTOPICS: "subtopics",
    Purpose.PROMPTS: "prompts",
    Purpose.CHOSEN: "chosen",
    Purpose.REJECTED: "rejected",
    Purpose.JUDGE: "judge",
}
STEPS: Final = ("pairs wanted", "prompts written", "answered", "kept")
SIDES: Final[tuple[tuple[str, Colour], ...]] = (("chosen", "chosen"), ("rejected", "rejected"))
MOST_BARS: Final = 40
"""Bars of the plot of coverage: where subtopics have more rows, a bar stands for several counts."""
MOST_WHOLE: Final = 100_000
"""From here on a number of characters is shortened."""
SLIM, BROAD = 0.88, 0.72
"""How much of its place a bar takes."""


def draw_plots(facts: ReportFacts, tally: Tally) -> dict[str, Markup]:
    """The plots that there is something for, by name."""
    drawn = {"funnel": _funnel(facts, tally)}
    if tally.samples:
        drawn["lengths"] = _lengths(tally)
    if tally.margins:
        drawn["margins"] = _margins(tally)
    if tally.scores:
        drawn["scores"] = _scores(tally)
    if len(facts.subtopics or tally.subtopics) > 1 and tally.subtopics:
        drawn["coverage"] = _coverage(facts, tally)
    if facts.bill.usage().tokens:
        drawn["tokens"] = _tokens(facts)
    if facts.rate is not None:
        drawn["rate"] = _rate(facts.rate)
    return drawn


def _funnel(facts: ReportFacts, tally: Tally) -> Markup:
    prompts = len(facts.jobs)
    written = prompts + sum(facts.dropped.values())
    answerless = sum(count for cause, count in facts.lost.items() if not is_kept_out(cause))
    counts = (facts.wanted, written, prompts - sum(facts.failed.values()) - answerless, tally.samples)
    plot = Plot(Scale(0, max(*counts, 1) * 1.28), _rows(STEPS), height=145, left=_beside(STEPS), bottom=8)
    plot.y_axis(enumerate(STEPS))
    colours: tuple[Colour, ...] = ("line", "prompts", "judge", "chosen")
    for place, (count, colour) in enumerate(zip(counts, colours, strict=True)):
        plot.bar((0, count), _around(place, BROAD), colour)
        share = f"  ({count / facts.wanted:.1%})" if facts.wanted else ""
        plot.label(count, place, f"{count:,}{share}")
    return plot.markup("from wanted to kept")


def _lengths(tally: Tally) -> Markup:
    there = [
        (side, counts)
        for side, counts in zip(SIDES, (tally.chosen_lengths, tally.rejected_lengths), strict=True)
        if counts
    ]
    first = min(min(counts) for _, counts in there)
    last = max(max(counts) for _, counts in there)
    edges = [2 ** (place / LENGTH_BINS) for place in range(first, last + 2)]
    x, y = Scale(edges[0], edges[-1], is_log=True), _from_zero(max(max(it.values()) for _, it in there))
    plot = Plot(x, y, top=LEGEND)
    plot.y_axis(_short_ticks(y, whole=True), "answers", grid=True)
    for (_, colour), counts in there:
        heights = [counts[place] for place in range(first, last + 1)]
        plot.steps(edges, heights, colour, line=True, opacity=0.35)
    # Where all are about as long, no power of two lies between them.
    shown = x.ticks() or [round(edges[0])]
    plot.x_axis(
        [(length, f"{length:,}" if length < MOST_WHOLE else _short(length)) for length in shown], "characters"
    )
    plot.legend([side for side, _ in there])
    return plot.markup("lengths of the answers")


def _margins(tally: Tally) -> Markup:
    places = range(min(tally.margins), max(tally.margins) + 1)
    x = Scale(min(places.start, 0) / MARGIN_BINS, max(places.stop, 0) / MARGIN_BINS)
    y = _from_zero(max(tally.margins.values()))
    plot = Plot(x, y)
    plot.y_axis(_short_ticks(y, whole=True), "pairs", grid=True)
    for place in places:
        colour: Colour = "bad" if place < 0 else "chosen"
        plot.bar((place / MARGIN_BINS, (place + SLIM) / MARGIN_BINS), (0, tally.margins[place]), colour)
    plot.line((0, 0), (y.low, y.high), "ink")
    plot.x_axis(
        [(value, f"{value:g}".replace("-", "\N{MINUS SIGN}")) for value in x.ticks()],
        "score of chosen beyond that of rejected",
    )
    return plot.markup("the judge's margins")


def _scores(tally: Tally) -> Markup:
    names = [printable_line(name, LABEL).replace("_", " ") for name in tally.scores]
    height = min(TALLEST, max(LOWEST, 72 + 22 * len(names)))
    plot = Plot(Scale(0.9, 5.1), _rows(names), height=height, left=_beside(names), top=LEGEND)
    # By place and not by name: two names may look the same when they are cut.
    plot.y_axis(enumerate(names))
    plot.x_axis([(score, str(score)) for score in range(1, 6)], "mean score", grid=True)
    for place, item in enumerate(tally.scores.values()):
        ends: list[tuple[float, Colour]] = []
        if item.rejected_count:
            ends.append((item.rejected / item.rejected_count, "rejected"))
        if item.chosen_count:
            ends.append((item.chosen / item.chosen_count, "chosen"))
        plot.line((ends[0][0], ends[-1][0]), (place, place), "line", width=3)
        for mean, colour in ends:
            plot.dot(mean, place, colour)
    plot.legend(SIDES)
    return plot.markup("mean scores by criterion")


def _coverage(facts: ReportFacts, tally: Tally) -> Markup:
    counts = [tally.subtopics[name] for name in dict.fromkeys([*facts.subtopics, *tally.subtopics])]
    most = max(counts)
    width = max(1, math.ceil((most + 1) / MOST_BARS))
    bins = [0] * (most // width + 1)
    for count in counts:
        bins[count // width] += 1
    x, y = Scale(-0.5, len(bins) * width - 0.5), _from_zero(max(bins))
    plot = Plot(x, y)
    plot.y_axis(_short_ticks(y, whole=True), "subtopics", grid=True)
    for at, number in enumerate(bins):
        middle = at * width + (width - 1) / 2
        half = SLIM * width / 2
        plot.bar((middle - half, middle + half), (0, number), "prompts" if at else "bad")
    plot.x_axis(_short_ticks(x, whole=True), "rows of a subtopic")
    return plot.markup("subtopics by rows")


def _tokens(facts: ReportFacts) -> Markup:
    sent, said = (dict.fromkeys(map(str, Purpose), 0) for _ in range(2))
    for _, purpose, usage in facts.bill:
        sent[purpose] = sent.get(purpose, 0) + usage.prompt_tokens
        said[purpose] = said.get(purpose, 0) + usage.completion_tokens + usage.estimated_tokens
    names = [name for name in sent if sent[name] or said[name]]
    x = Scale(0, 1.15 * max(sent[name] + said[name] for name in names))
    plot = Plot(x, _rows(names), left=_beside(names), top=LEGEND)
    plot.y_axis(enumerate(names))
    plot.x_axis(_short_ticks(x, whole=True), "tokens", grid=True)
    for place, name in enumerate(names):
        total = sent[name] + said[name]
        plot.bar((0, sent[name]), _around(place, BROAD), "quiet", opacity=0.55)
        plot.bar((sent[name], total), _around(place, BROAD), "judge")
        plot.label(total, place, _short(total))
    plot.legend((("in", "quiet"), ("out", "judge")))
    return plot.markup("tokens by kind of call")


def _rate(rate: AnswerRate) -> Markup:
    names = [str(purpose) for purpose in Purpose if str(purpose) in rate.counts]
    length = len(next(iter(rate.counts.values())))
    unit, seconds = _unit(rate.step * length)
    edges = [place * rate.step / seconds for place in range(length + 1)]
    stacked: list[Sequence[float]] = [[0.0] * length]
    for name in names:
        more = [60 * count / rate.step for count in rate.counts[name]]
        stacked.append([low + high for low, high in zip(stacked[-1], more, strict=True)])
    x, y = Scale(0, edges[-1]), _from_zero(max(stacked[-1]))
    plot = Plot(x, y, top=LEGEND)
    plot.y_axis(_short_ticks(y), "answers a minute", grid=True)
    for name, below, above in zip(names, stacked, stacked[1:], strict=False):
        plot.steps(edges, above, COLOURS[Purpose(name)], base=below)
    began = datetime.fromtimestamp(rate.began, UTC)
    plot.x_axis(_short_ticks(x), f"{unit} since {began:%Y-%m-%d %H:%M} UTC")
    plot.legend([(name, COLOURS[Purpose(name)]) for name in names])
    return plot.markup("answers over time")


def _rows(names: Sequence[str]) -> Scale:
    """A scale on which each name has a row, the first one at the top."""
    return Scale(len(names) - 0.5, -0.5)


def _around(place: int, width: float) -> tuple[float, float]:
    return place - width / 2, place + width / 2


def _from_zero(most: float) -> Scale:
    """A scale of counts, with a little room above the highest."""
    return Scale(0, 1.05 * most or 1.0)


def _short_ticks(scale: Scale, *, whole: bool = False) -> list[tuple[float, str]]:
    return [(value, _short(value)) for value in scale.ticks(whole=whole)]


def _beside(labels: Iterable[str]) -> float:
    """Points that labels take left of a plot."""
    widths = (sum(1 + (east_asian_width(letter) in "WF") for letter in label) for label in labels)
    return 14 + LETTER * max(widths)


def _unit(seconds: float) -> tuple[str, float]:
    """The unit that a stretch of time is shown in, and how many seconds it has."""
    for name, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return name, length
    return "seconds", 1.0


def _short(value: float) -> str:
    """A number in few characters: 950, 1.5k, 20M."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"

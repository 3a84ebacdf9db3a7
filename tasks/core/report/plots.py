"""The report's plots, as inline SVG in the page's own colours and font.

The page's policy allows no style attributes, and light and dark have colours of their own. So every colour
is a variable of the page's style sheet, and every text has the page's font.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal
from unicodedata import east_asian_width
from xml.etree import ElementTree as ET

from markupsafe import Markup

from tasks.core.generation.pairs import is_kept_out
from tasks.core.models import Purpose
from tasks.core.printable import printable_line
from tasks.core.report.tally import LENGTH_BINS, MARGIN_BINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.core.report.tally import AnswerRate, ReportFacts, Tally

Colour = Literal[
    "ink", "quiet", "line", "chosen", "rejected", "bad", "subtopics", "prompts", "judge"
]  # fmt: skip
"""A variable of the page's style sheet."""
Anchor = Literal["start", "middle", "end"]

WIDTH: Final = 400.0
FONT: Final = 9.0
LETTER: Final = 0.62 * FONT
"""The width of a letter in a usual font."""
EDGE: Final = 8.0
LEGEND: Final = 24.0
"""What a legend takes above a plot. All of these are points; the page scales the whole."""
MOST_TICKS: Final = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values lie along one side of a plot.

    Attributes:
        low: The value at the beginning.
        high: The value at the end; a range without any width is shown with a width of one.
        is_log: Whether each doubling takes as much room.
    """

    low: float
    high: float
    is_log: bool = False

    def share(self, value: float) -> float:
        """How far along a value lies: 0 at the beginning, 1 at the end."""
        low, high, at = (math.log2(end) if self.is_log else end for end in (self.low, self.high, value))
        return (at - low) / ((high - low) or 1.0)

    def ticks(self, *, whole: bool = False) -> list[float]:
        """Round numbers on the scale, at most `MOST_TICKS`.

        Args:
            whole: Whether what is counted comes in ones.
        """
        if self.is_log:
            first, last = math.ceil(math.log2(self.low)), math.floor(math.log2(self.high))
            stride = max(1, math.ceil((last - first + 1) / MOST_TICKS))
            return [2**power for power in range(first, last + 1, stride)]
        step = ((self.high - self.low) or 1.0) / (MOST_TICKS - 1)
        magnitude = 10.0 ** math.floor(math.log10(step))
        step = next(size * magnitude for size in (1, 2, 5, 10) if size * magnitude >= step)
        step = max(1.0, step) if whole else step
        # A little more than nothing: 0.3 / 0.1 is less than 3.
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [place * step for place in range(first, last + 1)]


class Plot:
    """An `<svg>` that is drawn piece by piece; values that lie higher are drawn higher."""

    def __init__(
        self,
        x: Scale,
        y: Scale,
        *,
        height: float = 195.0,
        left: float = 58.0,
        top: float = EDGE,
        bottom: float = 36.0,
    ) -> None:
        """An empty plot.

        Args:
            x: The scale from left to right.
            y: The scale from the bottom to the top.
            height: Points in all.
            left: Points left of the scales.
            top: Points above them.
            bottom: Points below them.
        """
        self._x, self._y = x, y
        self._left, self._right = left, WIDTH - EDGE
        self._top, self._bottom = top, height - bottom
        self._root = ET.Element(
            "svg", {"class": "plot", "role": "img", "viewBox": f"0 0 {WIDTH:g} {height:g}"}
        )

    def markup(self, title: str) -> Markup:
        """The element.

        Args:
            title: What it shows, for those who cannot see it.
        """
        self._root.set("aria-label", title)
        return Markup(ET.tostring(self._root, encoding="unicode"))  # noqa: S704 - written as XML, escaped

    def bar(
        self, x: tuple[float, float], y: tuple[float, float], colour: Colour, opacity: float = 1.0
    ) -> None:
        """A filled rectangle between two values of each scale."""
        (left, right), (top, bottom) = sorted(map(self._across, x)), sorted(map(self._down, y))
        if right > left and bottom > top:
            self._rectangle((left, top), (right - left, bottom - top), colour, opacity)

    def steps(
        self,
        edges: Sequence[float],
        heights: Sequence[float],
        colour: Colour,
        *,
        base: Sequence[float] | None = None,
        line: bool = False,
        opacity: float = 1.0,
    ) -> None:
        """A filled staircase.

        Args:
            edges: Where the steps begin and end along x: one more than there are steps.
            heights: How high each goes.
            colour: Its colour.
            base: Where each begins, left out for 0.
            line: Whether its upper edge is drawn as a line, too.
            opacity: Of what is filled.
        """
        upper = self._staircase(edges, heights)
        lower = self._staircase(edges, base or [0.0] * len(heights))
        self._path([*upper, *reversed(lower)], {"fill": _paint(colour), "fill-opacity": f"{opacity:g}"})
        if line:
            ends = [lower[0], *upper, lower[-1]]
            self._path(ends, {"fill": "none", "stroke": _paint(colour), "stroke-width": "1.4"})

    def line(
        self, x: tuple[float, float], y: tuple[float, float], colour: Colour, width: float = 1.0
    ) -> None:
        """A straight line from one point to another."""
        ends = [(self._across(at), self._down(height)) for at, height in zip(x, y, strict=True)]
        drawn = {"stroke": _paint(colour), "stroke-width": f"{width:g}", "stroke-linecap": "round"}
        self._path(ends, {"fill": "none"} | drawn)

    def dot(self, x: float, y: float, colour: Colour) -> None:
        """A point."""
        middle = {"cx": f"{self._across(x):.1f}", "cy": f"{self._down(y):.1f}"}
        self._add("circle", middle | {"r": "3.5", "fill": _paint(colour)})

    def label(self, x: float, y: float, words: str) -> None:
        """Words right of a point."""
        self._words(self._across(x) + 5, self._down(y) + 0.35 * FONT, words, "ink", "start")

    def x_axis(self, ticks: Iterable[tuple[float, str]], name: str, *, grid: bool = False) -> None:
        """The scale below the plot: values with what stands there, and what they count.

        Args:
            ticks: The values.
            name: What they count.
            grid: Whether a line goes up from each.
        """
        for value, words in ticks:
            at = self._across(value)
            if grid:
                self._grid([(at, self._top), (at, self._bottom)])
            self._words(at, self._bottom + 1.5 * FONT, words, "quiet", "middle")
        self._grid([(self._left, self._bottom), (self._right, self._bottom)], width=0.8)
        self._words((self._left + self._right) / 2, self._bottom + 3 * FONT, name, "quiet", "middle")

    def y_axis(self, ticks: Iterable[tuple[float, str]], name: str = "", *, grid: bool = False) -> None:
        """The scale left of the plot; see `x_axis`."""
        for value, words in ticks:
            at = self._down(value)
            if grid:
                self._grid([(self._left, at), (self._right, at)])
            self._words(self._left - 5, at + 0.35 * FONT, words, "quiet", "end")
        if name:
            x, y = 1.3 * FONT, (self._top + self._bottom) / 2
            turned = self._words(x, y, name, "quiet", "middle")
            turned.set("transform", f"rotate(-90 {x:.1f} {y:.1f})")

    def legend(self, entries: Sequence[tuple[str, Colour]]) -> None:
        """What the colours mean, above the plot."""
        gap = 2 * FONT
        widths = [gap + LETTER * len(name) for name, _ in entries]
        at = max(self._left, (self._left + self._right - sum(widths)) / 2)
        for (name, colour), width in zip(entries, widths, strict=True):
            self._rectangle((at, 0.9 * EDGE), (FONT, 0.75 * FONT), colour)
            self._words(at + 1.4 * FONT, 0.9 * EDGE + 0.75 * FONT, name, "quiet", "start")
            at += width

    def _across(self, value: float) -> float:
        return self._left + self._x.share(value) * (self._right - self._left)

    def _down(self, value: float) -> float:
        return self._bottom - self._y.share(value) * (self._bottom - self._top)

    def _staircase(self, edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
        found = []
        for place, height in enumerate(heights):
            found += [(self._across(edge), self._down(height)) for edge in edges[place : place + 2]]
        return found

    def _grid(self, points: Sequence[tuple[float, float]], width: float = 0.6) -> None:
        self._path(points, {"fill": "none", "stroke": _paint("line"), "stroke-width": f"{width:g}"})

    def _path(self, points: Sequence[tuple[float, float]], look: dict[str, str]) -> None:
        self._add("path", {"d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)} | look)

    def _rectangle(
        self, corner: tuple[float, float], size: tuple[float, float], colour: Colour, opacity: float = 1.0
    ) -> None:
        numbers = zip(("x", "y", "width", "height"), (*corner, *size), strict=True)
        place = {name: f"{number:.1f}" for name, number in numbers}
        self._add("rect", place | {"fill": _paint(colour), "fill-opacity": f"{opacity:g}"})

    def _words(self, x: float, y: float, words: str, colour: Colour, anchor: Anchor) -> ET.Element:
        place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": f"{FONT:g}"}
        element = self._add("text", place | {"fill": _paint(colour)})
        element.text = words
        return element

    def _add(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        return ET.SubElement(self._root, tag, attributes)


def _paint(colour: Colour) -> str:
    return f"var(--{colour})"


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
    Purpose.COMPARISON: "ink",
    Purpose.CHECKLIST: "quiet",
    Purpose.CHECKS: "ink",
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

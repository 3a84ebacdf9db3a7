"""A plot as inline SVG: two scales, marks between them, their axes and a legend.

The page's policy allows no style attributes, and light and dark have colours of their own. So every colour
is a variable of the page's style sheet, and every text has the page's font.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from xml.etree import ElementTree as ET

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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

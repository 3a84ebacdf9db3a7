"""The report's plots, as inline SVG in the page's own colours and font.

Matplotlib writes colours as numbers and styles as attributes. The page's policy allows no style attributes,
and light and dark need other numbers: each style becomes attributes of SVG, each colour a CSS variable.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unicodedata import east_asian_width
from xml.etree import ElementTree as ET

from markupsafe import Markup

from tasks.core import files
from tasks.core.generation.pairs import is_kept_out
from tasks.core.models import Purpose
from tasks.core.printable import printable_line
from tasks.core.report.tally import LENGTH_BINS, MARGIN_BINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tasks.core.report.tally import AnswerRate, ReportFacts, Tally


INK, QUIET, LINE = "#010101", "#020202", "#030303"
CHOSEN, REJECTED, BAD = "#040404", "#050505", "#060606"
SUBTOPICS, PROMPTS, JUDGE = "#070707", "#080808", "#090909"
PAPER = "#0a0a0a"
"""Colours that stand for those of the page; nothing else is drawn with them."""

VARIABLES: Final = {
    INK: "ink",
    QUIET: "quiet",
    LINE: "line",
    CHOSEN: "chosen",
    REJECTED: "rejected",
    BAD: "bad",
    SUBTOPICS: "subtopics",
    PROMPTS: "prompts",
    JUDGE: "judge",
    PAPER: "paper",
}

_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    # A dollar in a criterion's name is a dollar.
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "grid.color": LINE,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "ytick.left": False,
    "xtick.bottom": False,
    "legend.frameon": False,
    "legend.labelcolor": QUIET,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "hatch.color": LINE,
}
FONT_LIST: Final = {
    "_version": "3.11.0",
    "_FontManager__default_weight": "normal",
    "default_size": None,
    "defaultFamily": {"ttf": "DejaVu Sans", "afm": "Helvetica"},
    "afmlist": [],
    "ttflist": [
        {
            "fname": "fonts/ttf/DejaVuSans.ttf",
            "name": "DejaVu Sans",
            "style": "normal",
            "variant": "normal",
            "weight": 400,
            "stretch": "normal",
            "size": "scalable",
            "__class__": "FontEntry",
        }
    ],
    "__class__": "FontManager",
}
"""What matplotlib keeps of the fonts that it found: here the one that it brings and measures texts with.

To look at all fonts of a machine takes it a fifth of a second, or much more where there are many. A version
that keeps its list in another form overlooks this one and looks.
"""
_NAMESPACE: Final = "{http://www.w3.org/2000/svg}"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}\b")
_URL: Final = re.compile(r"url\(#([^)]+)\)")
_FONT_SIZE: Final = re.compile(r"([\d.]+)px")


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib with the settings of the page's figures; the first imports it: half a second."""
    given = "MPLCONFIGDIR" in os.environ
    with files.folder_beside(Path(tempfile.gettempdir()), ".fonts.", files.SUFFIX) as folder:
        if not given:
            # It keeps a list of fonts, and makes folders for it in the home, where a run leaves nothing.
            os.environ["MPLCONFIGDIR"] = str(folder)
            fonts = folder / f"fontlist-v{FONT_LIST['_version']}.json"
            fonts.write_text(json.dumps(FONT_LIST), encoding="utf-8")
        try:
            # Half a second that only a report needs; the font manager reads the fonts when it is imported.
            import matplotlib.font_manager  # noqa: PLC0415
        finally:
            if not given:
                del os.environ["MPLCONFIGDIR"]
    # Of a script that its font lacks it measures a box; what people see is the font of their browser.
    warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
    with matplotlib.rc_context(_SETTINGS):
        yield


def inline(figure: Figure, name: str, title: str) -> Markup:
    """A figure as an `<svg>` element.

    Args:
        figure: The figure.
        name: A word that no other figure of the page has.
        title: What it shows, for those who cannot see it.
    """
    written = BytesIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    root = ET.fromstring(written.getvalue())  # noqa: S314 - matplotlib wrote it a moment ago
    for child in list(root):
        if child.tag.endswith("metadata"):
            root.remove(child)
    for parent in root.iter():
        for style in parent.findall(f"{_NAMESPACE}style"):
            parent.remove(style)
    for element in root.iter():
        _make_plain(element, name)
    for wish in ("width", "height", "version"):
        root.attrib.pop(wish, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": title, "stroke-linejoin": "round"}
    ET.register_namespace("", _NAMESPACE[1:-1])
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - written as XML, escaped


def _make_plain(element: ET.Element, name: str) -> None:
    """Attributes in place of an element's style, with the page's colours, and names that are its own."""
    attributes = element.attrib
    for item in attributes.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in item.partition(":"))
        if key == "font":
            if size := _FONT_SIZE.search(value):
                attributes["font-size"] = size[1]
        elif key and not key.startswith("font-family"):
            attributes[key] = value
    if _HREF in attributes:
        attributes["href"] = f"#{name}-{attributes.pop(_HREF)[1:]}"
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    for key, value in attributes.items():
        if key in {"fill", "stroke"}:
            attributes[key] = _COLOUR.sub(_variable, value)
        elif "url(" in value:
            attributes[key] = _URL.sub(rf"url(#{name}-\1)", value)


def _variable(colour: re.Match[str]) -> str:
    name = VARIABLES.get(colour[0])
    return f"var(--{name})" if name else colour[0]


WIDTH, HEIGHT = 5.6, 2.7
"""Inches, at 72 points each; the page scales it."""
NUMBERS: Final = 0.8
"""Inches left of a plot for numbers and what they count."""
LEGEND: Final = 0.32
"""Inches above a plot for its legend."""
EDGE: Final = 0.1
LABEL: Final = 28
"""Characters of a name beside a bar."""
TALLEST: Final = 4.6
COLOURS: Final = {
    Purpose.SUBTOPICS: SUBTOPICS,
    Purpose.PROMPTS: PROMPTS,
    Purpose.CHOSEN: CHOSEN,
    Purpose.REJECTED: REJECTED,
    Purpose.JUDGE: JUDGE,
}
STEPS: Final = ("pairs wanted", "prompts written", "answered", "kept")


def draw_plots(facts: ReportFacts, tally: Tally) -> dict[str, Markup]:
    """The plots that there is something for, by name."""
    drawn: dict[str, Markup] = {}

    def plot(
        name: str,
        title: str,
        draw: Callable[[Axes], None],
        *,
        height: float = HEIGHT,
        left: float = NUMBERS,
        top: float = EDGE,
        bottom: float = 0.5,
    ) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that only a report needs

        figure = Figure(figsize=(WIDTH, height))
        # Margins that matplotlib finds itself cost as much as all else of a plot.
        figure.subplots_adjust(left / WIDTH, bottom / height, 1 - EDGE / WIDTH, 1 - top / height)
        draw(figure.subplots())
        drawn[name] = inline(figure, name, title)

    with drawing():
        draw = lambda axes: _funnel(axes, facts, tally)  # noqa: E731 - as below
        plot("funnel", "from wanted to kept", draw, height=2.0, left=_beside(STEPS), bottom=EDGE)
        if tally.samples:
            plot("lengths", "lengths of the answers", lambda axes: _lengths(axes, tally))
        if tally.margins:
            plot("margins", "the judge's margins", lambda axes: _margins(axes, tally))
        if tally.scores:
            height = min(TALLEST, max(HEIGHT, 1.0 + 0.3 * len(tally.scores)))
            left = _beside(_labels(tally))
            draw = lambda axes: _scores(axes, tally)  # noqa: E731 - as below
            plot("scores", "mean scores by criterion", draw, height=height, left=left, top=LEGEND)
        if len(facts.subtopics or tally.subtopics) > 1 and tally.subtopics:
            plot("coverage", "subtopics by rows", lambda axes: _coverage(axes, facts, tally))
        if facts.bill.usage().tokens:
            left = _beside(list(Purpose))
            plot("tokens", "tokens by kind of call", lambda axes: _tokens(axes, facts), left=left, top=LEGEND)
        rate = facts.rate
        if rate is not None:
            plot("rate", "answers over time", lambda axes: _rate(axes, rate), top=LEGEND)
    return drawn


def _beside(labels: Sequence[str]) -> float:
    """Inches that labels take left of a plot, in a font as wide as matplotlib's own."""
    widths = (sum(1 + (east_asian_width(letter) in "WF") for letter in label) for label in labels)
    return 0.2 + 0.078 * max(widths)


def _labels(tally: Tally) -> list[str]:
    return [printable_line(name, LABEL).replace("_", " ") for name in tally.scores]


def _funnel(axes: Axes, facts: ReportFacts, tally: Tally) -> None:
    prompts = len(facts.jobs)
    written = prompts + sum(facts.dropped.values())
    answerless = sum(count for cause, count in facts.lost.items() if not is_kept_out(cause))
    counts = (facts.wanted, written, prompts - sum(facts.failed.values()) - answerless, tally.samples)
    most = max(*counts, 1)
    bars = axes.barh(STEPS, counts, color=[LINE, PROMPTS, JUDGE, CHOSEN], height=0.72)
    labels = [
        f"{count:,}  ({count / facts.wanted:.1%})" if facts.wanted else f"{count:,}" for count in counts
    ]
    axes.bar_label(bars, labels, padding=5, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.28)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _lengths(axes: Axes, tally: Tally) -> None:
    sides = (("chosen", tally.chosen_lengths, CHOSEN), ("rejected", tally.rejected_lengths, REJECTED))
    there = [(name, counts, colour) for name, counts, colour in sides if counts]
    first = min(min(counts) for _, counts, _ in there)
    last = max(max(counts) for _, counts, _ in there)
    edges = [2 ** (place / LENGTH_BINS) for place in range(first, last + 2)]
    for name, counts, colour in there:
        heights = [counts[place] for place in range(first, last + 1)]
        axes.stairs(heights, edges, color=colour, fill=True, alpha=0.35)
        axes.stairs(heights, edges, color=colour, linewidth=1.4, label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.set_xlabel("characters")
    axes.set_ylabel("answers")
    axes.yaxis.grid(visible=True, linewidth=0.6)
    axes.legend(loc="upper left")


def _margins(axes: Axes, tally: Tally) -> None:
    places = range(min(tally.margins), max(tally.margins) + 1)
    axes.bar(
        [place / MARGIN_BINS for place in places],
        [tally.margins[place] for place in places],
        width=0.88 / MARGIN_BINS,
        align="edge",
        color=[BAD if place < 0 else CHOSEN for place in places],
    )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlabel("score of chosen beyond that of rejected")
    axes.set_ylabel("pairs")
    axes.yaxis.grid(visible=True, linewidth=0.6)


def _scores(axes: Axes, tally: Tally) -> None:
    # Places and not names: two names may look the same when they are cut.
    places = range(len(tally.scores))
    for place, item in zip(places, tally.scores.values(), strict=True):
        ends = []
        for total, count, colour in (
            (item.rejected, item.rejected_count, REJECTED),
            (item.chosen, item.chosen_count, CHOSEN),
        ):
            if count:
                ends.append(total / count)
                axes.plot(total / count, place, "o", color=colour, markersize=7, zorder=3)
        axes.plot(ends, [place] * len(ends), color=LINE, linewidth=3, solid_capstyle="round")
    for name, colour in (("chosen", CHOSEN), ("rejected", REJECTED)):
        axes.plot([], [], "o", color=colour, label=name)
    axes.set_yticks(list(places), _labels(tally))
    axes.set_xlim(0.9, 5.1)
    axes.set_ylim(len(tally.scores) - 0.5, -0.5)
    axes.set_xticks(range(1, 6))
    axes.set_xlabel("mean score")
    axes.xaxis.grid(visible=True, linewidth=0.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _coverage(axes: Axes, facts: ReportFacts, tally: Tally) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    counts = [tally.subtopics[name] for name in dict.fromkeys([*facts.subtopics, *tally.subtopics])]
    most = max(counts)
    width = max(1, math.ceil((most + 1) / 40))
    bins = [0] * (most // width + 1)
    for count in counts:
        bins[count // width] += 1
    places = [place * width + (width - 1) / 2 for place in range(len(bins))]
    axes.bar(places, bins, width=0.88 * width, color=[BAD if not at else PROMPTS for at in places])
    axes.set_xlabel("rows of a subtopic")
    axes.set_ylabel("subtopics")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.grid(visible=True, linewidth=0.6)


def _tokens(axes: Axes, facts: ReportFacts) -> None:
    sent, said = (dict.fromkeys(map(str, Purpose), 0) for _ in range(2))
    for _, purpose, usage in facts.bill:
        sent[purpose] = sent.get(purpose, 0) + usage.prompt_tokens
        said[purpose] = said.get(purpose, 0) + usage.completion_tokens + usage.estimated_tokens
    names = [name for name in sent if sent[name] or said[name]]
    ins, outs = [sent[name] for name in names], [said[name] for name in names]
    axes.barh(names, ins, color=QUIET, alpha=0.55, height=0.66, label="in")
    bars = axes.barh(names, outs, left=ins, color=JUDGE, height=0.66, label="out")
    totals = [f"{_short(one + other)}" for one, other in zip(ins, outs, strict=True)]
    axes.bar_label(bars, totals, padding=5, color=INK)
    axes.set_xlim(0, 1.15 * max(one + other for one, other in zip(ins, outs, strict=True)))
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.invert_yaxis()
    axes.set_xlabel("tokens")
    axes.xaxis.grid(visible=True, linewidth=0.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _rate(axes: Axes, rate: AnswerRate) -> None:
    names = [str(purpose) for purpose in Purpose if str(purpose) in rate.counts]
    length = len(next(iter(rate.counts.values())))
    unit, seconds = _unit(rate.step * length)
    edges = [place * rate.step / seconds for place in range(length + 1)]
    below: Sequence[float] = [0.0] * length
    for name in names:
        top = [low + 60 * count / rate.step for low, count in zip(below, rate.counts[name], strict=True)]
        axes.stairs(top, edges, baseline=below, fill=True, color=COLOURS[Purpose(name)], label=name)
        below = top
    began = datetime.fromtimestamp(rate.began, UTC)
    axes.set_xlabel(f"{unit} since {began:%Y-%m-%d %H:%M} UTC")
    axes.set_ylabel("answers a minute")
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, 1.05 * max(below))
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.yaxis.grid(visible=True, linewidth=0.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names), handlelength=1.0)


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

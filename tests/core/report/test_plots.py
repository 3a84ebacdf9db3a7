"""The report's plots: round numbers beside them, nothing outside them, whatever was counted."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.report.plots import MOST_TICKS, WIDTH, Scale, draw_plots
from tasks.core.report.tally import AnswerRate, Scored, Tally
from tests.core.report.made import HOSTILE, facts, judged_rows

COLOURS = {"ink", "quiet", "line", "chosen", "rejected", "bad", "subtopics", "prompts", "judge"}


@pytest.mark.parametrize(
    ("scale", "whole", "ticks"),
    [
        (Scale(0, 7), False, [0, 1, 2, 3, 4, 5, 6, 7]),
        (Scale(0, 8), False, [0, 2, 4, 6, 8]),
        (Scale(0, 0.3), False, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (Scale(-1.25, 3), False, [-1, 0, 1, 2, 3]),
        (Scale(0, 1.05), False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Scale(0, 1.05), True, [0, 1]),
        (Scale(0, 123_456), False, [0, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000]),
        (Scale(3, 3), False, [3]),
        (Scale(5, 70, is_log=True), False, [8, 16, 32, 64]),
        (Scale(1, 2**20, is_log=True), False, [1, 8, 64, 512, 4096, 32_768, 262_144]),
        (Scale(5, 6, is_log=True), False, []),
    ],
)
def test_ticks_are_round_and_few(scale: Scale, ticks: list[float], *, whole: bool) -> None:
    assert scale.ticks(whole=whole) == pytest.approx(ticks)


@given(low=st.floats(-1e3, 1e3), width=st.floats(1e-2, 1e12), whole=st.booleans())
def test_ticks_lie_on_their_scale(low: float, width: float, *, whole: bool) -> None:
    scale = Scale(low, low + width)
    ticks = scale.ticks(whole=whole)
    assert len(ticks) <= MOST_TICKS + 1
    assert all(-1e-6 <= scale.share(value) <= 1 + 1e-6 for value in ticks)
    assert ticks == sorted(ticks)


@given(
    st.dictionaries(st.integers(0, 150), st.integers(1, 10**7), max_size=9),
    st.dictionaries(st.integers(-16, 16), st.integers(1, 10**7), max_size=9),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=9),
)
def test_whatever_was_counted_is_drawn_inside_of_the_plot(
    lengths: dict[int, int], margins: dict[int, int], counts: list[int]
) -> None:
    tally = Tally([])
    tally.samples = 1
    tally.chosen_lengths, tally.margins = Counter({3: 1} | lengths), Counter(margins)
    tally.subtopics = Counter({f"subtopic {number}": count for number, count in enumerate(counts)})
    rate = AnswerRate(0.0, 0.25, {"chosen": counts, "judge": counts[::-1]})
    drawn = draw_plots(facts(judged_rows(3), rate=rate), tally)
    assert ("margins" in drawn) == bool(margins)
    assert len(drawn) == 5 + bool(margins)
    for svg in drawn.values():
        _check(svg)


@pytest.mark.parametrize("count", [1, 20])
def test_names_of_criteria_are_text_beside_their_means(count: int) -> None:
    tally = Tally([])
    for number in range(count):
        tally.scores[f"{HOSTILE}{number}"] = Scored(chosen=8, chosen_count=2)
    svg = draw_plots(facts([]), tally)["scores"]
    root = _check(svg)
    assert len([*root.iter("circle")]) == count
    assert "<script" not in svg
    assert "</script><script>document" in "".join(root.itertext())


def _check(svg: str) -> ET.Element:
    """The element, of which everything lies inside, in a colour of the page's."""
    root = ET.fromstring(svg)  # noqa: S314 - our own, of a moment ago
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert width == WIDTH
    for element in root.iter():
        assert "style" not in element.attrib
        for value in (element.get("fill"), element.get("stroke")):
            if value not in {None, "none"}:
                assert (painted := re.fullmatch(r"var\(--(\w+)\)", value or ""))
                assert painted[1] in COLOURS
    points = []
    for element in root.iter("path"):
        points += [tuple(map(float, point.split())) for point in re.split("[ML]", element.attrib["d"])[1:]]
    for element in root.iter("rect"):
        x, y, wide, high = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
        points += [(x, y), (x + wide, y + high)]
    assert all(-0.1 <= x <= width + 0.1 and -0.1 <= y <= height + 0.1 for x, y in points)
    return root

"""Figures of matplotlib as inline SVG that takes its colours and its font from the page.

Matplotlib writes colours as numbers and styles as attributes. The page's policy allows no style attributes,
and light and dark need other numbers: each style becomes attributes of SVG, each colour a CSS variable.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

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
    with tempfile.TemporaryDirectory(prefix="vellumforge-") as folder:
        if not given:
            # It keeps a list of fonts, and makes folders for it in the home, where a run leaves nothing.
            os.environ["MPLCONFIGDIR"] = folder
            fonts = Path(folder, f"fontlist-v{FONT_LIST['_version']}.json")
            fonts.write_text(json.dumps(FONT_LIST), encoding="utf-8")
        try:
            import matplotlib as mpl  # noqa: PLC0415 - half a second that only a report needs
            import matplotlib.font_manager  # noqa: PLC0415 - it reads the fonts when it is imported
        finally:
            if not given:
                del os.environ["MPLCONFIGDIR"]
    # Of a script that its font lacks it measures a box; what people see is the font of their browser.
    warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
    with mpl.rc_context(_SETTINGS):
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

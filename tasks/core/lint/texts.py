"""What lint sees in texts: how alike two of them are, where one breaks off, its markup, its script.

Everything here takes time in proportion to the text, and a few microseconds for what most texts are.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Final

from tasks.core.answers import stops_mid_sentence

_PROBES: Final = 8
_PROBE_LENGTH: Final = 16
_PROBES_FOUND: Final = 2
"""Pieces of one text that are looked for in the other, and how many of them make a closer look worth it."""

_LONGEST_WORD: Final = 20
"""Characters a word on average; text with longer ones is written without spaces."""

_FEW_CHARACTERS: Final = 40
"""A text shorter than this may be a name, a number or a title, and needs no full stop."""

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING: Final = re.compile(r" {0,3}#{1,6} +\S")
_MARKED_LINE: Final = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)]) +(?![-*\s])\S|\s*\|.*\|\s*$")
_MARKED: Final = re.compile(r"\n\s*[-#`~|*+0-9]")
"""Where a line may begin with markup. As one that begins with a fixed character it is quick."""
_HTML_END: Final = re.compile(r"</[A-Za-z][A-Za-z0-9]*>")

_SCRIPTS: Final = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Tamil": "\u0b80-\u0bff",
    "Thai": "\u0e00-\u0e7f",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u137f",
    "Hangul": "\u1100-\u11ff\uac00-\ud7af",
    "kana": "\u3040-\u30ff",
    "Han": "\u3400-\u9fff\uf900-\ufaff",
}
_LETTERS: Final = {name: re.compile(f"[{span}]+") for name, span in _SCRIPTS.items()}
_NOT_LATIN: Final = re.compile("[\u0370-\u1dff\u1f00-\u1fff\u2c00-\ud7ff\uf900-\ufdff\ufe70-\uffdc]")
_SCRIPT_OPENING: Final = 1_000
"""Characters by which a text's script is told."""
_FEW_LETTERS: Final = 20
_JAPANESE: Final = 0.1
"""Kana for each Han from which on a text is Japanese and not Chinese."""


def likeness(one: str, other: str) -> float:
    """How much of two texts is the same: the share of neighbouring words that both have, 0 to 1.

    Texts that have little in common are told at once, and 0 is said of them.
    """
    short, long = sorted((one, other), key=len)
    if 2 * len(short) < len(long) or not short:
        return 0.0
    if len(short) > _PROBES * _PROBE_LENGTH:
        step = (len(short) - _PROBE_LENGTH) / (_PROBES - 1)
        starts = (round(number * step) for number in range(_PROBES))
        found = sum(short[start : start + _PROBE_LENGTH] in long for start in starts)
        if found < _PROBES_FOUND:
            return 0.0
    pairs_of_one, pairs_of_other = _word_pairs(one), _word_pairs(other)
    both = (pairs_of_one & pairs_of_other).total()
    return 2 * both / max(1, pairs_of_one.total() + pairs_of_other.total())


def _word_pairs(text: str) -> Counter[tuple[str, str]]:
    words = text.casefold().split()
    if len(text) > _LONGEST_WORD * len(words):
        words = list(text)
    return Counter(pairwise(words))


def breaks_off(text: str) -> bool:
    """Whether an answer stops inside a sentence or a block of code; in doubt it does not.

    Args:
        text: The answer, stripped.
    """
    if not text:
        return False
    if "```" in text or "~~~" in text:
        return _is_inside_code(text)
    if not stops_mid_sentence(text, finished=True):
        return False
    if text[-1].isalnum():
        last = text.rsplit(None, 1)[-1]
        return len(text) >= _FEW_CHARACTERS and "://" not in last and last[0] not in "#@"
    return True


def _is_inside_code(text: str) -> bool:
    fence = ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if found is None:
            continue
        if not fence:
            # A fence of backticks has none in what follows it on its line: that is code in a sentence.
            fence = "" if "`" in found[2] and found[1][0] == "`" else found[1]
        elif found[1].startswith(fence) and not found[2].strip():
            fence = ""
    return bool(fence)


def first_markup(text: str) -> str:
    """Where a text's markup begins: the line with it; "" for plain text.

    A heading or a fence is markup, and so are two of these: list items, table rows, bold texts, HTML tags.
    """
    if "**" not in text and "</" not in text and not _MARKED.search(f"\n{text}"):
        return ""
    first, seen = "", 0
    for line in text.splitlines():
        if _HEADING.match(line) or _FENCE.match(line):
            return first or line
        marks = bool(_MARKED_LINE.match(line)) + line.count("**") // 2 + len(_HTML_END.findall(line))
        if marks:
            first, seen = first or line, seen + marks
            if seen > 1:
                return first
    return ""


def scripts_of(one: str, other: str) -> tuple[str, str]:
    """The scripts of two texts where they differ, as `script_of` tells them; "" twice where they do not."""
    # Most texts have no other letters than Latin ones, also among typographic quotes and dashes.
    if not any(_NOT_LATIN.search(text, 0, _SCRIPT_OPENING) for text in (one, other) if not text.isascii()):
        return "", ""
    found = script_of(one), script_of(other)
    return found if all(found) and found[0] != found[1] else ("", "")


def script_of(text: str) -> str:
    """The script that most of a text's letters are of, by its opening; "" when it has few, or no one script.

    Two languages of one script are not told apart.
    """
    opening = text[:_SCRIPT_OPENING]
    counts = {name: sum(map(len, letters.findall(opening))) for name, letters in _LETTERS.items()}
    kana, han = counts.pop("kana"), counts.pop("Han")
    counts["Japanese" if kana > _JAPANESE * han else "Chinese"] = kana + han
    name, most = max(counts.items(), key=lambda item: item[1])
    total = sum(counts.values())
    return name if total >= _FEW_LETTERS and 2 * most > total else ""

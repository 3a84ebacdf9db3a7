"""Texts from outside, made so that they can be shown: in a terminal, and in Markdown.

Control characters move the cursor or hide what stands there, and marks of direction turn a line around. None
of them is printable: on one line a space stands in their place, in a longer text their number.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# Not the joiners U+200C and U+200D: Persian, Indic scripts and emoji are written with them.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


MOST_OF_A_REASON: Final = 1000
"""Characters of what a foreign error says."""


def printable_line(text: str, most: int) -> str:
    """The text on one line, without control characters and marks of direction, cut to `most` characters."""
    # Runs of blanks shrink: so much more is read, and no more, however long the text is.
    text = text[: 16 * most]
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:most]


def reason_of(error: BaseException, most: int = MOST_OF_A_REASON, *, bare: bool = False) -> str:
    """What a foreign error says, on one printable line; the name of its class where it says nothing.

    Args:
        error: The error, of a library or of the system.
        most: Characters that are shown.
        bare: Whether an error of the system is shown without its number and its file.
    """
    words = error.strerror if bare and isinstance(error, OSError) and error.strerror else str(error)
    return printable_line(words, most) or type(error).__name__


def visible_text(text: str, most: int) -> str:
    """The text with its line breaks, hidden characters as `⟨U+202E⟩`, cut to `most` characters."""
    # Two for each that may be left, where every line break is a pair.
    piece = text[: 2 * most].replace("\r\n", "\n")[:most]
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", piece)[:most]


_MARKUP: Final = re.compile(r"[!-/:-@\[-`{-~]")
"""Every character that may mean something in Markdown; each may stand after a backslash."""
_TICKS: Final = re.compile(r"`+")
_SHORTEST_FENCE: Final = 3


def escaped(text: str) -> str:
    """The text on one line, so that Markdown shows it as it is."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.replace("\0", "").split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the head is Markdown, the rows are texts."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    return "\n".join(lines)


def fenced(text: str, language: str = "") -> str:
    """The text as a block of code, line by line as it is; no line of it can end the block.

    Args:
        text: The text.
        language: What it is to be coloured as, e.g. `python`; "" for not at all.
    """
    longest = max(map(len, _TICKS.findall(text)), default=0)
    fence = "`" * max(_SHORTEST_FENCE, longest + 1)
    return f"{fence}{language}\n{text.replace(chr(0), '').rstrip()}\n{fence}"

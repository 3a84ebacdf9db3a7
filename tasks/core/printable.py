"""Text of models, servers and users as a terminal or a page may show it: here and nowhere else.

Control characters move the cursor or hide what stands there, and marks of direction turn a line around. None
of them is printable: on one line a space stands in their place, in a longer text their number.
"""

from __future__ import annotations

import re
from typing import Final

# Not the joiners U+200C and U+200D: Persian, Indic scripts and emoji are written with them.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable_line(text: str, most: int) -> str:
    """The text on one line, without control characters and marks of direction, cut to `most` characters."""
    # Runs of blanks shrink: so much more is read, and no more, however long the text is.
    text = text[: 16 * most]
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:most]


def visible_text(text: str, most: int) -> str:
    """The text with its line breaks, hidden characters as `⟨U+202E⟩`, cut to `most` characters."""
    # Two for each that may be left, where every line break is a pair.
    piece = text[: 2 * most].replace("\r\n", "\n")[:most]
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", piece)[:most]

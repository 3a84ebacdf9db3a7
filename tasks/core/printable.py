"""Text of models, servers and users as one line that a terminal may show: here and nowhere else.

Control characters move the cursor or hide what stands there, and marks of direction turn a line around. None
of them is printable, and a space stands in their place.
"""

from __future__ import annotations


def printable_line(text: str, most: int) -> str:
    """The text on one line, without control characters and marks of direction, cut to `most` characters."""
    # Runs of blanks shrink: so much more is read, and no more, however long the text is.
    text = text[: 16 * most]
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:most]

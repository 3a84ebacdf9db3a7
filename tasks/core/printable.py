"""Texts from outside, made so that they can be shown: in a terminal, and in Markdown.

Control characters move the cursor or hide what stands there, and marks of direction turn a line around. Where
text is printed none of them is left: their number stands in their place. Where a text is one of several in a
line, it is cut, and a space stands there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_WRITTEN: Final = "^\x00-\u02ff\u2000-\u206f\u3164\ufeff-\uffff\U000e0000-\U000e0fff"
# Controls, marks of direction, what has no width, fillers that look like a space, tags, halves of pairs.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4"
    "\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    # Persian, Indic scripts and emoji are written with joiners; between other characters they only hide.
    f"|(?<![{_WRITTEN}])[\u200c\u200d]|[\u200c\u200d](?![{_WRITTEN}])"
)
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")
_BLANKS: Final = re.compile(r"\r\n|[\t\n\v\f\r]")


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


def shown(text: str) -> str:
    """The text with its line breaks, and hidden characters as `⟨U+202E⟩`."""
    return _HIDDEN.sub(_number, text)


def shown_line(text: str) -> str:
    """The same on one line, for where text is printed: nothing in it begins a line of its own."""
    return shown(_BLANKS.sub(" ", text))


def visible_text(text: str, most: int) -> str:
    """The text with its line breaks, hidden characters as `⟨U+202E⟩`, cut to `most` characters."""
    # Two for each that may be left, where every line break is a pair.
    piece = text[: 2 * most].replace("\r\n", "\n")[:most]
    return shown(piece)[:most]


def plain_json(text: str, *, ascii_only: bool = False) -> str:
    """A JSON document that means the same without hidden characters, which stand in its texts alone.

    Args:
        text: The document.
        ascii_only: Whether what is not ASCII is written as a number, too.
    """
    return (_NOT_ASCII if ascii_only else _HIDDEN).sub(_escape, text)


def _number(found: re.Match[str]) -> str:
    return f"⟨U+{ord(found[0]):04X}⟩"


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


_MARKUP: Final = re.compile(r"[!-/:-@\[-`{-~]")
"""Every character that may mean something in Markdown; each may stand after a backslash."""
_TICKS: Final = re.compile(r"`+")
_SHORTEST_FENCE: Final = 3


def escaped(text: str) -> str:
    """The text on one line, so that Markdown shows it as it is."""
    return _MARKUP.sub(r"\\\g<0>", shown(" ".join(text.replace("\0", "").split())))


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
    return f"{fence}{language}\n{shown(text.replace(chr(0), '').rstrip())}\n{fence}"

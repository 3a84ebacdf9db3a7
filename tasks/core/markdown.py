"""Markdown that shows what it is given: texts of models, servers and users are never read as markup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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

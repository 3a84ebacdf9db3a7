"""Thinking inside a model's text: told apart from the answer, here and nowhere else.

What is in think tags or other marks of reasoning is reasoning, whatever state the marks are in: nested;
several; without their end, when the model was cut off or never came to answer; without their beginning, which
some chat templates swallow; cut in two by the end of the text. In doubt a text is reasoning, so that none of
it is ever taken for an answer. The marks, and the special tokens that are cut off an answer's ends, are in
`marks`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tasks.core.answers import marks as table

if TYPE_CHECKING:
    from tasks.core.answers.marks import Mark

_ANSWER: Final = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_END: Final = re.compile(r"</answer>", re.IGNORECASE)
_WRAPPER: Final = re.compile(r"<(answer|output|response|final_answer)>", re.IGNORECASE)

_FINAL: Final = "final"
"""The one channel of a message that is an answer."""
_OWN_ROLE: Final = "assistant"
_OTHER_ROLES: Final = ("user", "system", "developer", "tool")


@dataclass(frozen=True, slots=True)
class Thought:
    """A model's text in its two parts, stripped, without the marks.

    Attributes:
        answer: What it says, "" when it only thought.
        reasoning: What it thought, "" when it did not.
    """

    answer: str
    reasoning: str = ""


def think_tag(text: str) -> str:
    """The first mark of reasoning in a text, of whatever kind; "" when there is none."""
    if not table.may_have_marks(text):
        return ""
    found = _split(text, cut=False).marks
    return found[0].text if found else ""


def split_thinking(text: str, *, cut: bool = False) -> Thought:
    """The answer and the reasoning in a text, in time linear in its length.

    An answer in `<answer>` tags is taken out of them where the text has thinking, and out of the thinking
    where nothing else is outside. Special tokens are cut off the ends of both parts.

    Args:
        text: The text. One without marks is returned as it is, stripped.
        cut: Whether it is known to be cut off: then a single bracket at its end is half a mark.
    """
    if not cut and not table.may_have_marks(text):  # Most texts: nothing to look for.
        return Thought(text.strip())
    split = _split(text.strip(), cut=cut)
    answer, reasoning = _joined(split.answers), _joined(split.thoughts)
    if split.marks and not answer:
        inside = _with_answer_inside(reasoning)
        answer, reasoning = inside.answer, inside.reasoning
    elif split.marks:
        answer = _unwrapped(answer)
    return Thought(answer, reasoning)


def reported_reasoning(text: str) -> str:
    """The reasoning that a server reports beside the content, without marks that it left there."""
    if not table.may_have_marks(text):
        return text.strip()
    split = _split(text.strip(), cut=False)
    return _joined([*split.thoughts, *split.answers])


@dataclass(slots=True)
class _Split:
    """A text that is being split at its marks.

    Attributes:
        marks: Those that it was split at.
        answers: Pieces of the answer.
        thoughts: Pieces of the reasoning.
        speaks: Whether something of the answer has come.
        depth: How many marks of reasoning are open.
        leading: Whether the outermost of them is one that only counts at the beginning.
        message: The kind of the mark of a message that came last; "" outside of messages.
        thinks: Whether that message is one of reasoning.
    """

    marks: list[Mark] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    speaks: bool = False
    depth: int = 0
    leading: bool = False
    message: str = ""
    thinks: bool = False

    def counts(self, mark: Mark, text: str, position: int) -> bool:
        """Whether a mark is one where it stands, `position` being the end of the mark before it."""
        if mark.kind == table.LEADING_CLOSE:
            return self.leading and self.depth == 1
        if mark.kind == table.LEADING_OPEN:
            if not self.depth and not self.speaks:
                self.speaks = bool(table.without_tokens(text[position : mark.start]))
            return not self.depth and not self.speaks
        return True

    def take(self, piece: str) -> None:
        """Put a piece where it belongs by all that came before it."""
        if self.message in {table.HEADER, table.CHANNEL}:
            piece = self._after_header(piece)
        elif self.message == table.BODY_END and piece.strip() == _OWN_ROLE:
            return
        if not piece or piece.isspace():
            return
        if self.depth or self.thinks:
            self.thoughts.append(piece)
        else:
            self.answers.append(piece)
            self.speaks = self.speaks or bool(table.without_tokens(piece))

    def turn(self, mark: Mark) -> None:
        """Go on behind a mark."""
        self.marks.append(mark)
        match mark.kind:
            case table.OPEN:
                self.depth += 1
            case table.LEADING_OPEN:
                self.depth, self.leading = 1, True
            case table.CLOSE:
                if self.depth == 0:
                    # The end of what was never begun: all that came before it was thought.
                    self._think_again()
                self.depth = max(0, self.depth - 1)
            case table.LEADING_CLOSE | table.RESPONSE | table.RESPONSE_END:
                self.depth, self.leading = 0, False
            case _:
                self._begin(mark.kind)

    def _begin(self, kind: str) -> None:
        """Another part of a message with a header."""
        if not self.message:
            # What stands before the first header is a message whose own header is missing.
            self.answers = [piece for piece in self.answers if piece.strip() != _OWN_ROLE]
            self._think_again()
        if kind in {table.HEADER, table.ANSWER_BODY, table.BODY_END}:
            self.thinks = False
        elif kind == table.REASONING_BODY:
            self.thinks = True
        self.depth, self.leading, self.message = 0, False, kind

    def _think_again(self) -> None:
        self.thoughts += self.answers
        self.answers, self.speaks = [], False

    def _after_header(self, piece: str) -> str:
        """What of a piece is no header: nothing, unless the mark between header and body is missing."""
        name, _, rest = piece.strip().partition("\n")
        if self.message == table.CHANNEL:
            channel = name.split(" ", 1)[0]
            self.thinks = bool(channel) and channel != _FINAL
        elif name.startswith(_OTHER_ROLES):
            # The turn of someone else: not to be hidden, for it is a defect of this answer.
            return f"<|start|>{piece}"
        return rest


def _split(text: str, *, cut: bool) -> _Split:
    found = table.reasoning_marks(text, cut=cut)
    text = table.without_part(text, sure=cut or bool(found))
    split, position = _Split(), 0
    for mark in found:
        if split.counts(mark, text, position):
            split.take(text[position : mark.start])
            split.turn(mark)
            position = mark.end
    split.take(text[position:])
    return split


def _joined(pieces: list[str]) -> str:
    joined = "\n\n".join(stripped for piece in pieces if (stripped := piece.strip()))
    return table.without_tokens(joined)


def _with_answer_inside(reasoning: str) -> Thought:
    """The last `<answer>` of a text that is nothing but thought, and the thought around it."""
    starts = [found.end() for found in _ANSWER.finditer(reasoning)]
    if not starts:
        return Thought("", reasoning)
    start = starts[-1]
    end = _ANSWER_END.search(reasoning, start)
    before = reasoning[: start - len("<answer>")]
    after = reasoning[end.end() :] if end else ""
    return Thought(reasoning[start : end.start() if end else None].strip(), _joined([before, after]))


def _unwrapped(answer: str) -> str:
    """The answer without the tags around the whole of it; the closing one may be cut off."""
    start = _WRAPPER.match(answer)
    if start is None:
        return answer
    inner = answer[start.end() :]
    end = re.search(f"</{start[1]}>", inner, re.IGNORECASE)
    if end is None:
        return inner.strip()
    return inner[: end.start()].strip() if end.end() == len(inner) else answer

"""Thinking inside a model's text: told apart from the answer, here and nowhere else.

What is in think tags is reasoning, whatever state the tags are in: nested; several; without their end, when
the model was cut off or never came to answer; without their beginning, which some chat templates swallow.
In doubt a text is reasoning, so that none of it is ever taken for an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# A tag in backticks is spoken about.
_TAG: Final = re.compile(r"(?<!`)<(/?)(?:think|thinking|思考)>", re.IGNORECASE)
_ANSWER: Final = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_END: Final = re.compile(r"</answer>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Thought:
    """A model's text in its two parts, stripped, without the tags.

    Attributes:
        answer: What it says, "" when it only thought.
        reasoning: What it thought, "" when it did not.
    """

    answer: str
    reasoning: str = ""


def think_tag(text: str) -> str:
    """The first think tag in a text, opening or closing; "" when there is none."""
    found = _TAG.search(text) if "<" in text else None
    return found[0] if found else ""


def split_thinking(text: str) -> Thought:
    """The answer and the reasoning in a text, in time linear in its length.

    An answer in `<answer>` tags is taken out of them where the text has thinking, and out of the thinking
    where nothing else is outside.
    """
    if "<" not in text:  # Most texts: nothing to look for.
        return Thought(text.strip())
    answers: list[str] = []
    thoughts: list[str] = []
    depth = 0
    position = 0
    tagged = False
    for tag in _TAG.finditer(text):
        tagged = True
        piece = text[position : tag.start()]
        position = tag.end()
        if tag[1] and depth == 0:
            # The end of what was never begun: all that came before it was thought.
            thoughts += [*answers, piece]
            answers = []
            continue
        (thoughts if depth else answers).append(piece)
        depth += -1 if tag[1] else 1
    if not tagged:
        return Thought(text.strip())
    (thoughts if depth else answers).append(text[position:])
    answer, reasoning = _joined(answers), _joined(thoughts)
    if not answer:
        return _with_answer_inside(reasoning)
    return Thought(_unwrapped(answer), reasoning)


def _joined(pieces: list[str]) -> str:
    return "\n\n".join(stripped for piece in pieces if (stripped := piece.strip()))


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
    start = _ANSWER.match(answer)
    if start is None:
        return answer
    inner = answer[start.end() :]
    end = _ANSWER_END.search(inner)
    if end is None:
        return inner.strip()
    return inner[: end.start()].strip() if end.end() == len(inner) else answer

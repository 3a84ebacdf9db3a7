"""Whether an answer can be used: refusals, empty, cut-off and too short answers are told apart here.

The rules are VellumForge2's, except that a refusal phrase counts only where refusals are spoken: in the
opening of an answer, so that a character of a story may say it later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.core.chatter import without_chatter
from tasks.core.errors import UnusableAnswerError
from tasks.core.models import Text
from tasks.core.thinking import reported_reasoning, split_thinking

if TYPE_CHECKING:
    from tasks.core.config.models import Config
    from tasks.core.llm.types import Answer

ADOPTED = "adopted"
"""Finish reason of an answer that was taken over from elsewhere, where it was accepted already."""

MIN_CHOSEN_LENGTH = 50
"""Characters that a chosen answer has at least."""

OPENING = 300
"""Characters in which a refusal phrase is looked for; a refusal says so at once."""

REFUSAL_PHRASES = (
    "as an ai",
    "as a language model",
    "i am unable to assist",
    "i am unable to help with",
    "i cannot assist",
    "i cannot comply",
    "i cannot create",
    "i cannot fulfill",
    "i cannot generate",
    "i cannot help with",
    "i cannot provide",
    "i cannot write",
    "i can't assist",
    "i can't create",
    "i can't fulfill",
    "i can't generate",
    "i can't help with",
    "i can't provide",
    "i can't write",
    "i must decline",
    "i won't be able to",
    "i'm not able to",
    "i'm sorry, but i can",
    "i'm unable to assist",
    "i'm unable to help with",
)

_CURLY = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'"})
# A last line like these needs no full stop: a heading, a list item, a table row, code, a short verse or
# signature below other lines.
_OPEN_ENDED = re.compile(r"\s*(#|[-*+] |\d+[.)] |\||```|\$\$|<)")
_SHORT_LINE = 60
_FINISHED_BY_MODEL = frozenset({"stop", "end_turn", "eos", "eos_token"})


@dataclass(frozen=True, slots=True)
class Reading:
    """How a run reads its answers, wherever it does: in generating, surveys, exports and transforms.

    Attributes:
        cut_chatter: Whether what is chatter around an answer is no part of its text.
    """

    cut_chatter: bool = False

    @classmethod
    def of(cls, config: Config) -> Reading:
        """How runs of a configuration read."""
        return cls(cut_chatter=config.generation.cut_chatter)

    def chosen(self, answer: Answer) -> Text:
        """The chosen text of an answer.

        Raises:
            UnusableAnswerError: As `read_chosen` raises it.
        """
        return read_chosen(answer, cut_chatter=self.cut_chatter)

    def rejected(self, answer: Answer) -> Text:
        """The rejected text of an answer.

        Raises:
            UnusableAnswerError: As `read_rejected` raises it.
        """
        return read_rejected(answer, cut_chatter=self.cut_chatter)

    def given(self, text: Text) -> Text:
        """An answer that was there already: of the rows that a transform is given."""
        return trimmed(text) if self.cut_chatter else text


def read_chosen(answer: Answer, *, cut_chatter: bool = False) -> Text:
    """The chosen text of an answer.

    Raises:
        UnusableAnswerError: `empty`, `token_exhaustion`, `refused`, `too_short` or `incomplete`.
    """
    text = read_rejected(answer, cut_chatter=cut_chatter)
    content = text.content
    if answer.finish_reason == ADOPTED:
        return text
    if answer.refused:
        raise UnusableAnswerError("refused", f"the server reports a refusal ({answer.finish_reason})")
    if phrase := refusal_phrase(content):
        raise UnusableAnswerError("refused", f'the answer is a refusal ("{phrase}")')
    if len(content) < MIN_CHOSEN_LENGTH:
        raise UnusableAnswerError(
            "too_short", f"the answer has {len(content)} characters; at least {MIN_CHOSEN_LENGTH} are wanted"
        )
    if not text.truncated and stops_mid_sentence(
        content, finished=answer.finish_reason in _FINISHED_BY_MODEL
    ):
        end = " ".join(content[-30:].split())
        raise UnusableAnswerError("incomplete", f'the answer stops mid-sentence ("…{end}")')
    return text


def read_rejected(answer: Answer, *, cut_chatter: bool = False) -> Text:
    """The rejected text of an answer: taken as it is, refusals too, as long as there is any.

    Raises:
        UnusableAnswerError: `empty`, `refused` when it was withheld, or `token_exhaustion` when thinking
            ate every token.
    """
    thought = split_thinking(answer.content, cut=answer.truncated)
    reasoning = "\n\n".join(filter(None, (reported_reasoning(answer.reasoning), thought.reasoning)))
    if not thought.answer:
        if answer.truncated:
            raise UnusableAnswerError(
                "token_exhaustion", "the model used every token before it answered; raise max_output_tokens"
            )
        if answer.refused:
            raise UnusableAnswerError("refused", f"the server withheld the answer ({answer.finish_reason})")
        raise UnusableAnswerError(
            "empty", "the model thought and did not answer" if reasoning else "the answer is empty"
        )
    text = Text(content=thought.answer, reasoning=reasoning, truncated=answer.truncated)
    return trimmed(text) if cut_chatter else text


def trimmed(text: Text) -> Text:
    """A text without the chatter around it; one of which too little would be left stays as it is."""
    content = without_chatter(text.content)
    return text if len(content) < MIN_CHOSEN_LENGTH else replace(text, content=content)


def refusal_phrase(content: str) -> str:
    """The refusal phrase in an answer's opening, or ""."""
    opening = content[:OPENING].translate(_CURLY).casefold()
    return next((phrase for phrase in REFUSAL_PHRASES if phrase in opening), "")


def stops_mid_sentence(content: str, *, finished: bool) -> bool:
    """Whether a text breaks off inside a sentence.

    Args:
        content: The text, stripped.
        finished: Whether the model itself reported that it was done: then a last line that needs no full
            stop (a list item, a heading, code, a short line of verse) is a proper end.
    """
    last = content[-1]
    if not (last.isalnum() or last in ",;-\N{EN DASH}\N{EM DASH}("):
        return False
    if last.isalnum() and not last.isascii() and not last.isupper() and not last.islower():
        return False  # Scripts without letter case, Chinese among them, often end a line without a mark.
    if not finished:
        return True
    *before, line = content.rsplit("\n", 1)
    return not (_OPEN_ENDED.match(line) or (before and len(line) < _SHORT_LINE and last.isalnum()))

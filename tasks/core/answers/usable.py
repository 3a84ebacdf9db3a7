"""Whether an answer can be used: refusals, empty, cut-off and too short answers are told apart here.

Prose, lists and scores are each read by one function, which says in one word why an answer cannot be used.

The rules are VellumForge2's, except that a refusal phrase counts only where refusals are spoken: in the
opening of an answer, so that a character of a story may say it later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.core.answers.chatter import without_chatter
from tasks.core.answers.parsing import ParseError, outer_json, parse_items, parse_scores, without_json
from tasks.core.answers.thinking import reported_reasoning, split_thinking
from tasks.core.errors import UnusableAnswerError
from tasks.core.models import Text

if TYPE_CHECKING:
    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import Answer
    from tasks.core.models import Scores

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
_MARKUP = str.maketrans("", "", "*_`#>")
# How a refusal begins that stands where a list was asked for. A prompt may speak of refusing, and may begin
# in the first person ("I cannot write to her, thinks the keeper"): so the request itself must be what is
# refused, unless there is an apology, or a program that speaks of itself.
_SORRY = r"""
    (?: i(?:'m|[ ]am) (?:[ ](?:so|very|really|truly|deeply|terribly))? [ ]sorry | sorry | (?:my[ ])?apologies
      | i[ ]apologi[sz]e | unfortunately | i[ ]regret(?:[ ]to[ ]say)?
      | i[ ](?:appreciate|understand)[ ][^.!?]{1,60} )
    [ ,.;:!\u2014-]{1,4} (?:but[ ]|however,?[ ]|that[ ])?
"""
_MACHINE = r"(?: as[ ]an?[ ](?:ai|(?:large[ ])?language[ ]model|assistant)\b [^.!?]{0,60}? ,?[ ] )"
_UNABLE = r"""
    (?: i(?:'m|[ ]am)[ ](?:unable|not[ ](?:able|comfortable|allowed|permitted|going|willing))[ ](?:to|with)
      | i[ ](?: can't | cannot | can[ ]not | won't(?:[ ]be[ ]able[ ]to)? | will[ ]not
              | (?:(?:must|have[ ]to)[ ])?(?:decline|refuse)[ ]to ) )
"""
_SERVE = r"""
    (?: assist | comply | help | fulfill? | creat(?:e|ing) | generat(?:e|ing) | provid(?:e|ing)
      | writ(?:e|ing) | produce | continue | engage | discuss | complete | answer | do | offer | suggest
      | support | proceed )
"""
_REQUEST = r"""
    (?: [ ](?:you|with|out|in|on|to|for|any|a|an|the|such|more|further|list|of|or) )*
    [ ](?: that | this | these | those | your | requests? | content | materials? | prompts? | (?:sub)?topics?
         | stories | ideas | instructions | information | questions? | tasks? | texts? )
    (?: [ ](?:request|topic|subject|type|kind|sort|content|material|task|question|prompt|list)s? )?
    (?: [ ](?:of|on|about|for|that|which|as|because|since|due|involving|related|containing|promoting)\b
      | [ ]?[.,;:!\n] | $ )
"""
_REFUSAL = re.compile(
    rf"""
    {_SORRY} (?: {_MACHINE}? {_UNABLE} [ ] {_SERVE} \b | i[ ](?:can't|cannot) [ ]?(?:[.!]|$) )
    | {_MACHINE} (?:{_SORRY})? {_UNABLE}
    | {_UNABLE} [ ] {_SERVE} {_REQUEST}
    | i[ ](?:must|have[ ]to)[ ]decline\b
    """,
    re.VERBOSE,
)
# A last line like these needs no full stop: a heading, a list item, a table row, code, a short verse or
# signature below other lines.
_OPEN_ENDED = re.compile(r"\s*(#|[-*+] |\d+[.)] |\||```|\$\$|<)")
_SHORT_LINE = 60
_EXHAUSTED = "the model used every token before it answered; raise max_output_tokens"
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
            raise UnusableAnswerError("token_exhaustion", _EXHAUSTED)
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


def items_in(answer: Answer) -> tuple[str, ...]:
    """The list in an answer, without the items that are refusals; () when there is none.

    Where everything that the model said is reasoning, as some servers report it, the list is read from that.
    """
    return tuple(item for item in _items(answer) if not is_refusal(item))


def read_items(answer: Answer, what: str) -> tuple[str, ...]:
    """The list in an answer, as `items_in` reads it, never empty.

    Args:
        answer: The answer.
        what: What it should be a list of, for the message.

    Raises:
        UnusableAnswerError: `refused` when the answer, or each of its items, is a refusal, `token_exhaustion`
            when it was cut off before it began, else `no_list`.
    """
    if items := items_in(answer):
        return items
    must_have_begun(answer)
    text = split_thinking(answer.content).answer
    if answer.refused or _items(answer) or is_refusal(text) or refusal_phrase(text):
        raise UnusableAnswerError("refused", f"the model refuses to list {what}")
    raise UnusableAnswerError("no_list", f"the answer holds no list of {what}")


def read_scores(answer: Answer, criteria: tuple[str, ...] | None) -> Scores:
    """The scores in a judge's answer, or in its reasoning where nothing else was answered.

    Args:
        answer: The answer.
        criteria: What must be scored; None takes what the answer has.

    Raises:
        UnusableAnswerError: `token_exhaustion` when it was cut off before it began, else `bad_scores`.
    """
    try:
        return parse_scores(_structure(answer), criteria, ended=not answer.truncated)
    except ParseError as error:
        must_have_begun(answer)
        raise UnusableAnswerError("bad_scores", f"the judge's answer cannot be read: {error}") from error


def _items(answer: Answer) -> tuple[str, ...]:
    items = parse_items(_structure(answer))
    if items and is_refusal(text := split_thinking(answer.content).answer) and without_json(text) == text:
        return ()  # What a refusal offers instead, line by line, is not what was asked for.
    return items


def _structure(answer: Answer) -> str:
    """The text that a list or scores are read from: the answer; where there is none, JSON in the reasoning.

    Only JSON with which the reasoning ends or begins: models think in lists, and quote what they were asked.
    """
    thought = split_thinking(answer.content)
    if thought.answer:
        return answer.content
    texts = (answer.reasoning, thought.reasoning)
    return next(filter(None, (outer_json(text, ended=not answer.truncated) for text in texts)), "")


def must_have_begun(answer: Answer) -> None:
    """Tell an answer that has nothing because of its token limit from one that is of the wrong shape.

    Raises:
        UnusableAnswerError: `token_exhaustion`.
    """
    if answer.truncated and not split_thinking(answer.content).answer:
        raise UnusableAnswerError("token_exhaustion", _EXHAUSTED)


def is_refusal(text: str) -> bool:
    """Whether a text begins with a sentence that refuses what was asked for.

    It is stricter than `refusal_phrase`: a prompt may have a machine say in it what that looks for.
    """
    opening = text[:OPENING].translate(_CURLY).translate(_MARKUP).strip().casefold()
    return _REFUSAL.match(opening) is not None


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

"""What lint looks for in each sample: the checks, their rules, and what is to be done about each.

A rule that the program has already, for refusals or for texts that stop inside a sentence, has its home where
answers are read; what is seen in texts is in `texts`. What only all samples together show is in `linter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tasks.core.answers import refusal_phrase
from tasks.core.chatter import chatter_of
from tasks.core.lint.texts import breaks_off, first_markup, likeness, scripts_of
from tasks.core.marks import special_token, without_tokens
from tasks.core.thinking import split_thinking, think_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tasks.core.lint.rows import Sample

TOKENS: Final = "tokens"
MARGIN: Final = "margin"

NEARLY: Final = 0.9
"""Share of neighbouring words from which two answers are nearly identical."""

CHOSEN, REJECTED, PROMPT, BOTH = "chosen", "rejected", "prompt", ""
"""Where a defect is."""

END_SHOWN: Final = 200
"""Characters of a text's end among which an example is found."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A defect of one sample.

    Attributes:
        side: Where it is.
        text: A model's text that shows it, not yet fit to be shown.
    """

    side: str
    text: str


@dataclass(frozen=True, slots=True)
class Texts:
    """A sample's answers, their thinking told apart; a side that the sample does not have is None."""

    sample: Sample
    chosen: str | None
    rejected: str | None

    @classmethod
    def of(cls, sample: Sample) -> Texts:
        """The texts of a sample."""
        return cls(sample, _answer(sample.chosen), _answer(sample.rejected))

    @property
    def is_pair(self) -> bool:
        """Whether there are both sides."""
        return self.chosen is not None and self.rejected is not None

    def answers(self) -> Iterator[tuple[str, str]]:
        """The sides that there are, with their names."""
        if self.chosen is not None:
            yield CHOSEN, self.chosen
        if self.rejected is not None:
            yield REJECTED, self.rejected


def _answer(text: str | None) -> str | None:
    return None if text is None else split_thinking(text).answer


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that lint looks for.

    Attributes:
        name: Its name on the command line and in JSON.
        about: What is wrong with what it finds, to be read after a count.
        advice: What to do.
        find: The defects of a sample; None where the check does not apply to it.
    """

    name: str
    about: str
    advice: str
    find: Callable[[Texts], Iterable[Hit] | None]


def _empty(texts: Texts) -> Iterable[Hit]:
    sides = [(PROMPT, texts.sample.prompt), *texts.answers()]
    # An answer that is nothing but thinking is none.
    return [Hit(side, "") for side, text in sides if not text or text.isspace()]


def _identical(texts: Texts) -> Iterable[Hit] | None:
    if not texts.is_pair:
        return None
    return [Hit(BOTH, texts.chosen or "")] if texts.chosen == texts.rejected else ()


def _nearly_identical(texts: Texts) -> Iterable[Hit] | None:
    chosen, rejected = texts.chosen, texts.rejected
    if chosen is None or rejected is None:
        return None
    return [Hit(BOTH, chosen)] if chosen != rejected and likeness(chosen, rejected) >= NEARLY else ()


def _margin(texts: Texts) -> Iterable[Hit] | None:
    margin = texts.sample.margin
    if margin is None:
        return None
    return [Hit("zero" if margin == 0 else "negative", texts.sample.prompt)] if margin <= 0 else ()


def _refusal(texts: Texts) -> Iterable[Hit] | None:
    if texts.chosen is None:
        return None
    return [Hit(CHOSEN, texts.chosen)] if refusal_phrase(texts.chosen) else ()


def _think_tags(texts: Texts) -> Iterable[Hit]:
    sample = texts.sample
    found = []
    for side, text in ((CHOSEN, sample.chosen), (REJECTED, sample.rejected)):
        if text and (tag := think_tag(text)):
            start = max(0, text.index(tag) - 20)
            found.append(Hit(side, text[start : start + END_SHOWN]))
    return found


def _truncated(texts: Texts) -> Iterable[Hit]:
    return [Hit(side, text[-END_SHOWN:]) for side, text in texts.answers() if breaks_off(text)]


def _markup(texts: Texts) -> Iterable[Hit] | None:
    if not texts.chosen or not texts.rejected:
        return None
    chosen, rejected = first_markup(texts.chosen), first_markup(texts.rejected)
    if bool(chosen) == bool(rejected):
        return ()
    return [Hit(CHOSEN, chosen) if chosen else Hit(REJECTED, rejected)]


def _script(texts: Texts) -> Iterable[Hit] | None:
    chosen, rejected = texts.chosen, texts.rejected
    if chosen is None or rejected is None:
        return None
    one, other = scripts_of(chosen, rejected)
    if not one:
        return ()
    return [Hit(BOTH, f"{one} and {other}: {rejected if one == 'Latin' else chosen}")]


def _special_tokens(texts: Texts) -> Iterable[Hit]:
    found = []
    as_they_stand = {CHOSEN: texts.sample.chosen, REJECTED: texts.sample.rejected}
    for side, answer in texts.answers():
        if token := special_token(answer):
            start = max(0, answer.index(token) - 20)
            found.append(Hit(side, answer[start : start + END_SHOWN]))
            continue
        # Those at its ends are no part of an answer, and yet stand in the row.
        text = (as_they_stand[side] or "").strip()
        if (kept := without_tokens(text)) != text:
            found.append(Hit(side, text[-END_SHOWN:] if text.startswith(kept) else text[:END_SHOWN]))
    return found


def _chatter(texts: Texts) -> Iterable[Hit]:
    return [Hit(side, said) for side, text in texts.answers() for said in chatter_of(text) if said]


CHECKS: Final = (
    Check(
        "empty",
        "a prompt or an answer is empty",
        "remove these rows: there is nothing to learn from them",
        _empty,
    ),
    Check(
        "identical",
        "chosen and rejected are the same",
        "remove these pairs, or use another model or a higher temperature for rejected: they prefer nothing",
        _identical,
    ),
    Check(
        "nearly_identical",
        f"chosen and rejected share {NEARLY:.0%} or more of their neighbouring words",
        "remove these pairs, or use another model or template for rejected: they prefer next to nothing",
        _nearly_identical,
    ),
    Check(
        MARGIN,
        "the judge did not prefer chosen",
        "remove these pairs; keep them out by [judge_filtering] min_chosen_score and max_rejected_score",
        _margin,
    ),
    Check(
        "refusals",
        "chosen refuses",
        "remove these rows, or have their prompts answered by another model: they teach to refuse",
        _refusal,
    ),
    Check(
        "think_tags",
        "think tags stand in an answer",
        "take the tags and what is in them out, or train on reasoning on purpose and on both sides",
        _think_tags,
    ),
    Check(
        "truncated",
        "an answer breaks off",
        "raise max_output_tokens and make these answers anew: they teach to stop anywhere",
        _truncated,
    ),
    Check(
        "markup",
        "one side has markup, the other is plain text",
        "ask for the same form in both templates: else the form is what is learned",
        _markup,
    ),
    Check(
        "script",
        "the sides are written in different scripts",
        "name the language in both templates, or remove these pairs: else the language is what is learned",
        _script,
    ),
    Check(
        "special_tokens",
        "special tokens of a chat template stand in an answer",
        "remove these rows, and mend the server's template or stop tokens: they teach to write these tokens",
        _special_tokens,
    ),
    Check(
        "chatter",
        "an answer begins or ends with words to the user about the answer",
        "set generation.cut_chatter, or ask for nothing but the text in both templates: chatter is learned",
        _chatter,
    ),
)
"""What is looked for in each sample, in the order in which it is reported."""

"""What lint looks for in each sample: the checks, their rules, and what is to be done about each.

A rule that the program has already, for refusals or for texts that stop inside a sentence, has its home where
answers are read. What only all samples together show is in `linter`. Everything here takes time in
proportion to the text, and a few microseconds for what most texts are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tasks.core.answers.chatter import chatter_of
from tasks.core.answers.marks import special_token, without_tokens
from tasks.core.answers.thinking import split_thinking, think_tag
from tasks.core.answers.usable import refusal_phrase, stops_mid_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tasks.core.rows.samples import Sample


_PROBES: Final = 8
_PROBE_LENGTH: Final = 16
_PROBES_FOUND: Final = 2
"""Pieces of one text that are looked for in the other, and how many of them make a closer look worth it."""

_LONGEST_WORD: Final = 20
"""Characters a word on average; text with longer ones is written without spaces."""

_FEW_CHARACTERS: Final = 40
"""A text shorter than this may be a name, a number or a title, and needs no full stop."""

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING: Final = re.compile(r" {0,3}#{1,6} +\S")
_MARKED_LINE: Final = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)]) +(?![-*\s])\S|\s*\|.*\|\s*$")
_MARKED: Final = re.compile(r"\n\s*[-#`~|*+0-9]")
"""Where a line may begin with markup. As one that begins with a fixed character it is quick."""
_HTML_END: Final = re.compile(r"</[A-Za-z][A-Za-z0-9]*>")

_SCRIPTS: Final = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Tamil": "\u0b80-\u0bff",
    "Thai": "\u0e00-\u0e7f",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u137f",
    "Hangul": "\u1100-\u11ff\uac00-\ud7af",
    "kana": "\u3040-\u30ff",
    "Han": "\u3400-\u9fff\uf900-\ufaff",
}
_LETTERS: Final = {name: re.compile(f"[{span}]+") for name, span in _SCRIPTS.items()}
_NOT_LATIN: Final = re.compile("[\u0370-\u1dff\u1f00-\u1fff\u2c00-\ud7ff\uf900-\ufdff\ufe70-\uffdc]")
_SCRIPT_OPENING: Final = 1_000
"""Characters by which a text's script is told."""
_FEW_LETTERS: Final = 20
_JAPANESE: Final = 0.1
"""Kana for each Han from which on a text is Japanese and not Chinese."""


def likeness(one: str, other: str) -> float:
    """How much of two texts is the same: the share of neighbouring words that both have, 0 to 1.

    Texts that have little in common are told at once, and 0 is said of them.
    """
    short, long = sorted((one, other), key=len)
    if 2 * len(short) < len(long) or not short:
        return 0.0
    if len(short) > _PROBES * _PROBE_LENGTH:
        step = (len(short) - _PROBE_LENGTH) / (_PROBES - 1)
        starts = (round(number * step) for number in range(_PROBES))
        found = sum(short[start : start + _PROBE_LENGTH] in long for start in starts)
        if found < _PROBES_FOUND:
            return 0.0
    pairs_of_one, pairs_of_other = _word_pairs(one), _word_pairs(other)
    both = (pairs_of_one & pairs_of_other).total()
    return 2 * both / max(1, pairs_of_one.total() + pairs_of_other.total())


def _word_pairs(text: str) -> Counter[tuple[str, str]]:
    words = text.casefold().split()
    if len(text) > _LONGEST_WORD * len(words):
        words = list(text)
    return Counter(pairwise(words))


def breaks_off(text: str) -> bool:
    """Whether an answer stops inside a sentence or a block of code; in doubt it does not.

    Args:
        text: The answer, stripped.
    """
    if not text:
        return False
    if "```" in text or "~~~" in text:
        return _is_inside_code(text)
    if not stops_mid_sentence(text, finished=True):
        return False
    if text[-1].isalnum():
        last = text.rsplit(None, 1)[-1]
        return len(text) >= _FEW_CHARACTERS and "://" not in last and last[0] not in "#@"
    return True


def _is_inside_code(text: str) -> bool:
    fence = ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if found is None:
            continue
        if not fence:
            # A fence of backticks has none in what follows it on its line: that is code in a sentence.
            fence = "" if "`" in found[2] and found[1][0] == "`" else found[1]
        elif found[1].startswith(fence) and not found[2].strip():
            fence = ""
    return bool(fence)


def first_markup(text: str) -> str:
    """Where a text's markup begins: the line with it; "" for plain text.

    A heading or a fence is markup, and so are two of these: list items, table rows, bold texts, HTML tags.
    """
    if "**" not in text and "</" not in text and not _MARKED.search(f"\n{text}"):
        return ""
    first, seen = "", 0
    for line in text.splitlines():
        if _HEADING.match(line) or _FENCE.match(line):
            return first or line
        marks = bool(_MARKED_LINE.match(line)) + line.count("**") // 2 + len(_HTML_END.findall(line))
        if marks:
            first, seen = first or line, seen + marks
            if seen > 1:
                return first
    return ""


def scripts_of(one: str, other: str) -> tuple[str, str]:
    """The scripts of two texts where they differ, as `script_of` tells them; "" twice where they do not."""
    # Most texts have no other letters than Latin ones, also among typographic quotes and dashes.
    if not any(_NOT_LATIN.search(text, 0, _SCRIPT_OPENING) for text in (one, other) if not text.isascii()):
        return "", ""
    found = script_of(one), script_of(other)
    return found if all(found) and found[0] != found[1] else ("", "")


def script_of(text: str) -> str:
    """The script that most of a text's letters are of, by its opening; "" when it has few, or no one script.

    Two languages of one script are not told apart.
    """
    opening = text[:_SCRIPT_OPENING]
    counts = {name: sum(map(len, letters.findall(opening))) for name, letters in _LETTERS.items()}
    kana, han = counts.pop("kana"), counts.pop("Han")
    counts["Japanese" if kana > _JAPANESE * han else "Chinese"] = kana + han
    name, most = max(counts.items(), key=lambda item: item[1])
    total = sum(counts.values())
    return name if total >= _FEW_LETTERS and 2 * most > total else ""


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

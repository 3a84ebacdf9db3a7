"""Chatter around an answer: what a model says to its user before and after what was asked for.

Only a whole first line and a whole last paragraph are ever chatter, and only when all of it is in the tables
below; what stands between them is never looked at. Letters, dialogue and essays begin and end with words that
are nearly the same: in doubt a text has no chatter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# A model's names for what it hands over, and for what it was asked.
_WORK: Final = (
    r"\b(?:stor(?:y|ies)|tales?|essays?|poems?|haikus?|sonnets?|limericks?|lyrics|songs?|responses?"
    r"|answers?|versions?|drafts?|rewrites?|revisions?|continuations?|pieces?|articles?|posts?|texts?"
    r"|dialogues?|monologues?|scenes?|scripts?|screenplays?|translations?|summar(?:y|ies)|explanations?|outlines?"
    r"|descriptions?|examples?|letters?|e-?mails?|speech(?:es)?|reviews?|paragraphs?|passages?|chapters?"
    r"|narratives?|vignettes?|fables?|takes?|attempts?)\b"
)
_REQUEST: Final = (
    r"\b(?:you(?:'ve| have)? (?:asked|requested|wanted|described)|your (?:request|prompt|question))\b"
)
_MATTER: Final = (
    rf"{_WORK}|{_REQUEST}"
    r"|\b(?:lists?|prompts?|questions?|ideas?|steps?|guides?|code|functions?|recipes?|plots?)\b"
)
_HERE: Final = r"\b(?:here(?: is|'s| are)|below (?:is|are)|the following is)\b"
_ASSENT: Final = (
    r"(?:(?:sure(?: thing)?|certainly|of course|absolutely|definitely|okay|ok|alright|all right|got it"
    r"|understood|no problem|gladly|with pleasure|yes|great(?: question| prompt| idea)?)"
    r"[,.!:;]?(?: ?[-\u2013\u2014])? +)"
)
_TOLD: Final = r"(?:write|create|craft|compose|help|assist|do my best|provide|give|rewrite|revise|continue)\b"


@dataclass(frozen=True, slots=True)
class _Opening:
    """A first line that is chatter.

    Attributes:
        start: What it begins with.
        ends: The characters that it may end with.
        holds: What must stand in it behind its start; "" for nothing.
        whole: Whether it is nothing but its start.
    """

    start: re.Pattern[str]
    ends: str
    holds: re.Pattern[str] | None = None
    whole: bool = False


def _opening(start: str, ends: str, holds: str = "", *, whole: bool = False) -> _Opening:
    return _Opening(re.compile(start), ends, re.compile(holds) if holds else None, whole)


_OPENINGS: Final = (
    # Sure, here is the story: / Certainly! Below is a short story about fog.
    _opening(rf"{_ASSENT}{_HERE}", ":.!", _MATTER),
    # Sure! I can do that. Here is the poem:
    _opening(rf"{_ASSENT}.{{1,120}}?{_HERE}", ":", rf"{_WORK}|{_REQUEST}"),
    # Certainly! I'd be happy to help with that.
    _opening(rf"{_ASSENT}?i(?:'d| would|'ll| will) be (?:happy|glad|delighted) to {_TOLD}", ".!:"),
    _opening(rf"{_ASSENT}(?:i(?:'ll| will| can)|let me) {_TOLD}", ".!:", rf"{_WORK}|{_REQUEST}|\bfor you\b"),
    # Here's a short story about a lighthouse:
    _opening(
        rf"{_HERE} (?:an?|my|your|one|another|the)(?: [\w'-]{{1,30}}){{0,6}}? ?{_WORK}", ":", whole=True
    ),
    _opening(
        rf"{_HERE} (?:an?|my|your|one|another)(?: [\w'-]{{1,30}}){{0,6}}? ?{_WORK}"
        r" (?:about|on|for|based on|inspired by|that (?:meets|follows|fits|incorporates|uses))\b",
        ":",
    ),
    _opening(rf"{_HERE} ", ":", _REQUEST),
    # As requested, here is the poem:
    _opening(
        r"(?:as (?:you )?(?:requested|asked)|(?:as )?per your request|based on your (?:request|prompt)),? "
        rf"{_HERE}",
        ":.",
    ),
    # Let's start over.
    _opening(
        r"(?:(?:okay|ok|alright|sorry|i apologi[sz]e|my apologies)[,.!] )?"
        r"let's (?:start over|try (?:this |that )?again|start again|get started|dive in)",
        ":.!rn",
        whole=True,
    ),
    _opening(
        r"(?:thank you|thanks) for (?:your|the|providing|sharing)\b",
        ".!:",
        r"\b(?:request|prompt|question|instructions)\b",
    ),
    _opening(
        r"(?:(?:what an?|that's an?|this is an?) (?:great|interesting|fascinating|wonderful|excellent)"
        r" (?:question|prompt|request|idea)|great (?:question|prompt))",
        ".!",
        whole=True,
    ),
)

_DO: Final = (
    r"\b(?:(?:re)?write|revise|expand|continue|change|adjust|create|provide|elaborate|explain|draft|generate"
    r"|tweak|modify|explore|develop|extend|shorten|refine|polish|edit|translate|summari[sz]e|help|assist"
    r"|add (?:more|another|some|any)|make (?:any|it|this|some|changes)|go (?:into|deeper)|dive|delve)\b"
)
_CHANGE: Final = (
    r"\b(?:any(?:thing else)? (?:changes?|adjustments?|modifications?|edits?|revisions?|tweaks?|questions?"
    r"|feedback|other|further|more|additional)|anything else"
    r"|another (?:version|story|poem|example|draft|take)"
    r"|(?:more|further|additional) (?:details?|information|help|examples?|changes?|assistance)"
    r"|a different (?:version|tone|style|ending|approach)|(?:changes|adjustments|revisions) made)\b"
)
_TELL: Final = r"(?:please |just )?let me know "
_ENDINGS: Final = (
    # I hope this helps!
    (
        rf"i (?:really )?hope (?:this|that|it|these|the {_WORK})(?: {_WORK})? "
        r"(?:helps?|meets|answers|is (?:what|helpful|useful)|works for|fits|captures|satisfies)\b"
    ),
    r"(?:i )?hope (?:you (?:enjoy|enjoyed|like|liked) (?:this|the|my|it|reading)\b|this helps)",
    # Let me know if you'd like me to change the ending.
    (
        rf"{_TELL}if you(?:'d| would)? (?:like|want|need|prefer)(?: me)?(?: to (?:see|have|make))? "
        rf"(?:to )?(?:{_DO}|{_CHANGE})"
    ),
    rf"{_TELL}if you have {_CHANGE}",
    rf"{_TELL}if (?:(?:this|that|it) (?:works|helps|meets|fits|is what)|i can (?:help|assist))\b",
    rf"{_TELL}(?:what you think|how you(?:'d| would) like\b)",
    # Feel free to ask.
    (
        r"(?:please )?(?:feel free to|don't hesitate to|do not hesitate to) "
        r"(?:ask|let me know|reach out|modify|adjust|adapt|customi[sz]e|request)\b"
    ),
    # Would you like me to continue?
    rf"(?:would you like|do you want|shall i|should i|can i)(?: me)?(?: to)? {_DO}",
    r"is there anything (?:else|specific|in particular)\b",
    # If you'd like, I can write another version.
    (
        r"if you(?:'d| would)? (?:like|want|wish|prefer|need|have)\b.{0,150}?\b(?:let me know|feel free"
        rf"|(?:i can|i'd be|i'll|i could)(?: happy| glad)?(?: to)? {_DO}|(?:just|please) (?:ask|let me))"
    ),
    rf"i(?:'d| would|'m| am) (?:be )?(?:happy|glad|more than happy) to {_DO}",
)
_ENDING: Final = re.compile("|".join(_ENDINGS))
_BESIDE: Final = re.compile(
    r"(?:enjoy|happy (?:writing|reading|coding|learning)|just (?:say the word|ask)|thank you|thanks)\b"
)
"""What may stand beside a sentence of chatter, and alone is none."""

_LONGEST: Final = 400
"""Characters that chatter has at most."""
_SENTENCES: Final = re.compile(r"(?<=[.!?])[*_)]{0,3}\s+")
_GOES_ON: Final = re.compile(r"[.!?:;]\W{0,3}\s")
"""Behind this a line has more to say, which may be the answer."""
_RULE: Final = re.compile(r"[-*_=]{3,}|[*_ ]{3,}")
_LETTER: Final = re.compile(
    r"\s{0,3}(?:(?:dear|hi|hello|hey|greetings|to whom)\b.{0,60}[,:!]"
    r"|(?:subject|to|from|date|re|memo)\b.{0,80}:.*)\s*",
    re.IGNORECASE,
)
_LETTER_LENGTH: Final = 2_000
_LETTER_LINES: Final = 8
"""First lines among which a letter's salutation is."""
_NOT_BLANK: Final = re.compile(r"\S")
_FACES: Final = re.compile(r"[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f\s]+\Z")
_STRAIGHT: Final = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'"})
_DIALOGUE: Final = ('"', "\N{LEFT DOUBLE QUOTATION MARK}", "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}")


def chatter_of(text: str) -> tuple[str, str]:
    """The chatter at the beginning and at the end of a text, "" where there is none.

    Args:
        text: An answer, stripped, without thinking.
    """
    start, end = _bounds(text)
    opening, ending = text[:start].strip(), text[end:].strip()
    return opening, ending


def without_chatter(text: str) -> str:
    """A text without the chatter around it, and without the rules that set it off; stripped.

    A text that is nothing else is returned as it is.
    """
    start, end = _bounds(text)
    if start == 0 and end == len(text):
        return text
    return text[start:end].strip() or text


def _bounds(text: str) -> tuple[int, int]:
    """Where the answer begins and ends between its chatter and the rules beside it."""
    start, end = 0, len(text)
    # Where there is one such line there may be another: what is cut once is cut for good.
    while (found := _opening_end(text, start)) > start:
        start = found
    while (found := _ending_start(text, start, end)) < end:
        end = found
    return start, end


def _opening_end(text: str, start: int) -> int:
    """Where the opening ends that begins at `start`; `start` when there is none."""
    begin = _NOT_BLANK.search(text, start)
    if begin is None:
        return start
    line = text.find("\n", begin.start(), begin.start() + _LONGEST)
    if line < 0 or not _is_opening(text[begin.start() : line]):
        return start
    return _after_rule(text, line)


def _ending_start(text: str, start: int, end: int) -> int:
    """Where the ending begins that ends at `end`; `end` when there is none."""
    near = max(start, end - _LONGEST)
    stop = near + len(text[near:end].rstrip())
    begin = text.rfind("\n\n", near, stop)
    if begin <= 0 or not _is_ending(text[begin:stop]):
        return end
    before = _before_rule(text, start, begin)
    return end if before == begin and _is_letter(text[start : start + _LETTER_LENGTH]) else before


def _after_rule(text: str, start: int) -> int:
    rest = text[start : start + _LONGEST].lstrip()
    line = rest.split("\n", 1)[0]
    begin = text.find(line, start) if line else start
    return begin + len(line) if _RULE.fullmatch(line.strip()) else start


def _before_rule(text: str, start: int, end: int) -> int:
    rest = text[max(start, end - _LONGEST) : end].rstrip()
    line = rest.rsplit("\n", 1)[-1]
    if not _RULE.fullmatch(line.strip()):
        return end
    return text.rfind(line, start, end)


def _is_opening(line: str) -> bool:
    if not line.rstrip(" *_").endswith((":", ".", "!")) and line[1:] != line[1:].lower():
        return False  # A title.
    line = _plain(line)
    if not line or len(line) > _LONGEST or line.startswith(_DIALOGUE):
        return False
    for opening in _OPENINGS:
        begun = opening.start.match(line)
        if begun is None or line[-1] not in opening.ends:
            continue
        rest = line[begun.end() :]
        if (opening.whole and len(rest) > 1) or _GOES_ON.search(rest):
            continue
        if opening.holds is None or opening.holds.search(rest):
            return not any(mark in line for mark in _DIALOGUE)
    return False


def _is_ending(paragraph: str) -> bool:
    sentences = [_plain(sentence) for sentence in _SENTENCES.split(_FACES.sub("", paragraph).strip())]
    known = [_ENDING.match(sentence) is not None for sentence in sentences]
    return any(known) and all(
        (found or _BESIDE.match(sentence))
        and sentence[-1:] in set(".!?")
        and not sentence.startswith(_DIALOGUE)
        for found, sentence in zip(known, sentences, strict=True)
    )


def _plain(text: str) -> str:
    return _FACES.sub("", text).strip(" \t\n*_()[]").translate(_STRAIGHT).casefold()


def _is_letter(text: str) -> bool:
    return any(_LETTER.fullmatch(line) for line in text.split("\n", _LETTER_LINES)[:_LETTER_LINES])

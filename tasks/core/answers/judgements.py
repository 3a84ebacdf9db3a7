"""What a judge says in a word: which of two answers is better, and yes or no to the questions of a checklist.

JSON is read wherever it stands; without any, the words in which models answer without it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

from tasks.core.answers.parsing import json_values
from tasks.core.answers.rubric import normalized
from tasks.core.answers.thinking import split_thinking
from tasks.core.answers.usable import must_have_begun, read_items
from tasks.core.errors import UnusableAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.core.exchange.request import Answer

LEAST_CHECKS, MOST_CHECKS = 3, 8
"""Questions of a checklist: of more, the first ones count."""

_LONGEST: Final = 1_000_000
_WINNERS: Final = (
    "better",
    "winner",
    "preferred",
    "preference",
    "choice",
    "verdict",
    "better_answer",
    "answer",
    "best",
    "result",
)
_NOUN: Final = r"(?i:answer|response|assistant|option|text|one|model|output)"
_MARKS: Final = r"[\s*_\"'`]{0,6}"
_SIDE: Final = re.compile(
    rf"[\s\"'*_`\[({{<]*(?:(?i:the\s|final\s|better\s)?{_NOUN}(?i:\s(?:is|name|number))?[\s_:>]*)?(?:(?i:the)\s)?"
    r"(?P<side>(?i:(?:it'?s )?a (?:tie|draw)|[abc12]|first|second|tied?|draw|equal|both|neither|none))\b"
    rf"(?:\s{_NOUN}\b)?[\s\"'*_`\])}}.!]*"
)
_REASON: Final = re.compile(r"[,;:(\u2013\u2014-]?\s*(?i:because|as|since|for|clearly|by far)\b")
_OTHER: Final = {"A": re.compile(r"\b[B2]\b"), "B": re.compile(r"\b[A1]\b")}
_NAMES: Final = {"a": "A", "1": "A", "first": "A", "b": "B", "2": "B", "second": "B"}
_BRACKETED: Final = re.compile(r"\[\[\s*(A|B|C|tie)\s*(?:(?P<sign>>{1,2}|=)\s*[AB]\s*)?\]\]", re.IGNORECASE)
# What may stand between "is" and "better" without turning its meaning.
_HOW: Final = (
    r"(?i:\s(?:a|the|by|far|much|clearly|slightly|somewhat|significantly|marginally|considerably|definitely|"
    r"overall|generally|simply|bit|little|lot|still|also|my|more)\b){0,4}"
)
_GOOD: Final = r"(?i:better|best|stronger|superior|preferable|preferred|winner)"
_NAMED: Final = rf"(?:(?i:the\s))?(?:{_NOUN}{_MARKS})?(?P<%s>[AB]|[12](?=\s*[.*]*\s*$)|(?i:tie)\b)\b"
_SUBJECT: Final = (
    rf"(?:\b{_NOUN}{_MARKS}\b(?P<subject>[AB12])|\b(?P<bare>[AB])"
    rf"|(?i:\bthe (?P<place>first|second)(?:\s{_NOUN})?))\b"
)
_WORDS: Final = r"(?i:verdict|choice|preference|winning|final answer|answer)"
_SAID: Final = re.compile(
    rf"(?:{_SUBJECT}{_MARKS}(?:\s(?i:is|was|seems)\b{_HOW}{_MARKS}{_GOOD}\b|\s(?i:wins)\b))"
    rf"|\b(?:{_GOOD}|{_WORDS})(?:\s(?:{_NOUN}|(?i:of the two)))?{_MARKS}(?:(?i:\sis\b)|[:=]){_MARKS}"
    rf"{_NAMED % 'named'}(?!['\u2019 ][a-z])"
    rf"|\b(?i:prefer|choose|pick)\b{_MARKS}{_NAMED % 'object'}"
    r"|\b(?P<tie>(?i:it is|it'?s|this is|call it) (?i:a tie|a draw))\b"
)
_YES: Final = frozenset({"yes", "y", "true", "1", "pass", "passed", "met"})
_NO: Final = frozenset({"no", "n", "false", "0", "fail", "failed", "not met", "unmet", "unclear", "partly"})
_BEGUN: Final = re.compile(r"(yes|no)\b(?=[\s,.;:(\u2013\u2014-]|$)")
_DASHES: Final = " |*_\"':-\u2013\u2014"
_LINE: Final = re.compile(
    r"^[\s>#*_|-]{0,8}(?:(?:question|q|item|check)[\s#]{0,2})?(?P<number>[0-9]{1,2})[\"'*_]{0,3}[.):|\s-]"
    r"(?P<rest>[^\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
_WORD: Final = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?:question|q|item|check)?_?#?([0-9]{1,2})(?![0-9])")
_ANSWERS: Final = ("answer", "verdict", "result", "value", "met", "yes", "response", "check", "score")
_PLACES: Final = ("number", "question", "id", "item", "index", "question_number", "no")


def read_comparison(answer: Answer) -> str:
    """The better one of two answers by what a judge says: `A`, `B` or `tie`.

    Raises:
        UnusableAnswerError: `token_exhaustion` when it was cut off before it began, else `bad_scores`.
    """
    text = _said(answer)
    found = {side for value in _values(text) if isinstance(value, dict | list) for side in _sides_in(value)}
    if len(found) == 1:
        return found.pop()
    if not found:
        if side := _side_first(text):
            return side
        if bracketed := list(_BRACKETED.finditer(text)):
            last = bracketed[-1]
            return "tie" if last["sign"] == "=" else _side(last[1])
        said = {_side(next(filter(None, item.groups()))) for item in _SAID.finditer(text)}
        # Where it says both, or nothing that can be told for certain, it is asked again.
        if len(said) == 1:
            return said.pop()
    must_have_begun(answer)
    raise UnusableAnswerError("bad_scores", "the judge does not say which of the two answers is better")


def _sides_in(value: object) -> Iterator[str]:
    if isinstance(value, list) and len(value) == 1:
        yield from _sides_in(value[0])
    elif isinstance(value, str) and (side := _side_first(value)):
        yield side
    if not isinstance(value, dict):
        return
    fields = {normalized(str(name)): field for name, field in value.items()}
    for name in _WINNERS:
        field = fields.get(name)
        if isinstance(field, dict | list):
            yield from _sides_in(field)
        elif isinstance(field, str | int) and not isinstance(field, bool):
            if side := _side_first(str(field)):
                yield side
        else:
            continue
        return


def _side_first(text: str) -> str:
    """The side with which a text begins, where what follows can only be why; "" elsewhere.

    `A: wordy. B: to the point.` begins with a side, and does not say which is better.
    """
    found = _SIDE.match(text)
    if found is None:
        return ""
    side, rest = _side(found["side"]), text[found.end() :]
    if not rest or _REASON.match(rest):
        return side
    is_apart = "\n" in found[0] or rest[0] in ",;:(<-\u2013\u2014"
    return side if is_apart and side in _OTHER and not _OTHER[side].search(rest) else ""


def _side(word: str) -> str:
    return _NAMES.get(word.lower(), "tie")


def _values(text: str) -> list[object]:
    """All JSON in an answer; of one that is JSON and nothing else, that."""
    try:
        return [orjson.loads(text)]
    except orjson.JSONDecodeError:
        return [value for value, _ in json_values(text)]


def read_checklist(answer: Answer) -> tuple[str, ...]:
    """The questions in an answer, each once, three to eight of them.

    Raises:
        UnusableAnswerError: As `read_items` raises it; `no_list` where there are fewer.
    """
    questions = tuple(dict.fromkeys(read_items(answer, "questions")))[:MOST_CHECKS]
    if len(questions) < LEAST_CHECKS:
        raise UnusableAnswerError(
            "no_list", f"the checklist has {len(questions)} questions; at least {LEAST_CHECKS} are wanted"
        )
    return questions


def read_checks(answer: Answer, count: int) -> tuple[bool, ...]:
    """What a judge says to each of so many questions: whether it is yes.

    Raises:
        UnusableAnswerError: `token_exhaustion` when it was cut off before it began; `bad_scores` when a
            question has no answer, or one that is neither yes nor no.
    """
    text = _said(answer)
    found: dict[int, bool] = {}
    for value in _values(text):
        found |= _checks_in(value)
    if not found:
        found = _checks_in_lines(text, count)
    if 0 in found and count not in found:
        found = {number + 1: said for number, said in found.items()}
    missing = [number for number in range(1, count + 1) if number not in found]
    if missing:
        must_have_begun(answer)
        raise UnusableAnswerError("bad_scores", f"the judge says neither yes nor no to question {missing[0]}")
    return tuple(found[number] for number in range(1, count + 1))


def _checks_in_lines(text: str, count: int) -> dict[int, bool]:
    """The answers in lines that have numbers; without any, of a line each."""
    found = {}
    for line in _LINE.finditer(text):
        # The line may repeat the question, and hold such a word in it.
        rest = line["rest"].rpartition("?")[2].strip(_DASHES)
        words = {word.lower() for word in _WORD.findall(rest)}
        first = _WORD.match(rest)
        if first or len(words) == 1:
            found[int(line["number"])] = (first[0].lower() if first else words.pop()) == "yes"
    lines = [line.strip(_DASHES + ".!").lower() for line in text.splitlines() if line.strip()]
    if not found and len(lines) == count and all(line in {"yes", "no"} for line in lines):
        return {number: line == "yes" for number, line in enumerate(lines, 1)}
    return found


def _checks_in(value: object) -> dict[int, bool]:
    """The answers in a JSON value, by the number of their question."""
    found: dict[int, bool] = {}
    if isinstance(value, list):
        for place, element in enumerate(value, 1):
            said = _check(element)
            if said is not None:
                found[_place(element) or place] = said
            elif isinstance(element, dict):
                found |= _checks_in(element)
    elif isinstance(value, dict):
        for name, field in value.items():
            number = _NUMBER.match(normalized(str(name)))
            said = _check(field)
            if number and said is not None:
                found[int(number[1])] = said
        if not found:
            # Wrapped: {"answers": {...}}.
            for field in value.values():
                found |= _checks_in(field) if isinstance(field, dict | list) else {}
    return found


def _place(element: object) -> int | None:
    if not isinstance(element, dict):
        return None
    fields = {normalized(str(name)): field for name, field in element.items()}
    for name in _PLACES:
        field = fields.get(name)
        if isinstance(field, int | str) and not isinstance(field, bool):
            number = _NUMBER.match(normalized(str(field)))
            if number:
                return int(number[1])
    return None


def _check(field: object) -> bool | None:
    """Whether a field says yes; None where it says neither."""
    if isinstance(field, dict):
        fields = {normalized(str(name)): item for name, item in field.items()}
        return next((said for name in _ANSWERS if (said := _check(fields.get(name))) is not None), None)
    if not isinstance(field, str | int):
        return None
    word = str(field).strip(" \t\n.!*_\"'").lower()
    if word in _YES or word in _NO:
        return word in _YES
    begun = _BEGUN.match(word)
    return begun[1] == "yes" if begun else None


def _said(answer: Answer) -> str:
    """What is answered; where nothing is, what stands in the reasoning."""
    text = split_thinking(answer.content[:_LONGEST]).answer.strip()
    return text or answer.reasoning[:_LONGEST].strip()

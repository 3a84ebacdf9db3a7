"""What of a request a server may refuse, how a refusal is recognised, and what is done: one table.

A refusal is recognised from the parameter or the places that it names, else from the names in its words,
however they are written: `top_p`, top-p, topP. Only what was sent can have been refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tasks.core.exchange.request import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tasks.core.chat.error_documents import Complaint
    from tasks.core.exchange.request import Form, Structure, TokenLimit

RESPONSE_FORMAT: Final = "response_format"
TOKEN_LIMIT: Final = "max_tokens"  # noqa: S105 - a parameter
HIGHEST: Final = "the highest token limit"
SYSTEM: Final = "system"
UNKEPT: Final = "unkept"
"""A form that was taken and not kept to: it passes, or is weakened when it happens twice in a row."""


@dataclass(frozen=True, slots=True)
class Refusable:
    """An entry of the table.

    Attributes:
        name: What it is called: of a parameter, the field of the body.
        words: Names it in an error, in lower case.
        yields: From a form and what was refused to the next form; the same one where that was learned
            meanwhile, None where nothing is left to try.
        notice: Said when it happens, after the model's name; "" for what changes no answer.
    """

    name: str
    words: re.Pattern[str]
    yields: Callable[[Form, Refused], Form | None]
    notice: str = ""

    def sent(self, body: Mapping[str, Any]) -> bool:
        """Whether a body holds it."""
        if self.name == SYSTEM:
            return any(message["role"] == SYSTEM for message in body["messages"])
        if self.name in {TOKEN_LIMIT, HIGHEST}:
            return limit_in(body) is not None
        return self.name in body


def _left_out(form: Form, refused: Refused) -> Form:
    return replace(form, left_out=form.left_out | {refused.name})


def _weakened(form: Form, refused: Refused) -> Form | None:
    if refused.tried != form.structure:
        return form  # Somebody else has learned it since; the weaker form was not tried by this call.
    weaker: Structure | None = _STEPS.get(refused.step) or _WEAKER.get(form.structure)
    return replace(form, structure=weaker) if weaker else None


def _renamed(form: Form, refused: Refused) -> Form | None:
    if refused.tried != form.token_limit:
        return form
    if form.renamed:
        return None
    other = next(name for name in _LIMITS if name != form.token_limit)
    return replace(form, token_limit=other, renamed=True)


def _lowered(form: Form, refused: Refused) -> Form:
    highest = int(refused.step)
    return replace(form, most_tokens=min(highest, form.most_tokens or highest))


def _folded(form: Form, _refused: Refused) -> Form:
    return replace(form, system=False)


def _unstreamed(form: Form, _refused: Refused) -> Form:
    return replace(form, streaming=False)


def _uncounted(form: Form, _refused: Refused) -> Form:
    return replace(form, stream_usage=False)


_WEAKER: Final[dict[str, Structure]] = {
    "json_schema": "json_object",
    "plain_schema": "json_object",
    "json_object": "off",
}
_STEPS: Final[dict[str, Structure]] = {"plain_schema": "plain_schema", "off": "off"}


def _names(*names: str) -> re.Pattern[str]:
    """A pattern of names as they may be written: with underscores, hyphens, blanks or nothing between."""
    written = "|".join(re.sub(r"[_ ]", r"[ _-]?", name) for name in names)
    return re.compile(rf"(?<![a-z0-9_])(?:{written})(?![a-z0-9_])")


def _common(word: str, *names: str) -> re.Pattern[str]:
    """A pattern of a name that is a common word too: quoted, called a parameter, or alone in its place."""
    others = "".join(f"|{re.sub(r'[_ ]', r'[ _-]?', name)}" for name in names)
    kinds = "parameter|argument|field|option|property|input|key|supplied|permitted|supported"
    return re.compile(
        rf"(?:^|(?<=[\"'`.])){word}(?=[\"'`:]|$)"
        rf"|(?<![a-z0-9_])(?:{word}(?= (?:{kinds}|is |are |was |not |cannot|must|does))"
        rf"|(?<=[:,\[] ){word}(?=[,.\]]|$)"
        rf"|(?<=(?:meter|ument|field|ption) ){word}{others})(?![a-z0-9_])"
    )


# Gemini's, which says of neither penalty that it is meant.
_A_PENALTY: Final = r"(?<!presence[\s-])(?<!frequency[\s-])penalt(?:y|ies)"
_OUT: Final = "takes no {name}: left out"

TABLE: Final[tuple[Refusable, ...]] = (
    # Parameters, the least important first: where a refusal names none, they go in this order.
    Refusable("min_p", _names("min_p"), _left_out, _OUT),
    Refusable("top_k", _names("top_k"), _left_out, _OUT),
    Refusable("presence_penalty", _names("presence_penalty", _A_PENALTY), _left_out, _OUT),
    Refusable("frequency_penalty", _names("frequency_penalty", _A_PENALTY), _left_out, _OUT),
    Refusable("seed", _names("seed", "random_seed"), _left_out, _OUT),
    Refusable("top_p", _names("top_p"), _left_out, _OUT),
    Refusable("stop", _common("stop", "stop_sequences?", "stop_words?"), _left_out, _OUT),
    Refusable("temperature", _names("temperature"), _left_out, _OUT),
    # The form.
    Refusable("stream_options", _names("stream_options", "include_usage"), _uncounted),
    Refusable("stream", _common("stream", "streaming"), _unstreamed),
    Refusable(
        RESPONSE_FORMAT,
        _names("response_format", "response_schema", "response_mime_type", "response_json_schema"),
        _weakened,
    ),
    Refusable(TOKEN_LIMIT, _names("max_tokens", "max_completion_tokens"), _renamed),
    Refusable(
        HIGHEST,
        _names(
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "max_new_tokens",
            "maximum tokens",
            "(?:in|for) the completion",
        ),
        _lowered,
        "takes no token limit above {step}: the limit is {step}",
    ),
    Refusable(
        SYSTEM,
        re.compile(
            r"\bsystem[\"'`]?[ _](?:role|message|prompt|instruction)|\bdeveloper instruction"
            r"|\brole\b[^\n]{0,80}\bsystem\b|[\"'`]system[\"'`][^\n]{0,80}\brole\b"
            r"|messages\[?\.?\d+\]?\.role|\broles must alternate"
            r"|\bonly (?:user|assistant)\b[^\n]{0,40}\broles\b"
        ),
        _folded,
        "takes no system message: its text stands before the user's",
    ),
)
ENTRIES: Final[dict[str, Refusable]] = {entry.name: entry for entry in TABLE}

_LIMITS: Final[tuple[TokenLimit, ...]] = ("max_tokens", "max_completion_tokens")
_NEVER: Final = frozenset({"model", "messages", *_LIMITS})


def entry_of(name: str) -> Refusable:
    """The entry of a name; a field of `extra_body` is left out like a parameter."""
    return ENTRIES.get(name) or _extra(name)


def _extra(name: str) -> Refusable:
    plain = re.escape(name.lower()).replace("_", r"[ _-]?")
    if re.search(r"[_\d]", name):
        pattern = rf"(?<![a-z0-9_]){plain}(?![a-z0-9_])"
    else:
        # A single word stands in many a sentence.
        pattern = rf"[\"'`.]{plain}(?=[\"'`]|$)|^{plain}$|(?<=[:,\[] ){plain}(?=[,.\]]|$)"
    return Refusable(name, re.compile(pattern), _left_out, _OUT)


def limit_in(body: Mapping[str, Any]) -> tuple[TokenLimit, int] | None:
    """The token limit of a body, by name and value; None where there is none."""
    return next(((name, body[name]) for name in _LIMITS if isinstance(body.get(name), int)), None)


def refused_in(
    complaint: Complaint, words: str, body: Mapping[str, Any], structure: Structure
) -> tuple[Refused, ...]:
    """What of a body an error refuses.

    Args:
        complaint: The error.
        words: All that it says, in lower case, codes included.
        body: The body as it was sent.
        structure: How it asks for the shape of its answer.

    Returns:
        What was refused, all of it that is named in one breath; () where the error names none of it.
    """
    entries = [
        *(entry for entry in TABLE if entry.sent(body)),
        *(_extra(name) for name in body if name not in ENTRIES and name not in _NEVER),
    ]
    # A model may be called after anything.
    words = words.replace(str(body["model"]).lower(), "…")
    if rivals := _rivals(entries, words):
        return (Refused(rivals[0], rivals=rivals),)
    for named in (_at(entries, complaint.places), _spoken(entries, QUOTED.sub(" ", words))):
        found = tuple(
            refused
            for entry in named
            if (refused := _refused(entry, complaint, words, body, structure)) is not None
        )
        if found:
            return found
    return _implied(entries, words, body, structure) or _named_at_all(entries, QUOTED.sub(" ", words))


def _at(entries: Iterable[Refusable], places: Iterable[str]) -> list[Refusable]:
    """The entries that stand at the places which an error points to."""
    found: dict[str, Refusable] = {}
    for place in places:
        for entry in entries:
            if entry.words.search(place):
                found.setdefault(entry.name, entry)
    return list(found.values())


# An error says no in some word; else a name in it is a name in passing.
_NO: Final = re.compile(
    r"\bno[tr]?\b|n't\b|\bun(?:supported|recogni[sz]ed|known|expected|available)|\binvalid|\bextra\b|\bmust\b"
    r"|\bcannot\b|\bdeprecated|\bonly\b|\bdis(?:allowed|abled)|\bforbid|\bforbidden|\billegal|\btoo \w+"
    r"|\bexceed|\bgreater|\bless\b|\bat (?:most|least)\b|\bbetween\b|\brange\b|\bmaximum|\bminimum|\breject"
    r"|\bincompatible|\bconflict|\bremoved|\brefus|\bfail|\bbad\b|\bshould\b|\bhowever\b|>|<"
)
# What may be used in place of what was refused is named as well.
_OFFER: Final = re.compile(
    r"\s*(?:the )?(?:supported|allowed|valid|accepted|available|permitted|known|please use|use|try|did you)\b"
)
_CLAUSES: Final = re.compile(r"(?<=[.;!?])\s+|\n+")
_BETWEEN: Final = re.compile(r"[\s,'\"`\[\](){}&]*(?:and|or)?[\s,'\"`\[\](){}&]*")
_MOST_CLAUSES: Final = 64


# A question that is said back may name anything.
QUOTED: Final = re.compile(r"(?<!\w)(?P<mark>['\"`])(?=\S)[^'\"`\n{}]{30,}(?<=\S)(?P=mark)(?!\w)")


def _spoken(entries: Iterable[Refusable], words: str) -> list[Refusable]:
    """The entries that words name first, where they refuse something, with what is listed beside it."""
    clauses = _CLAUSES.split(words, maxsplit=_MOST_CLAUSES)
    for clause in clauses:
        if _NO.search(clause) and not _OFFER.match(clause) and (named := _listed(entries, clause)):
            return named
    return []


def _listed(entries: Iterable[Refusable], clause: str) -> list[Refusable]:
    matches = sorted(
        ((match.start(), match.end(), entry) for entry in entries if (match := entry.words.search(clause))),
        key=lambda found: found[:2],
    )
    named: list[Refusable] = []
    end = 0
    for start, stop, entry in matches:
        if named and start >= end and not _BETWEEN.fullmatch(clause, end, start):
            break
        named.append(entry)
        end = max(end, stop)
    return named


_BOTH: Final = re.compile(
    r"\bboth\b|\bmutually exclusive|\bonly one\b|\bat the same time|\btogether\b|\bin combination"
    r"|\bcombined\b|\bexclude each other|\bsimultaneous"
)


def _rivals(entries: Iterable[Refusable], words: str) -> tuple[str, ...]:
    """The two parameters that an error calls exclusive; ()."""
    if not _BOTH.search(words):
        return ()
    named = tuple(entry.name for entry in entries if entry.yields is _left_out and entry.words.search(words))
    return named if len(named) == 2 else ()  # noqa: PLR2004 - a pair


_A_TYPE: Final = re.compile(r"\btype\b[^_]|json_schema|json_object|json schema")
_BOUNDS: Final = re.compile(r"minitems|maxitems|\bminimum\b|\bmaximum\b|\bkeyword|invalid schema")
_BOUNDED: Final = re.compile(r"'(?:minItems|minimum)'")


def _refused(
    entry: Refusable, complaint: Complaint, words: str, body: Mapping[str, Any], structure: Structure
) -> Refused | None:
    """What an error that names an entry refuses of it; None where it does not."""
    if entry.name == RESPONSE_FORMAT:
        return _format(words, body, structure, named=True)
    if entry.name in {TOKEN_LIMIT, HIGHEST}:
        refused = _limit(complaint, words, body)
        return refused if refused is not None and refused.name == entry.name else None
    return Refused(entry.name, tried=entry.name)


def _format(
    words: str, body: Mapping[str, Any], tried: Structure, *, named: bool = False, guessed: bool = False
) -> Refused:
    step = ""
    if tried == "json_schema" and _BOUNDS.search(words) and _BOUNDED.search(str(body[RESPONSE_FORMAT])):
        step = "plain_schema"
    elif named and not _A_TYPE.search(words) and not _BOUNDS.search(words):
        # Not one type of it: whatever is in it would be refused.
        step = "off"
    return Refused(RESPONSE_FORMAT, tried=tried, step=step, guessed=guessed)


_OTHER_NAME: Final = re.compile(
    r"\bunsupported|\bunrecogni[sz]ed|\bunknown|\bunexpected|\bextra (?:inputs|fields)|\bextra_forbidden"
    r"|\bnot (?:permitted|supported|allowed|recogni[sz]ed|accepted|a valid (?:param|arg|field))|\bdeprecated"
    r"|\binstead\b|\bno longer|\bdoes not (?:support|accept)"
)
_TOO_MANY: Final = re.compile(
    r"\btoo (?:large|high|big|many|great)|\bat most\b|\bless than\b|\bup to\b|\bexceed|\bmaximum|\brange\b"
    r"|\bbetween\b|<|>|\bgreater than\b|\blimit(?:ed)? (?:of|to|is)\b|\bmore than\b"
    r"|\bhowever, you requested\b|\bcannot be (?:larger|higher)"
)
_NUMBER: Final = re.compile(r"(?<![\w.-])[0-9]{1,3}(?:,[0-9]{3})+(?![\w-])|(?<![\w.-])[0-9]{1,9}(?![\w-])")
_BOUND: Final = re.compile(
    r"(?:at most|up to|less than or equal to|less than|<=?|>"
    r"|maximum(?: (?:allowed|value|number))?(?: of| is|:)?"
    r"|limit(?:ed)? (?:of|to|is)|exceed|more than|greater than|larger than|higher than|and|,)\s*$"
)
_LEAST: Final = re.compile(r"(?:at least|minimum(?: of| is|:)?|>=|greater than or equal to)\s*$")
_REACHED: Final = re.compile(r"\breached\b|\bhigher max|\bincrease\b")


_OWN_LIMIT: Final = re.compile(
    r"max[_ ](?:completion[_ ]|output[_ ]|new[_ ])?tokens\W{1,3}"
    r"(?:(?:or\W{1,3}max_completion_tokens\W{1,2})? ?is too large"
    r"|must be (?:less|at most|<))|maximum tokens you requested exceeds|\b(?:in|for) the completion\b"
)
_WITH_INPUT: Final = re.compile(
    r"\b([0-9]{1,9}) (?:in the messages|(?:`?inputs?`? )?tokens? from the input|`?inputs?`? tokens?)"
)


def is_token_limit(words: str) -> bool:
    """Whether an error says that the token limit is too high, whatever else it names."""
    if not _OWN_LIMIT.search(words):
        return False
    return "context length" not in words or _WITH_INPUT.search(words) is not None


def _limit(complaint: Complaint, words: str, body: Mapping[str, Any]) -> Refused | None:
    limit = limit_in(body)
    if limit is None or _REACHED.search(words):
        return None
    name, value = limit
    other = next(each for each in _LIMITS if each != name)
    too_many = bool(_TOO_MANY.search(words))
    if too_many and (beside := _WITH_INPUT.search(words)):
        # What is left beside the input differs with each question: half of it leaves room for most. A
        # question that is longer than its answer may be is itself too long.
        fits = int(beside[1]) < value
        return Refused(HIGHEST, tried=str(value), step=str(value // 2)) if fits else None
    numbers = _bounds(words, value) if too_many else []
    if (_OTHER_NAME.search(words) or other in words) and not numbers:
        return Refused(TOKEN_LIMIT, tried=name)
    if not too_many and complaint.codes & {"unsupported_parameter", "unknown_parameter"}:
        return Refused(TOKEN_LIMIT, tried=name)
    if not too_many:
        return None
    # A server that names no number takes half, or half of that.
    highest = numbers[0] if numbers else value // 2
    return Refused(HIGHEST, tried=str(value), step=str(highest)) if highest else None


def _bounds(words: str, value: int) -> list[int]:
    """The numbers below a value that may be the highest which is taken, the likeliest first."""
    found: list[tuple[bool, int]] = []
    for match in _NUMBER.finditer(words):
        number, before = int(match[0].replace(",", "")), words[max(0, match.start() - 40) : match.start()]
        if 0 < number < value and not _LEAST.search(before):
            found.append((bool(_BOUND.search(before)), number))
    # A number that nothing calls a bound may count anything.
    return [number for bound, number in sorted(found, reverse=True) if bound]


SOME_PARAMETERS: Final = re.compile(
    r"\brequested parameters|\bno (?:endpoint|provider)s?\b[^\n]{0,80}\bparameters"
)
_SHAPE: Final = re.compile(
    r"json[ _-]?schema|json[ _-]?object|json mode|structured[ _]output|guided|grammar|outlines|\bschema\b"
    r"|\bsamplers?\b"
)
_NO_STREAM: Final = re.compile(
    r"\bstream(?:ing)?\b[^.\n]{0,80}\bnot (?:supported|allowed|available)|\bnot stream\b|\bto stream\b"
)


def _implied(
    entries: Iterable[Refusable], words: str, body: Mapping[str, Any], structure: Structure
) -> tuple[Refused, ...]:
    """What is refused by an error that names it not as the request does."""
    names = [entry.name for entry in entries]
    if RESPONSE_FORMAT in names and (_SHAPE.search(words) or SOME_PARAMETERS.search(words)):
        return (_format(words, body, structure),)
    if "stream" in names and _NO_STREAM.search(words):
        return (Refused("stream", tried="stream"),)
    if SOME_PARAMETERS.search(words):
        optional = (entry.name for entry in entries if entry.yields is _left_out and entry.name in ENTRIES)
        least = next(optional, "")
        return (Refused(least, tried=least),) if least else ()
    return ()


def _named_at_all(entries: Iterable[Refusable], words: str) -> tuple[Refused, ...]:
    """The one parameter that an error names, where it does not say no in words that are known."""
    named = [entry for entry in entries if entry.yields is _left_out and entry.words.search(words)]
    return (Refused(named[0].name, tried=named[0].name),) if len(named) == 1 else ()


# What is clearly about something else than the schema that was sent.
_ELSEWHERE: Final = re.compile(
    r"budget|quota|credit|billing|expired|api[ _-]?key|suspend|account|balance|payment|subscription"
    r"|rate limit|safety|policy|harmful|blocked|overload|timed? ?out|unavailable|temporar|try again"
    r"|connection|permission|forbidden|unauthori[sz]ed"
)


def guess(words: str, body: Mapping[str, Any], structure: Structure) -> tuple[Refused, ...]:
    """The schema, where one was sent and the words of an error are about nothing else that is known."""
    if RESPONSE_FORMAT not in body or _ELSEWHERE.search(words):
        return ()
    return (_format(words, body, structure, guessed=True),)

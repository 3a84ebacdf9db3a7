"""What a server's error means for the next attempt: pure functions from status and error to a verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tasks.core.llm.form import Refused
from tasks.core.llm.refusable import (
    QUOTED,
    RESPONSE_FORMAT,
    SOME_PARAMETERS,
    SYSTEM,
    UNKEPT,
    guess,
    is_token_limit,
    refused_in,
)
from tasks.core.llm.retry import RATE_LIMITED, Verdict
from tasks.core.llm.wrappings import unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.llm.http import Manner

UNAUTHORIZED: Final = 401
NO_CREDIT: Final = 402
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
SERVER_ERROR: Final = 500

_PASSING: Final = frozenset({408, 409, 425})
THROTTLED_STATUS: Final = frozenset({RATE_LIMITED, 498})
"""498 is Groq's "the flexible tier has no capacity now"."""
_REFUSED_FORM: Final = frozenset({400, 404, 415, 422, 500, 501})
_UNKNOWN_MODEL: Final = frozenset({400, 410, 422})

_RATE_CODES: Final = frozenset({"rate_limit_exceeded", "rate_limit_error", "resource_exhausted"})
# Of error objects in responses with status 200, where the object has no status of its own.
_STATUS_OF: Final = {
    **dict.fromkeys([*_RATE_CODES, "insufficient_quota", "too_many_requests"], RATE_LIMITED),
    **dict.fromkeys(["invalid_api_key", "authentication_error", "unauthorized"], 401),
    **dict.fromkeys(["permission_error", "permission_denied"], 403),
    **dict.fromkeys(["model_not_found", "not_found_error", "notfounderror"], 404),
    **dict.fromkeys(["overloaded_error", "overloaded", "unavailable_error"], 503),
    **dict.fromkeys(["invalid_request_error", "badrequesterror", "context_length_exceeded"], 400),
}

# Not "billing" alone: Groq's ordinary 429 links to its billing page.
_CREDIT: Final = re.compile(
    r"insufficient[ _](?:quota|balance|credit|fund)|credit balance is too low|billing[ _](?:hard[ _]limit|"
    r"details|not[ _]active)|out of credits|requires more credits|account is not active|quota exhausted"
)
# What is wrong with the account or its key, in whatever status it comes: no other question fares better.
_ACCOUNT: Final = re.compile(
    r"""
    \bbudget\b [^\n]{0,60}? \b(?: exceeded | exhausted | reached | spent | used[ ]up )
    | exceededbudget | budget_exceeded
    | \b(?: exceed\w* | over | reached )[ ] [^\n]{0,40}? \b(?: budget | spend(?:ing)?[ ](?:limit|cap) )\b
    | \bspend(?:ing)?[ ](?:limit|cap)\b [^\n]{0,40}? \b(?: exceeded | reached | hit )
    | \b(?: key | token | subscription | trial | licen[cs]e | plan )\b [^\n]{0,40}?
      \b(?: expired | revoked | disabled | deactivated | suspended | inactive | been[ ]deleted )\b
    | \bapi[ _-]?key\b [^\n]{0,40}? \b(?: invalid | not[ ]valid | incorrect | missing )\b
    | \b(?: expired | revoked | disabled | deactivated | invalid | incorrect )[ ](?:api[ _-]?)?key\b
    | \b(?: account | organi[sz]ation | workspace | project | tenant | billing )\b [^\n]{0,40}?
      \b(?: suspended | disabled | deactivated | terminated | blocked | restricted | on[ ]hold | closed
      | locked | delinquent | past[ ]due | not[ ]active | inactive )\b
    | \bsuspended[ ](?: account | organi[sz]ation | user )\b
    | \bpayment[ ](?: required | method | overdue | failed )
    | \b(?: past | over )due[ ](?: balance | invoice | payment )
    """,
    re.VERBOSE,
)
_PASSES: Final = re.compile(
    r"\bper (?:second|minute|hour)|this minute|\b(?:retry|try again) (?:in|after|later)|temporar"
)
# Those of 429s pass in a minute.
_QUOTA: Final = re.compile(
    r"\bquotas?\b[^\n]{0,60}?\b(?:exceeded|exhausted|reached|used up)|\bexceed\w* [^\n]{0,40}?\bquotas?\b"
)
_MODERATED: Final = re.compile(
    r"\bmoderat|\bcontent[ _-]?(?:policy|policies|filter|management|safety|violation)|\bflagged\b|"
    r"guardrail|\bsafety\b|responsible ?ai|\busage policies\b|\bprohibited[ _]content|\bharmful\b|"
    r"\binappropriate content|data ?inspection"
)
_MODEL: Final = re.compile(
    r"\bmodel\b[^\n]{0,160}?(?:\bnot found|\bnot exist|n't exist|"
    r"\bnot (?:currently )?(?:supported|available)\b(?! (?:with|for|when|in combination))|"
    r"\bdecommissioned|\bdeprecated|\bretired|\bunknown|\bnot loaded)"
    r"|\b(?:invalid|unknown|unsupported|no such|not a valid|could not find|cannot find)(?: the)? model\b"
)
_TOO_LONG: Final = re.compile(
    r"context[ _](?:length|window|size)|maximum context|too many (?:input )?tokens|too long"
)
# LiteLLM, Moonshot, Anthropic, Zhipu; those that say it in the words of everybody.
_CROWDED: Final = re.compile(
    r"\bparallel|\bconcurren|\bsimultaneous|max_(?:parallel|concurrent)|并发|"
    r"\bat (?:a|the same) time\b|\bin[- ]flight\b|\balready (?:in progress|running|processing)\b"
)
_UNKEPT: Final = frozenset({"json_validate_failed"})
"""Codes of answers that were not of the schema: the model's fault, not the request's."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_UNNAMED: Final = "an error that the server does not name"
_MOST_WORDS: Final = 4000
"""Characters of an error that are searched."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """An error as a server words it; each field is "" or None where it says nothing.

    Attributes:
        message: The text for people.
        codes: Its code and type, in lower case.
        parameter: The parameter of the request that it names.
        places: All places of the request that it points to, that parameter among them.
        status: The HTTP status that the error object itself names.
        moderated: Whether it was the content of this request that was refused.
    """

    message: str
    codes: frozenset[str] = frozenset()
    parameter: str = ""
    places: tuple[str, ...] = ()
    status: int | None = None
    moderated: bool = False

    @property
    def meant_status(self) -> int | None:
        """The status that the error stands for, or None when it does not say."""
        named = (_STATUS_OF[code] for code in sorted(self.codes) if code in _STATUS_OF)
        return self.status if self.status is not None else next(named, None)


def complaint_in(document: Any) -> Complaint | None:
    """The error that a JSON document reports, in any of the forms that servers use; None when it has none."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        return None
    error: Any = document.get("error")
    wrapped = unwrapped(document)
    if isinstance(error, str) and error:
        codes = _codes(document.get("error_type"), document.get("code"), *wrapped.codes)
        return Complaint(wrapped.message or error, codes, places=wrapped.places)
    error = error if isinstance(error, dict) and error else document
    if not wrapped.message and error is document:
        return None
    metadata = error.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    status = next(
        (code for key in ("code", "status", "http_code") if (code := _status(error.get(key))) is not None),
        None,
    )
    parameter = error.get("param")
    return Complaint(
        message=wrapped.message,
        codes=_codes(error.get("code"), error.get("type"), error.get("status"), *wrapped.codes),
        parameter=parameter.lower() if isinstance(parameter, str) else "",
        places=wrapped.places,
        status=status,
        moderated="reasons" in metadata or "flagged_input" in metadata,
    )


def error_within(document: dict[str, Any]) -> Complaint | None:
    """The error that a document or chunk with status 200 reports in place of an answer, or None."""
    if document.get("error") or document.get("object") == "error":
        return complaint_in(document) or Complaint(_UNNAMED)
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, dict) and (choice.get("finish_reason") == "error" or choice.get("error")):
        return complaint_in(choice) or Complaint(_UNNAMED)
    return None


def verdict_of(
    status: int, complaint: Complaint, manner: Manner, body: Mapping[str, Any] = _NOTHING
) -> tuple[Verdict, tuple[Refused, ...]]:
    """What an error response says about the next attempt.

    Args:
        status: HTTP status of the response, or the one that the error object in it stands for.
        complaint: The error.
        manner: How the attempt was made.
        body: What was sent: only what is in it was refused.

    Returns:
        The verdict, and what of the request was refused. With RENEGOTIATE that is what the error means; with
        any other verdict, what it may mean if nothing else is wrong.
    """
    said = (complaint.message[:_MOST_WORDS].lower(), complaint.parameter, *sorted(complaint.codes))
    words = "\n".join(filter(None, said))
    if complaint.codes & _UNKEPT:
        return Verdict.RETRY, (Refused(UNKEPT, tried=manner.structure),)
    verdict = _plain_verdict(status, complaint, words)
    if not body or status not in _REFUSED_FORM or _is_about_more(status, complaint, words):
        return verdict, ()
    refused = refused_in(complaint, words, body, manner.structure)
    if status >= SERVER_ERROR:
        refused = tuple(each for each in refused if each.name in {RESPONSE_FORMAT, SYSTEM})
    if refused:
        return Verdict.RENEGOTIATE, refused
    return verdict, () if verdict is Verdict.FATAL else guess(words, body, manner.structure)


def _is_about_more(status: int, complaint: Complaint, words: str) -> bool:
    """Whether an error is about what is asked, or who asks, whatever it names beside that."""
    moderated = complaint.moderated or _MODERATED.search(words)
    return bool(
        moderated
        or _is_too_long(complaint, words)
        or _is_out_of_credit(status, words, complaint)
        or _is_account(status, words)
    )


def _is_too_long(complaint: Complaint, words: str) -> bool:
    """Whether an error is about the length of what is asked, and not about a limit that was asked for."""
    if complaint.places and complaint.places[-1] in {"stop", "stop_sequences"}:
        return False
    return bool(_TOO_LONG.search(words)) and not is_token_limit(words)


def is_about_content(complaint: Complaint) -> bool:
    """Whether a server says that it refuses a question for what is in it: its content, or its length."""
    words = _words(complaint)
    return complaint.moderated or bool(_MODERATED.search(words) or _is_too_long(complaint, words))


def is_crowded(complaint: Complaint) -> bool:
    """Whether a refusal speaks of how many requests are under way at once, and not of how fast they come."""
    words = " ".join((complaint.message[:_MOST_WORDS].lower(), *complaint.codes))
    return bool(_CROWDED.search(words))


def what_to_do(status: int, complaint: Complaint) -> str:
    """The advice at the end of the message of a fatal error."""
    if _is_out_of_credit(status, complaint.message.lower(), complaint):
        return "the account has no credit left; add some, then resume"
    if status != UNAUTHORIZED and _is_account(status, _words(complaint)):
        return "it is the account or its key, and not the question; mend that, then resume"
    if status in {UNAUTHORIZED, FORBIDDEN}:
        return "check its API key"
    if SOME_PARAMETERS.search(complaint.message.lower()):
        return "no provider of this model takes the request; leave parameters out or choose another model"
    return "check model_name and base_url"


def _words(complaint: Complaint) -> str:
    """All that an error says, in lower case."""
    return " ".join((complaint.message[:_MOST_WORDS].lower(), complaint.parameter, *sorted(complaint.codes)))


def _plain_verdict(status: int, complaint: Complaint, words: str) -> Verdict:
    moderated = complaint.moderated or bool(_MODERATED.search(words))
    credit = status < SERVER_ERROR and _is_out_of_credit(status, words, complaint)
    # What is moderated quotes the question, and threatens with what becomes of the account.
    if credit or (not moderated and _is_account(status, words)):
        return Verdict.FATAL
    if status in THROTTLED_STATUS:
        return Verdict.THROTTLED
    if status in _PASSING or status >= SERVER_ERROR:
        return Verdict.RETRY
    if status in {UNAUTHORIZED, NOT_FOUND} or (status == FORBIDDEN and not moderated):
        return Verdict.FATAL
    if status in _UNKNOWN_MODEL and (
        complaint.codes & {"model_not_found", "model_not_supported"} or _MODEL.search(words)
    ):
        return Verdict.FATAL
    return Verdict.GIVE_UP


def _is_out_of_credit(status: int, words: str, complaint: Complaint) -> bool:
    if status == NO_CREDIT or complaint.codes & {"insufficient_quota", "billing_hard_limit_reached"}:
        return True
    # Servers whose limits pass in a minute speak of quotas and plans as well.
    return not complaint.codes & _RATE_CODES and bool(_CREDIT.search(words))


def _is_account(status: int, words: str) -> bool:
    """Whether an error is about the account or its key; limits that pass by themselves are not."""
    if _ACCOUNT.search(QUOTED.sub(" ", words)) and not _PASSES.search(words):
        return True
    return status not in THROTTLED_STATUS and not _PASSES.search(words) and bool(_QUOTA.search(words))


def _codes(*values: object) -> frozenset[str]:
    return frozenset(value.lower() for value in values if isinstance(value, str) and value)


def _status(value: object) -> int | None:
    number = str(value) if isinstance(value, int | str) else ""
    return int(number) if re.fullmatch(r"[1-5][0-9]{2}", number) else None

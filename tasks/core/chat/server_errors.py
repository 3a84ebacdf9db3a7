"""What a server's error means for a call: told apart by status, code and words, and said in ours."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tasks.core.chat.error_documents import (
    RATE_CODES,
    Complaint,
    complaint_in,
    error_within,
)
from tasks.core.chat.refusable import (
    QUOTED,
    RESPONSE_FORMAT,
    SOME_PARAMETERS,
    SYSTEM,
    UNKEPT,
    guess,
    is_token_limit,
    refused_in,
)
from tasks.core.chat.transport import body_of, text_of
from tasks.core.exchange.attempt import RATE_LIMITED, AttemptError, Verdict
from tasks.core.exchange.limit_headers import NO_ADVICE
from tasks.core.exchange.request import Refused
from tasks.core.printable import printable_line
from tasks.core.secrets import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.chat.transport import Manner
    from tasks.core.exchange.limit_headers import Advice
    from tasks.core.exchange.request import ChatRequest


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
_MOST_WORDS: Final = 4000
"""Characters of an error that are searched."""


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
    return not complaint.codes & RATE_CODES and bool(_CREDIT.search(words))


def _is_account(status: int, words: str) -> bool:
    """Whether an error is about the account or its key; limits that pass by themselves are not."""
    if _ACCOUNT.search(QUOTED.sub(" ", words)) and not _PASSES.search(words):
        return True
    return status not in THROTTLED_STATUS and not _PASSES.search(words) and bool(_QUOTA.search(words))


MESSAGE_LIMIT: Final = 300
"""Characters of a server's error text that are shown; the rest helps nobody."""

EXCERPT_LIMIT: Final = 200
"""Characters that are shown of what is no answer."""

_IN_PLACE: Final = "an error in place of an answer"
_LOOKED_AT: Final = 64 * 1024
_CLIENT_ERROR: Final = 400
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def read_error(content: bytes, secrets: tuple[str, ...], content_type: str = "") -> Complaint:
    """What the body of an error response says, in any form."""
    text = masked(text_of(content, content_type), secrets)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    complaint = complaint_in(document) or Complaint("")
    return complaint if complaint.message else replace(complaint, message=text)


def refusal(
    status: int,
    complaint: Complaint,
    *,
    request: ChatRequest,
    manner: Manner,
    reason: str = "",
    advice: Advice = NO_ADVICE,
) -> AttemptError:
    """The error of a response that is none of what was asked for.

    Args:
        status: Its HTTP status, or the one that an error object in it stands for.
        complaint: What it says.
        request: What was asked.
        manner: How.
        reason: The reason phrase, shown when it says nothing else.
        advice: What its headers say about limits.
    """
    verdict, refused = verdict_of(status, complaint, manner, body_of(request, manner))
    secrets = manner.secrets
    message = f"HTTP {status}: {one_line(complaint.message, secrets) or one_line(reason, secrets)}"
    if verdict is Verdict.FATAL:
        message = f"{request.model} at {request.endpoint}: {message}; {what_to_do(status, complaint)}"
    elif status in _REDIRECTS:
        message += "; redirects are not followed: correct base_url"
    return AttemptError(
        "rate_limited" if status in THROTTLED_STATUS else f"http_{status}",
        message,
        verdict=verdict,
        status=status,
        advice=advice,
        refused=refused,
        about_content=verdict is Verdict.GIVE_UP and is_about_content(complaint),
        crowded=verdict is Verdict.THROTTLED and is_crowded(complaint),
    )


def check(document: dict[str, Any], *, request: ChatRequest, manner: Manner, advice: Advice) -> None:
    """Nothing, for a document that reports no error in place of an answer.

    Raises:
        AttemptError: It does; its own code decides what is to be done.
    """
    complaint = error_within(document)
    if complaint is None:
        return
    status = complaint.meant_status
    if status is None or status < _CLIENT_ERROR:
        said = one_line(complaint.message, manner.secrets)
        raise AttemptError("malformed_response", f"{_IN_PLACE}: {said}", advice=advice, reported=True)
    raise refusal(status, complaint, request=request, manner=manner, advice=advice)


def with_excerpt(error: AttemptError, content: bytes | bytearray, secrets: tuple[str, ...]) -> AttemptError:
    """The error of a body that is no answer, with the beginning of that body, where it has no words yet.

    Args:
        error: What reading the body raised.
        content: The body.
        secrets: What must not be shown of it.
    """
    if error.cause != "malformed_response" or str(error).startswith(_IN_PLACE):
        return error
    # Masked before it is cut, so that no part of a secret is left.
    text = masked(text_of(content[:_LOOKED_AT]), secrets)
    said = printable_line(text, EXCERPT_LIMIT)
    return AttemptError(error.cause, f"{error}: {said}", advice=error.advice) if said else error


def one_line(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text on one line, without control characters and secrets, cut to what helps somebody."""
    return printable_line(masked(text, secrets), MESSAGE_LIMIT)

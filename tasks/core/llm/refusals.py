"""The errors that come of what a server says, in words that may be shown: on one line, without secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tasks.core.llm.advice import NO_ADVICE
from tasks.core.llm.retry import AttemptError, Verdict
from tasks.core.llm.verdicts import (
    THROTTLED_STATUS,
    Complaint,
    complaint_in,
    error_within,
    is_about_content,
    is_crowded,
    verdict_of,
    what_to_do,
)
from tasks.core.llm.wire import body_of
from tasks.core.printable import printable_line

if TYPE_CHECKING:
    from tasks.core.llm.advice import Advice
    from tasks.core.llm.http import Manner
    from tasks.core.llm.types import ChatRequest

MESSAGE_LIMIT: Final = 300
"""Characters of a server's error text that are shown; the rest helps nobody."""

EXCERPT_LIMIT: Final = 200
"""Characters that are shown of what is no answer."""

_IN_PLACE: Final = "an error in place of an answer"
_LOOKED_AT: Final = 64 * 1024
_CLIENT_ERROR: Final = 400
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def read_error(content: bytes, secrets: tuple[str, ...]) -> Complaint:
    """What the body of an error response says, in any form."""
    text = masked(content.decode("utf-8", "replace"), secrets)
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
    text = masked(bytes(content[:_LOOKED_AT]).decode("utf-8", "replace"), secrets)
    said = printable_line(text, EXCERPT_LIMIT)
    return AttemptError(error.cause, f"{error}: {said}", advice=error.advice) if said else error


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """The text without the secrets: some servers repeat the key that they do not accept."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def one_line(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text on one line, without control characters and secrets, cut to what helps somebody."""
    return printable_line(masked(text, secrets), MESSAGE_LIMIT)

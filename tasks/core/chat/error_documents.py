"""The error inside a document, however deep its senders have wrapped it: its words, codes and places.

Servers of models are asked through others, and each wraps what it heard in a form of its own: an `error`
object, FastAPI's `detail`, a list of violations, a string that holds the JSON of the next document.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from tasks.core.exchange.attempt import RATE_LIMITED

_DEEPEST: Final = 6
_MOST: Final = 32
"""Messages, codes and places that are read of one error, each."""

_MESSAGES: Final = ("message", "Message", "detail", "msg", "title", "description", "reason")
_CODES: Final = ("code", "type", "__type", "status")
_PLACES: Final = ("param", "field", "loc")
_INSIDE: Final = ("error", "detail", "message", "details", "errors", "fieldViolations", "metadata", "raw")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What stands in an error.

    Attributes:
        message: Its words, those of its wrappings first; "" when it has none.
        codes: Its codes and types, as they are written.
        places: The parts of the request that it points to, in lower case, e.g. `body.top_k`.
    """

    message: str
    codes: tuple[str, ...]
    places: tuple[str, ...]


def unwrapped(document: Any) -> Wrapped:
    """What stands in an error document; no value in it is too odd to be read."""
    found = _Found()
    found.read(document, 0)
    return Wrapped(": ".join(found.messages), tuple(found.codes), tuple(found.places))


class _Found:
    """What was found so far, each once, in its order."""

    def __init__(self) -> None:
        self.messages: dict[str, None] = {}
        self.codes: dict[str, None] = {}
        self.places: dict[str, None] = {}

    def read(self, value: Any, depth: int) -> None:
        """Read a value, and what is inside it."""
        if depth > _DEEPEST:
            return
        if isinstance(value, list):
            for each in value[:_MOST]:
                self.read(each, depth + 1)
        elif isinstance(value, dict):
            self._read_object(value, depth)
        elif isinstance(value, str) and value:
            if (inner := _document(value)) is not None:
                self.read(inner, depth + 1)
            else:
                _put(self.messages, value)

    def _read_object(self, value: dict[str, Any], depth: int) -> None:
        place = next((text for key in _PLACES if (text := _place(value.get(key)))), "")
        if place:
            _put(self.places, place)
        for key in _CODES:
            if isinstance(value.get(key), str) and value[key]:
                _put(self.codes, value[key])
        error = value.get("error")
        if isinstance(error, str):
            self.read(error, depth + 1)
        text = next((value[key] for key in _MESSAGES if isinstance(value.get(key), str) and value[key]), "")
        if text:
            # FastAPI's messages say only "Extra inputs": the place tells the reader which.
            named = place.rpartition(".")[2] if "loc" in value or "field" in value else ""
            self.read(f"{named}: {text}" if named and _document(text) is None else text, depth + 1)
        for key in _INSIDE:
            inner = value.get(key)
            if isinstance(inner, dict | list) or (key == "raw" and isinstance(inner, str)):
                self.read(inner, depth + 1)


def _put(found: dict[str, None], text: str) -> None:
    if len(found) < _MOST:
        found.setdefault(text)


def _document(text: str) -> Any:
    """The JSON document that a text is; None for other text."""
    text = text.lstrip("\ufeff \t\r\n")
    if text[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _place(value: object) -> str:
    if isinstance(value, list):
        return ".".join(str(part) for part in value[:_MOST] if isinstance(part, str | int)).lower()
    return value.lower() if isinstance(value, str) else ""


RATE_CODES: Final = frozenset({"rate_limit_exceeded", "rate_limit_error", "resource_exhausted"})
# Of error objects in responses with status 200, where the object has no status of its own.
_STATUS_OF: Final = {
    **dict.fromkeys([*RATE_CODES, "insufficient_quota", "too_many_requests"], RATE_LIMITED),
    **dict.fromkeys(["invalid_api_key", "authentication_error", "unauthorized"], 401),
    **dict.fromkeys(["permission_error", "permission_denied"], 403),
    **dict.fromkeys(["model_not_found", "not_found_error", "notfounderror"], 404),
    **dict.fromkeys(["overloaded_error", "overloaded", "unavailable_error"], 503),
    **dict.fromkeys(["invalid_request_error", "badrequesterror", "context_length_exceeded"], 400),
}
_UNNAMED: Final = "an error that the server does not name"


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


def _codes(*values: object) -> frozenset[str]:
    return frozenset(value.lower() for value in values if isinstance(value, str) and value)


def _status(value: object) -> int | None:
    number = str(value) if isinstance(value, int | str) else ""
    return int(number) if re.fullmatch(r"[1-5][0-9]{2}", number) else None

"""The error inside a document, however deep its senders have wrapped it: its words, codes and places.

Servers of models are asked through others, and each wraps what it heard in a form of its own: an `error`
object, FastAPI's `detail`, a list of violations, a string that holds the JSON of the next document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

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
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _place(value: object) -> str:
    if isinstance(value, list):
        return ".".join(str(part) for part in value[:_MOST] if isinstance(part, str | int)).lower()
    return value.lower() if isinstance(value, str) else ""

"""Rules for the settings that hold names of the user's own: fields of a body, headers, variables.

Settings are kept with every session and their requests in the ledger, so a secret may stand in none of
them. The checks raise `ValueError` with a message in plain words that never holds a value.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

PLACEHOLDER: Final = re.compile(r"\$\{([^{}$]*)\}")
"""Where a header's value takes in a variable of the environment: `${NAME}`."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_HEADER: Final = re.compile(r"key|token|password|secret|auth|cookie|credential", re.IGNORECASE)
# Narrower: many parameters of servers have to do with tokens, and with the keys of a dictionary.
_SECRET_FIELD: Final = re.compile(
    r"api_?key|passw(or)?d|secret|authorization|credential|(access|auth|bearer)_?token", re.IGNORECASE
)
# How the keys of providers begin, and what precedes them in a header.
_SECRET_VALUE: Final = re.compile(
    r"(bearer|basic)\s+[\w~+/-]{8}|(?<![a-z])(sk|rk|nvapi|gsk|xai|hf|ghp)[-_]\w{8}", re.IGNORECASE
)
_NO_SECRETS: Final = "must not hold a secret: keys belong in the environment or the env file"

_OUR_HEADERS: Final = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length"),
        *("content-type", "expect", "host", "idempotency-key", "keep-alive", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_OUR_FIELDS: Final = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "n", "response_format"),
        *("tools", "tool_choice", "functions", "function_call"),
    }
)
# Fields that have settings of their own, by those.
_SETTINGS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
}


def check_extra_body(value: dict[str, Any]) -> dict[str, Any]:
    """The value, when it can be sent as JSON beside the fields of our own, and holds no secret.

    Raises:
        ValueError: A field that is ours or has a setting, a date, a number that JSON does not have, or what
            looks like a secret.
    """
    for name in value:
        if name in _SETTINGS:
            raise ValueError(f"must not hold {name}; set {_SETTINGS[name]} instead")
        if name in _OUR_FIELDS:
            raise ValueError(f"must not hold {name}, which is filled in for each request")
    _check_json(value)
    return value


def _check_json(value: object) -> None:
    if isinstance(value, dict):
        if any(_SECRET_FIELD.search(name) for name in value):
            raise ValueError(_NO_SECRETS)
        for inner in value.values():
            _check_json(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner)
    elif isinstance(value, str):
        if _SECRET_VALUE.search(value):
            raise ValueError(_NO_SECRETS)
        check_unicode(value)
    elif isinstance(value, int | float):
        _check_number(value)
    elif value is not None:
        raise ValueError("holds a date or a time, which JSON does not have; write it as text in quotes")


def _check_number(value: float) -> None:
    if not math.isfinite(value):
        raise ValueError("holds nan or inf, which JSON does not have")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("holds a number of more than 64 bits")


def check_unicode(value: str) -> None:
    """Refuse what cannot be sent as UTF-8.

    Raises:
        ValueError: It holds half of a surrogate pair.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        # The error holds the value.
        raise ValueError("must be text in UTF-8") from None


def check_stop(value: list[str]) -> list[str]:
    """The value, when each of its texts can end an answer.

    Raises:
        ValueError: One is empty, or is no text in UTF-8.
    """
    for text in value:
        check_unicode(text)
    if not all(value):
        raise ValueError("must not hold an empty text")
    return value


def check_variable(value: str) -> str:
    """The value, when it is empty or the name of a variable.

    Raises:
        ValueError: It is something else, which may well be the key itself.
    """
    if (value and not _VARIABLE.fullmatch(value)) or _SECRET_VALUE.match(value):
        raise ValueError("must be the name of a variable of the environment, and not a key itself")
    return value


def check_headers(value: dict[str, str]) -> dict[str, str]:
    """The value, when its headers can be sent beside those of our own, and hold no secret.

    Raises:
        ValueError: A name that is none, is ours, or stands twice; a value that no header can carry, or that
            is a secret itself rather than `${NAME}`.
    """
    known: set[str] = set()
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("holds a name that no header can have; allowed: letters, digits and -")
        if name.lower() in _OUR_HEADERS:
            hint = "; name the key with api_key_env" if name.lower() == "authorization" else ""
            raise ValueError(f"must not hold {name}, which is sent for each request anyway{hint}")
        if name.lower() in known:
            raise ValueError(f"holds {name} twice, in small and capital letters")
        known.add(name.lower())
        _check_header(name, text)
    return value


def _check_header(name: str, text: str) -> None:
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"holds a line break, or another character that no header has, in {name}")
    variables = PLACEHOLDER.findall(text)
    if text.count("${") != len(variables) or not all(map(_VARIABLE.fullmatch, variables)):
        raise ValueError(f"holds ${{…}} around what is no name of a variable in {name}")
    if _SECRET_VALUE.search(text) or (_SECRET_HEADER.search(name) and not variables):
        raise ValueError(f"must not hold a secret in {name}: write ${{NAME}} and set NAME in the environment")

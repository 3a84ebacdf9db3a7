"""Rules for single values, and for the settings that hold names of the user's own.

The checks raise `ValueError` with a message in plain words that never holds the value itself, which may
carry a password. Settings are kept with every session and their requests in the ledger, so a secret may
stand in none of them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, Field, SerializeAsAny, WithJsonSchema, WrapValidator

if TYPE_CHECKING:
    from collections.abc import Callable


UNSET: Final = "unset"
"""In place of a number: the parameter is not sent, and is no part of a request's key."""

PROVIDER_HOSTS: Final = {
    "openai.com": "openai",
    "nvidia.com": "nvidia",
    "anthropic.com": "anthropic",
    "together.xyz": "together",
    "together.ai": "together",
    "llm.chutes.ai": "chutes",
    "ai.nahcrof.com": "nahcrof",
}
PROVIDERS: Final = tuple(dict.fromkeys(PROVIDER_HOSTS.values()))

MOST: Final = 2**31 - 1
"""No whole number may be larger: beyond it lie typing errors and what other programs cannot read."""
MOST_SHARDS: Final = 256
MOST_CANDIDATES: Final = 64
MAX_TOPIC_CHARACTERS: Final = 500
MAX_TEMPLATE_BYTES: Final = 50 * 1024

_HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9]*")
_LICENSE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
POSTGRES: Final = "postgresql+asyncpg"
_Format = TypeVar("_Format", bound=str)


@dataclass(frozen=True, slots=True)
class Limit:
    """The highest value of a setting unless `generation.disable_validation_limits` lifts it, up to `MOST`."""

    maximum: int


def provider_of(base_url: str) -> str:
    """The provider behind an endpoint, found in its host alone.

    Args:
        base_url: A valid base URL.

    Returns:
        One of `PROVIDERS`; for any other host the base URL itself, normalised and without a slash at its
        end, so that two spellings of one endpoint are one provider.
    """
    # Twice, because httpx drops a default port only behind a scheme in lower case.
    url = httpx.URL(str(httpx.URL(base_url)))
    host = url.host.rstrip(".")
    for domain, provider in PROVIDER_HOSTS.items():
        if host == domain or host.endswith(f".{domain}"):
            return provider
    return str(url).rstrip("/")


def check_base_url(value: str) -> str:
    """The value, when it is the http(s) address of an endpoint and nothing else.

    Raises:
        ValueError: No scheme, another scheme, no valid host or port, user info, a query or a fragment.
    """
    if not re.match(r"https?://", value, re.IGNORECASE):
        raise ValueError("must start with http:// or https://")
    if "?" in value or "#" in value:
        raise ValueError("must have neither a query (?) nor a fragment (#)")
    try:
        url = httpx.URL(value)
        # Read here, because an international name is decoded only then.
        is_address = ":" in url.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError("is not a valid URL; allowed: http or https, a host, a port, a path") from error
    if url.userinfo:
        raise ValueError(
            "must not hold a user name or password: keys belong in the environment or the env file"
        )
    if not is_address and not _HOST_NAME.fullmatch(url.raw_host.decode("ascii")):
        raise ValueError("has no valid host; allowed: http://host:port/path")
    if url.port is not None and not 0 < url.port < 2**16:
        raise ValueError("has no valid port; allowed: 1 to 65535")
    return value


def check_provider_name(value: str) -> str:
    """The provider that a name in `provider_rate_limits` stands for, as `provider_of` gives it.

    Raises:
        ValueError: The name is neither a known provider nor a valid base URL.
    """
    if "://" in value:
        return provider_of(check_base_url(value))
    if value not in PROVIDERS:
        nearest = get_close_matches(value.lower(), PROVIDERS, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"unknown provider; {hint}allowed: {', '.join(PROVIDERS)}, or a model's base_url")
    return value


def check_ledger_url(value: str) -> str:
    """The value, when it is empty or names a database that can hold the ledger.

    Raises:
        ValueError: Another scheme, no file or database named, a query behind a file, or a password.
    """
    if not value:
        return value
    allowed = f'allowed: "" for the output folder, sqlite:///path or {POSTGRES}://user@host/database'
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise ValueError(f"is not a valid URL; {allowed}") from error
    if parts.scheme not in {"sqlite", POSTGRES}:
        raise ValueError(f"has a scheme that cannot be used; {allowed}")
    if parts.scheme == "sqlite" and (parts.netloc or parts.path in {"", "/", "/:memory:"}):
        raise ValueError(f"names no database file; {allowed}")
    if parts.scheme == "sqlite" and "?" in value:
        # Whatever follows would be no part of the file's name, and its absence would not be noticed.
        raise ValueError(f"has a ?, where a query begins; choose another file; {allowed}")
    if parts.scheme == POSTGRES and parts.path in {"", "/"}:
        raise ValueError(f"names no database; {allowed}")
    if parts.password is not None or "password" in parts.query.lower():
        # Settings are kept with every session; a password must not be.
        raise ValueError("holds a password; leave it out, and set PGPASSWORD or use ~/.pgpass")
    return value


def check_mirror_url(value: str) -> str:
    """The value, when it is empty or names a place that copies can go to.

    Raises:
        ValueError: No scheme or place, a chain of file systems, a query, or a password.
    """
    if not value:
        return value
    allowed = 'allowed: "" for none, or the address of a folder as s3://bucket/prefix, gs://… or file:///path'
    try:
        parts = urlsplit(value)
        has_place = bool(parts.netloc or parts.path.strip("/"))
    except ValueError as error:
        raise ValueError(f"is not a valid URL; {allowed}") from error
    if "::" in value or "://" not in value or not _SCHEME.fullmatch(parts.scheme) or not has_place:
        raise ValueError(f"names no place for copies; {allowed}")
    if "?" in value or "#" in value:
        raise ValueError("must have neither a query (?) nor a fragment (#)")
    if parts.password is not None:
        raise ValueError("holds a password; leave it out: the store's own environment variables are read")
    return value


def check_license(value: str) -> str:
    """The value, when it is empty or looks like one of the Hub's names of licences.

    Raises:
        ValueError: It does not; whether there is such a licence, the Hub says.
    """
    if value and not _LICENSE.fullmatch(value):
        raise ValueError(
            'allowed: "" for none, or a name of https://hf.co/docs/hub/repositories-licenses, e.g. cc-by-4.0'
        )
    return value


def check_each_once(value: list[_Format]) -> list[_Format]:
    """The value, when nothing stands in it twice.

    Raises:
        ValueError: Something does.
    """
    if len(set(value)) < len(value):
        raise ValueError("names something twice; keep one")
    return value


def check_some(value: list[_Format]) -> list[_Format]:
    """The value, when there is anything in it.

    Raises:
        ValueError: It is empty.
    """
    if not value:
        raise ValueError("is empty; at least one is needed")
    return value


def check_words(value: list[int]) -> list[int]:
    """The value, when it is empty, or the fewest and the most.

    Raises:
        ValueError: It is not.
    """
    if value and (len(value) != 2 or value[0] > value[1]):  # noqa: PLR2004 - fewest and most
        raise ValueError("must be two numbers, the smaller one first, as [150, 300]; or [] for any length")
    return value


SECTION: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""A name of a section under [models]."""


def check_section(value: str) -> str:
    """The value, when it can be the name of a section under [models], or is empty.

    Raises:
        ValueError: It cannot.
    """
    if value and not SECTION.fullmatch(value):
        raise ValueError("is no section of [models]; allowed: small letters, digits and _, a letter first")
    return value


def check_answering(value: list[str]) -> list[str]:
    """The value in order, when main is among it, and each can be a section under [models].

    Raises:
        ValueError: It is not, or one cannot.
    """
    if "main" not in value:
        raise ValueError('must hold "main"')
    return sorted(check_sections(value))


def check_sections(value: list[str]) -> list[str]:
    """The value, when each can be the name of a section under [models].

    Raises:
        ValueError: One cannot.
    """
    return [check_section(name) for name in value]


def check_ratio(value: float) -> float:
    """The value, when it is 0, or a ratio of the longer to the shorter.

    Raises:
        ValueError: It is neither.
    """
    if 0 < value < 1:
        raise ValueError("allowed: 0, or 1 and more")
    return value


OF_ROWS: Final = frozenset(
    {
        *("main_topic", "sub_topic", "prompt", "chosen", "rejected", "completion", "label", "history"),
        *(
            "candidates",
            "input",
            "conversations",
            "messages",
            "instruction",
            "output",
            "chosen_scores",
            "rejected_scores",
        ),
        *("chosen_score_total", "rejected_score_total", "preference_margin"),
    }
)
"""Names of columns that the rows of a dataset have of themselves."""


def check_no_blank(value: list[str]) -> list[str]:
    """The value, when none of its texts is blank.

    Raises:
        ValueError: One is.
    """
    if not all(text.strip() for text in value):
        raise ValueError("must not hold a blank text")
    return value


def check_kept(value: list[str]) -> list[str]:
    """The value, when each of its names can be that of a further column.

    Raises:
        ValueError: One is empty, or a column of the rows already.
    """
    if not all(value):
        raise ValueError("must not hold an empty name")
    if taken := sorted(OF_ROWS.intersection(value)):
        raise ValueError(f"names what rows have of themselves ({', '.join(taken)}); rename it in the file")
    return value


def check_sha256(value: str) -> str:
    """The value, when it is empty or a digest in hexadecimal.

    Raises:
        ValueError: It is neither.
    """
    if not re.fullmatch(r"(?:[0-9a-f]{64})?", value):
        raise ValueError("must be 64 digits, 0 to 9 and a to f, as sha256sum prints them")
    return value


def check_formats(value: list[_Format]) -> list[_Format]:
    """The value, when it names each format once, and the session's own rows among them.

    Raises:
        ValueError: It does not.
    """
    if len(set(value)) < len(value) or "native" not in value:
        raise ValueError('allowed: ["native"] or ["native", "trl"]; a session always holds its own rows')
    return value


def check_line(value: str) -> str:
    """The value, when it holds no control characters (line breaks and tabs are such too).

    Raises:
        ValueError: It holds one.
    """
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError("must be one line of text without control characters")
    return value


def check_topic(value: str) -> str:
    """The value as it is, when 1 to 500 characters of it remain without the blanks around it.

    The blanks stay: VellumForge2 takes its configuration hash over the topic as written.

    Raises:
        ValueError: It is blank, or longer.
    """
    if not 1 <= len(value.strip()) <= MAX_TOPIC_CHARACTERS:
        raise ValueError(f"allowed: 1 to {MAX_TOPIC_CHARACTERS} characters")
    return value


def check_template_size(value: str) -> str:
    """The value, when it has no more than 50 KB as UTF-8.

    Raises:
        ValueError: It has more.
    """
    if len(value.encode()) > MAX_TEMPLATE_BYTES:
        raise ValueError(f"allowed: at most {MAX_TEMPLATE_BYTES} bytes (50 KB)")
    return value


def _or_unset(value: object, check: Callable[[object], float | None]) -> object:
    return value if value == UNSET else check(value)


def _number_or_unset(most: int, *, absent: bool = False) -> tuple[object, ...]:
    """What makes a number a setting that may be sent not at all; its errors stay those of a number."""
    number = {"type": "number", "minimum": 0, "maximum": most}
    options = [number, {"type": "string", "const": UNSET}, *([{"type": "null"}] if absent else [])]
    return (
        Field(ge=0, le=most),
        WrapValidator(_or_unset),
        SerializeAsAny(),  # type: ignore[type-arg]  # an annotation is made of it, and no type
        WithJsonSchema({"anyOf": options}),
    )


if TYPE_CHECKING:
    Temperature = float | Literal["unset"]
    OwnTemperature = float | Literal["unset"] | None
    Nucleus = float | Literal["unset"]
else:
    # Not a union of types, whose errors would name each of them.
    Temperature = Annotated[float, *_number_or_unset(2)]
    OwnTemperature = Annotated[float | None, *_number_or_unset(2, absent=True)]
    Nucleus = Annotated[float, *_number_or_unset(1)]
Size = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Average = Annotated[float, Field(ge=1, le=5)]
Candidates = Annotated[float, Field(ge=1, le=1000)]
Likeness = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0), AfterValidator(check_ratio)]
Dollars = Annotated[float, Field(ge=0)]
Line = Annotated[str, AfterValidator(check_line)]
Template = Annotated[str, AfterValidator(check_template_size)]
ProviderName = Annotated[str, AfterValidator(check_provider_name)]

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


DEEPEST: Final = 64
"""Tables and lists in each other: what writes JSON gives up at 254, and nobody reads a tenth of that."""


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


def _check_json(value: object, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise ValueError(f"is nested too deeply; allowed: {DEEPEST} tables and lists in each other")
    if isinstance(value, dict) and any(_SECRET_FIELD.search(name) for name in value):
        raise ValueError(_NO_SECRETS)
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_json(inner, depth + 1)
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


"""What the built-in rubric scores, in its order."""

"""Rules for a single value: URLs, providers, lines of text, sizes.

The checks raise `ValueError` with a message in plain words that never holds the value itself, which may
carry a password.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar
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
        ValueError: Another scheme, no file or database named, or a password.
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
        SerializeAsAny(),  # type: ignore[type-arg]  # the mark itself
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
Dollars = Annotated[float, Field(ge=0)]
Line = Annotated[str, AfterValidator(check_line)]
Template = Annotated[str, AfterValidator(check_template_size)]
ProviderName = Annotated[str, AfterValidator(check_provider_name)]

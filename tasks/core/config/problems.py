"""How a wrong configuration reads: the key, its value where that is safe to show, and what is allowed."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo

from tasks.core.config.settings import Section, as_known, setting, settings
from tasks.core.config.values import MOST, Limit
from tasks.core.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails

LONGEST_VALUE: Final = 60

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_NAME: Final = re.compile(r"key|token|password|secret", re.IGNORECASE)
_URL_NAME: Final = re.compile(r"(^|\.)(base_url|ledger)$")
# A scheme, a host, a port and a path, with no place where a password or a key could hide.
_HARMLESS_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*:/*)?[\w.-]*(:\d{1,5})?(/[\w./-]*)?", re.IGNORECASE)

_WRONG_TYPES: Final = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "string_unicode": "must be text in UTF-8",
    "dict_type": "must be a table of names and values",
    "list_type": 'must be a list, as ["…", "…"]',
    "model_type": "must be a section, with settings of its own",
}


def dotted(parts: Sequence[str | int]) -> str:
    """The parts as one key; a part that is no plain name is quoted, cut, and hidden when it holds an `@`."""
    return ".".join(str(part) if _PLAIN_NAME.fullmatch(str(part)) else _quoted(str(part)) for part in parts)


def shown(key: str, value: object) -> str:
    """The value for an error message.

    Args:
        key: Dotted key of the setting.
        value: Anything that a file, the environment or the command line may hold.

    Returns:
        At most `LONGEST_VALUE` printable characters; "" when the value could hold a password or a key.
    """
    if isinstance(value, str):
        return "" if _may_hold_secret(key, value) else _cut(repr(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return _cut(str(value))


def with_value(key: str, value: object, message: str) -> Problem:
    """A problem whose message starts with the value, when that can be shown."""
    text = shown(key, value)
    return Problem(key, f"is {text}; {message}" if text else message)


def from_errors(errors: Iterable[ErrorDetails]) -> tuple[Problem, ...]:
    """What the validation of `Config` found, in the order it was found."""
    return tuple(_from_error(error) for error in errors)


def allowed_range(key: str, *, full: bool = True) -> str:
    """What a number may be, e.g. "allowed: 1 to 50".

    Args:
        key: Dotted key of a numeric setting, or of an entry of `provider_rate_limits`.
        full: Whether to name an upper bound that is there for typing errors only.
    """
    bounds = _bounds(key)
    lifted = ""
    if Gt in bounds:
        upper = f", up to {bounds[Le].le:g}" if Le in bounds else ""
        return f"allowed: more than {bounds[Gt].gt}{upper}"
    least = bounds[Ge].ge
    if Limit in bounds:
        most = bounds[Limit].maximum
        lifted = f", or up to {MOST} with generation.disable_validation_limits = true"
    elif Le in bounds and (full or bounds[Le].le != MOST):
        most = bounds[Le].le
    else:
        return f"allowed: {least} or more"
    return f"allowed: {least} to {most}{lifted}"


def unknown_key(section: str, name: str) -> Problem:
    """The problem of a key that does not exist, with the nearest that does.

    Args:
        section: Dotted key of the section that it stands in; "" for the top level.
        name: The unknown name.
    """
    prefix = f"{section}." if section else ""
    key = prefix + dotted([name])
    nearest = _nearest(prefix, name)
    hint = f"did you mean {nearest}?" if nearest else f"known here: {', '.join(_names_in(prefix))}"
    if _SECRET_NAME.search(name) and (not nearest or "api_key" in nearest):
        hint = "secrets belong in the environment or the env file"
    return Problem(key, f"unknown key; {hint}")


def nearest_setting(key: str) -> str:
    """The known setting nearest to a dotted key that is none; "" when nothing is near."""
    section, _, name = key.rpartition(".")
    return _nearest(f"{section}." if section else "", name) or _first(
        get_close_matches(key, settings(), n=1, cutoff=0.7)
    )


def _from_error(error: ErrorDetails) -> Problem:
    key = dotted(error["loc"])
    kind = error["type"]
    context: dict[str, Any] = error.get("ctx", {})
    if error["loc"][-1] == "[key]":
        return Problem(dotted(error["loc"][:-1]), str(context["error"]))
    if kind == "extra_forbidden":
        *section, name = error["loc"]
        return unknown_key(dotted(section), str(name))
    if kind == "missing":
        return Problem(key, _missing(key))
    if kind == "value_error":
        message = str(context["error"])
    elif kind == "literal_error":
        message = f"allowed: {', '.join(get_args(_field(key).annotation))}"
    elif kind in {"greater_than", "greater_than_equal", "less_than_equal"}:
        message = allowed_range(key, full=kind == "less_than_equal")
    elif kind in {"string_too_long", "string_too_short"}:
        message = _allowed_length(key)
    else:
        message = _WRONG_TYPES[kind]
    return with_value(key, error["input"], message)


def _allowed_length(key: str) -> str:
    bounds = _bounds(key)
    least = bounds[MinLen].min_length
    return (
        f"allowed: {least} to {bounds[MaxLen].max_length} characters"
        if MaxLen in bounds
        else "must not be empty"
    )


def _missing(key: str) -> str:
    inside = {name: setting(f"{key}.{name}") for name in _names_in(f"{key}.")}
    required = [name for name, field in inside.items() if field is not None and field.is_required()]
    return f"is missing; it needs {' and '.join(required)}" if required else "is missing; it must be set"


def _field(key: str) -> FieldInfo:
    known = setting(key)
    if known is not None:
        return known
    inside = _values_around(key)
    if isinstance(inside, type) and issubclass(inside, Section):
        return inside.model_fields[key.rpartition(".")[2]]
    return FieldInfo.from_annotation(inside)


def _bounds(key: str) -> dict[type, Any]:
    """What bounds a setting, by kind; of one that may be unset, those of the values that it may have."""
    field = _field(key)
    found = list(field.metadata)
    if not found:
        of_values = (FieldInfo.from_annotation(each) for each in get_args(field.annotation))
        found = [item for each in of_values for item in each.metadata]
    return {type(item): item for item in found}


def _values_around(key: str) -> Any:
    """The type of the values of the table or list that a key lies in; None when it lies in none."""
    for name, field in settings().items():
        if key.startswith(f"{name}.") and get_origin(field.annotation) in {dict, list}:
            return get_args(field.annotation)[-1]
    return None


def _names_in(prefix: str) -> list[str]:
    known = as_known(prefix)
    inside = (key.removeprefix(known) for key in settings() if key.startswith(known))
    values = _values_around(prefix)
    if isinstance(values, type) and issubclass(values, Section):
        inside = (name for name in values.model_fields)
    return list(dict.fromkeys(rest.partition(".")[0] for rest in inside))


def _nearest(prefix: str, name: str) -> str:
    here = get_close_matches(name.lower(), _names_in(prefix), n=1, cutoff=0.7)
    if here:
        return prefix + here[0]
    by_name: dict[str, str] = {}
    for key in settings():
        by_name.setdefault(key.rpartition(".")[2], key)
    return by_name.get(_first(get_close_matches(name.lower(), by_name, n=1, cutoff=0.8)), "")


def _first(found: list[str]) -> str:
    return found[0] if found else ""


def _quoted(part: str) -> str:
    return "(hidden)" if "@" in part else _cut(repr(part))


def _may_hold_secret(key: str, value: str) -> bool:
    if "@" in value or _SECRET_NAME.search(key.rpartition(".")[2]):
        return True
    is_url = "://" in value or _URL_NAME.search(key) is not None
    return is_url and not _HARMLESS_URL.fullmatch(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."

"""Settings on the command line: `KEY=VALUE`, read and written."""

from __future__ import annotations

import json
from typing import Any

import tomli

from tasks.core.errors import UsageError


def read_override(item: str) -> tuple[str, Any]:
    """A `KEY=VALUE` as key and value: the value as TOML, and where it is none, as text.

    Raises:
        UsageError: There is no `=`, or nothing before it.
    """
    key, separator, text = item.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {item}: give a setting as KEY=VALUE, e.g. generation.concurrency=64")
    return key.strip(), _value(text)


def write_override(key: str, value: Any) -> str:
    """The `KEY=VALUE` that means this setting; text stands as it is unless it would be read otherwise."""
    if isinstance(value, str) and _value(value) == value:
        return f"{key}={value}"
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _value(text: str) -> Any:
    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, a number too long, values nested too deeply
        return text
    # A line break in the text may have begun something else.
    return document["value"] if len(document) == 1 else text

"""The items that a JSON value of an answer stands for, and which field of an object is its text.

A model that is asked for a list of strings often answers with objects. One table of field names says which
field is the text. Only an object without any of them is read by the length of its fields.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ASKING: Final = ("prompt", "question", "instruction", "task", "query")
"""Fields that hold what is asked: whatever else an object has, this is its text."""

_NAMING: Final = ("subtopic", "title", "name", "text")

_OTHER: Final = (
    *("topic", "problem", "request", "scenario", "assignment", "exercise", "challenge", "premise", "idea"),
    *("theme", "statement", "input", "content", "description", "summary", "value"),
)

_GROUPS: Final = frozenset(
    {"prompts", "questions", "instructions", "tasks", "queries", "subtopics", "topics", "items", "ideas"}
)
"""Fields of an object that holds a list of items of its own, below a heading."""

_ABOUT: Final = frozenset(
    {
        *("id", "uuid", "index", "number", "key", "url", "link", "source", "type", "kind", "style", "tone"),
        *("difficulty", "level", "category", "genre", "format", "language", "audience", "role", "status"),
        *("tag", "tags", "keyword", "keywords", "label", "labels", "skill", "skills", "option", "options"),
        *("hint", "hints", "note", "notes", "comment", "comments", "reasoning", "explanation", "reason"),
        *("rationale", "justification", "thought", "thoughts", "answer", "answers", "solution", "response"),
    }
)
"""Fields that say something about an item and are not the item."""

_DEEPEST: Final = 2
"""How deep the text of one object may lie in it: `{"prompt": {"text": "…"}}`."""

_BETWEEN: Final = re.compile(r"[\s_.-]+")


def texts_in(value: object) -> Iterator[str]:
    """The items of a JSON value, in its order: a list's elements, or an object's lists, else its text."""
    if isinstance(value, list):
        for element in value:
            yield from _of_element(element)
    elif isinstance(value, dict):
        yield from _inside(value) or _numbered(value) or _of_keys(value, (*_ASKING, *_NAMING))


_NUMBERED: Final = re.compile(r"[a-z\s_.-]{0,40}[0-9]{1,4}")


def _numbered(fields: Mapping[str, object]) -> tuple[str, ...]:
    """The items of an object whose fields are numbered: `{"1": …, "2": …}`, `{"prompt_1": …}`.

    With `json_object` a model must answer with an object, and this is how many write a list then.
    """
    texts = tuple(field for field in fields.values() if isinstance(field, str))
    numbered = all(_NUMBERED.fullmatch(str(key).strip().casefold()) for key in fields)
    return texts if numbered and len(texts) == len(fields) else ()


def _of_element(element: object) -> Iterable[str]:
    """The items that one element of a list stands for: itself, its text, or the lists in it."""
    if isinstance(element, str):
        return (element,)
    if isinstance(element, int | float) and not isinstance(element, bool):
        return (str(element),)
    return _of_object(element) if isinstance(element, dict) else texts_in(element)


def _of_object(fields: Mapping[str, object]) -> tuple[str, ...]:
    """The text of an object in a list, or the items of the lists in it."""
    if found := _of_keys(fields, _ASKING):
        return found
    rest = fields
    if not any(isinstance(fields.get(key), str) for key in ("title", "name", "text")):
        groups = {key: field for key, field in fields.items() if _word(key) in _GROUPS}
        if found := _inside(groups):
            return found
        # Each part is looked into once: twice at every depth would take exponential time.
        rest = {key: field for key, field in fields.items() if key not in groups}
    return (
        _of_keys(fields, (*_NAMING, *_OTHER))
        or _longest(field for key, field in fields.items() if _word(key) not in _ABOUT)
        or _inside(rest)
        or _longest(fields.values())
    )


def _inside(fields: Mapping[str, object]) -> tuple[str, ...]:
    """The items of the lists and objects in an object; those that only say something about it come last."""
    nested = {key: field for key, field in fields.items() if isinstance(field, list | dict)}
    own = {key: field for key, field in nested.items() if _word(key) not in _ABOUT}
    found = tuple(text for field in own.values() for text in texts_in(field))
    if found or len(own) == len(nested) or any(isinstance(fields.get(key), str) for key in _ASKING):
        return found
    return tuple(text for key, field in nested.items() if key not in own for text in texts_in(field))


def _of_keys(fields: Mapping[str, object], keys: tuple[str, ...], depth: int = 1) -> tuple[str, ...]:
    """The text of the first of these fields that has one; by their names, then by other spellings."""
    return _first(fields, keys, depth) or _first(
        {_word(key): field for key, field in reversed([*fields.items()])}, keys, depth
    )


def _first(fields: Mapping[str, object], keys: tuple[str, ...], depth: int) -> tuple[str, ...]:
    for key in keys:
        field = fields.get(key)
        if isinstance(field, str):
            return (field,)
        if isinstance(field, dict) and depth < _DEEPEST:
            inner = _of_keys(field, (*_ASKING, *_NAMING, *_OTHER), depth + 1)
            if inner := inner or _longest(field.values()):
                return inner
    return ()


def _word(key: str) -> str:
    """A field's name as the tables have it: `Sub-Topic` is `subtopic`, `writing_prompt` is `prompt`."""
    words = _BETWEEN.split(key.strip().casefold())
    if len(words) > 1 and words[-1] == "text":
        words.pop()
    return words[-1] if words[-1] in _ASKING else "".join(words)


def _longest(fields: Iterable[object]) -> tuple[str, ...]:
    """The longest of these that is a text; the first of those that are equally long."""
    texts = [field for field in fields if isinstance(field, str)]
    return (max(texts, key=len),) if texts else ()

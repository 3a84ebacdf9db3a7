"""The shape of an answer as a server is told it: the `response_format` of a request, in each strength."""

from __future__ import annotations

from typing import Any, Final, Literal

Structure = Literal["json_schema", "plain_schema", "json_object", "off"]
"""How a shape is asked for, the strictest first: with its bounds, without them, as any JSON, not at all."""

ITEMS: Final = "items"
SCORES: Final = "scores"

LOWEST: Final = 1
HIGHEST: Final = 5
"""The scale of a rubric."""

_ANY_SCORE: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "properties": {"score": {"type": "number"}, "reasoning": {"type": "string"}},
            "required": ["score"],
        },
    ]
}


def response_format(
    structure: Structure,
    schema: str,
    *,
    least: int = 0,
    criteria: tuple[str, ...] = (),
    explain: bool = False,
) -> dict[str, Any] | None:
    """The request's `response_format`, or None when it has none.

    Args:
        structure: How the shape is asked for.
        schema: The shape, `items` or `scores`; "" for prose.
        least: Of a list: how many items are asked for.
        criteria: Of scores: their names; () where a rubric does not tell them.
        explain: Of scores: whether each comes with its reasoning.
    """
    if structure == "off" or not schema:
        return None
    bounded = structure == "json_schema"
    if structure == "json_object" or schema not in {ITEMS, SCORES}:
        return {"type": "json_object"}
    if schema == ITEMS:
        described, strict = _items(least if bounded else 0), True
    else:
        described, strict = _scores(criteria, explain=explain, bounded=bounded), bool(criteria)
    return {"type": "json_schema", "json_schema": {"name": schema, "strict": strict, "schema": described}}


def _items(least: int) -> dict[str, Any]:
    items: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    if least:
        items["minItems"] = least
    return _object({"items": items})


def _scores(criteria: tuple[str, ...], *, explain: bool, bounded: bool) -> dict[str, Any]:
    if not criteria:
        return {"type": "object", "additionalProperties": _ANY_SCORE}
    # A whole number: llama.cpp keeps to the bounds of those alone.
    score: dict[str, Any] = {"type": "integer"}
    if bounded:
        score |= {"minimum": LOWEST, "maximum": HIGHEST}
    each = _object({"score": score, "reasoning": {"type": "string"}}) if explain else score
    return _object(dict.fromkeys(criteria, each))


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    # OpenAI's strict mode wants an object at the root, and every property of it named and required.
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

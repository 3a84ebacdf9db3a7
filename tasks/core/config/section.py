"""What every section of the configuration is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pydantic.fields import ComputedFieldInfo, FieldInfo

_CAPITALS: Final = {"http": "HTTP", "json": "JSON", "sft": "SFT", "usd": "USD"}


def _title(name: str, _field: FieldInfo | ComputedFieldInfo) -> str:
    """A setting's name as forms show it, where it has no title of its own."""
    first, *others = (_CAPITALS.get(word, word) for word in name.split("_"))
    return " ".join([first[:1].upper() + first[1:], *others])


def _section_title(section: type[BaseModel]) -> str:
    """The name of a section's class in plain words."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", section.__name__).capitalize()


def _number_fields(schema: dict[str, Any]) -> None:
    # Forms show fields by this number, a switch above what it switches on. The order of names alone may be
    # lost in a server's database.
    fields = schema.get("properties", {})
    for position, name in enumerate(sorted(fields, key=lambda name: name != "enabled")):
        fields[name]["position"] = position


class Section(BaseModel):
    """What all sections share: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        field_title_generator=_title,
        model_title_generator=_section_title,
        json_schema_extra=_number_fields,
    )

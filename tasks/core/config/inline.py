"""The configuration as a parameter: a table in place of the file, which a form shows field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic_core import core_schema

from tasks.core.config.models import Config, default_of, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue


class _Form:
    """Describes `Config` and takes any table: `load_config` says what is wrong in it, all at once."""

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        tables = core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        return core_schema.union_schema([core_schema.is_instance_schema(Config), tables])

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(Config.__pydantic_core_schema__)


Inline = Annotated[Config | dict[str, Any], _Form()]
"""A configuration that was checked before, or a table of its sections that is to be checked like a file."""


def without_defaults(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The table without settings that are as they would be if they were left out.

    A form sends all its fields. What nobody chose must not count as chosen: not for warnings about settings
    without effect, and not when a session is resumed.

    Args:
        table: A configuration as nested tables, or a section of one.
        prefix: The dotted key of the section, with a dot at its end; "" for the whole.

    Returns:
        A copy. A table that would be empty is copied as it is: a section may have to be there.
    """
    kept = {}
    for name, given in table.items():
        key = f"{prefix}{name}"
        value = given
        if key in settings():
            default = default_of(key)
            if value == default and isinstance(value, bool) == isinstance(default, bool):
                continue
        elif isinstance(value, dict):
            value = without_defaults(value, f"{key}.")
        elif value is None and any(setting.startswith(f"{key}.") for setting in settings()):
            continue
        kept[name] = value
    return kept or dict(table)

"""A configuration, read from its file or given as a table, with what environment and overrides say.

The command line wins over the environment, that over the file, that over the defaults. Everything that is
wrong in any of them is reported at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, get_origin

import tomli
from pydantic import TypeAdapter, ValidationError
from pydantic_core import core_schema
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from tasks.core import files
from tasks.core.config import rules
from tasks.core.config.problems import dotted, from_errors, nearest_setting, with_value
from tasks.core.config.sections import RENAMED
from tasks.core.config.settings import Config, default_of, setting, settings
from tasks.core.config.templates import SIZED
from tasks.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_settings import PydanticBaseSettingsSource


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
        if setting(key) is not None:
            default = default_of(key)
            if value == default and isinstance(value, bool) == isinstance(default, bool):
                continue
        elif isinstance(value, dict):
            value = without_defaults(value, f"{key}.")
        elif value is None and any(setting.startswith(f"{key}.") for setting in settings()):
            continue
        kept[name] = value
    return kept or dict(table)


ENV_PREFIX: Final = "VELLUMFORGE__"
ALLOWED_VARIABLES: Final = "VELLUMFORGE__SECRETS__ALLOWED"
"""No setting: whoever runs the process says with it what the settings of others may read, see `secrets`."""
LARGEST_FILE: Final = 10 * 1024 * 1024
"""Bytes that a configuration file may have."""

BUILT_IN: Final = "built-in demo"
GIVEN: Final = "settings"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where it came from.

    Attributes:
        config: Valid in itself and between its settings.
        source: The file's path as given, "settings" for a table, or "built-in demo".
        text: The file's text, character for character; "" for a table.
        overridden: Dotted key to value of what the command line or the environment set.
        hints: What was given under an older name, a line each.
    """

    config: Config
    source: str
    text: str
    overridden: Mapping[str, Any]
    hints: tuple[str, ...] = ()


@dataclass(slots=True)
class _Layer:
    """What one source says: nested tables, and for single settings their values and who set them."""

    data: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


class _Merged(BaseSettings):
    """The layers laid over each other, the first on top; unchecked."""

    model_config = SettingsConfigDict(extra="allow")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - names must be mapped to keys first
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - env files hold secrets, not settings
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """One source for each of the layers that the constructor was given."""
        layers = init_settings()["layers"]
        return tuple(InitSettingsSource(settings_cls, init_kwargs=layer) for layer in layers)


def load_config(
    path: Path | None,
    *,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
    text: str | None = None,
    table: Mapping[str, Any] | None = None,
    for_run: bool = True,
) -> Loaded:
    """Bring all sources together and check the outcome.

    Args:
        path: The TOML file; None when `text` is a built-in one, or there is a table.
        overrides: Dotted key to value from the command line; text is converted as from the environment.
        environ: Environment variables, `os.environ` when None. `VELLUMFORGE__GENERATION__CONCURRENCY=64`
            sets `generation.concurrency`; a table is given as JSON and adds to that of the file, a list as
            JSON or TOML.
        text: TOML in place of the file's content.
        table: Settings in place of the file's, as nested tables.
        for_run: Whether it says what a run makes; else it may be silent on topic and counts, which a command
            on sessions does not need, and a run with prompts of one's own is not given.

    Raises:
        ConfigError: The file cannot be read, or anything is wrong with any setting: all of it at once.
    """
    source = str(path) if path is not None else BUILT_IN if table is None else GIVEN
    if text is None:
        text = "" if path is None else read_text(path, LARGEST_FILE)
    layers = [
        _single_settings(_from_overrides(overrides), spelled=str),
        _single_settings(_from_environment(os.environ if environ is None else environ), spelled=_as_variable),
        _Layer(data=_parse_toml(source, text) if table is None else _chosen(source, table)),
    ]
    for layer in layers:
        _move_burst_percent(layer)
        _rename(layer)
    config, found = _validate([layer.data for layer in layers], for_run=for_run)

    lowest_first = layers[::-1]
    origins = {key: origin for layer in lowest_first for key, origin in layer.origins.items()}
    problems = [problem for layer in lowest_first for problem in layer.problems]
    problems += [_with_origin(problem, origins) for problem in found]
    if config is None or problems:
        raise ConfigError(source, tuple(problems))
    overridden = {key: value for layer in lowest_first for key, value in layer.values.items()}
    hints = dict.fromkeys(hint for layer in lowest_first for hint in layer.hints)
    return Loaded(config, source, text, MappingProxyType(overridden), tuple(hints))


def given_settings(
    overrides: Mapping[str, Any], environ: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The settings that are given one by one, by dotted key, unchecked; unknown ones are left out.

    Args:
        overrides: Those of the command line, which win.
        environ: The environment with the others.
    """
    layers = (_from_environment(environ), _from_overrides(overrides))
    found = (_single_settings(layer, spelled=str).values for layer in layers)
    return {key: value for values in found for key, value in values.items()}


def read_text(path: Path, limit: int, *, when_missing: str | None = None) -> str:
    """A file's UTF-8 text, line ends and all.

    Args:
        path: The file.
        limit: Bytes that it may have.
        when_missing: What to return when there is no such file; None makes that an error.

    Raises:
        ConfigError: It does not exist, cannot be read, is too large, or is not UTF-8.
    """
    try:
        content = files.read_stream(path, limit + 1)
    except FileNotFoundError as error:
        if when_missing is not None:
            return when_missing
        raise _unusable(str(path), "does not exist") from error
    except IsADirectoryError as error:
        raise _unusable(str(path), "is a folder; a file is needed") from error
    except OSError as error:
        raise _unusable(str(path), f"cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise _unusable(str(path), f"is too large; allowed: {limit} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # The error holds the whole content, which may be that of an env file.
        raise _unusable(str(path), f"is not UTF-8 text (line {line})") from None


def _unusable(source: str, message: str) -> ConfigError:
    return ConfigError(source, (Problem("", message),))


def _chosen(source: str, table: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return without_defaults(table)
    except RecursionError:
        raise _unusable(source, "is not usable: its values are nested too deeply") from None


def _parse_toml(source: str, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text.removeprefix("\ufeff"))
    except tomli.TOMLDecodeError as error:
        message = f"is not TOML: line {error.lineno}, column {error.colno}: {error.msg}"
        raise _unusable(source, message) from error
    except RecursionError as error:
        raise _unusable(source, "is not usable TOML: its values are nested too deeply") from error
    except ValueError as error:
        # Python itself refuses to read decimal numbers of thousands of digits.
        raise _unusable(source, "is not usable TOML: it holds a number with too many digits") from error


def _from_overrides(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for key, value in overrides.items():
        yield key, value, "set on the command line"


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    for name, value in sorted(environ.items()):
        if name.startswith(ENV_PREFIX) and name != ALLOWED_VARIABLES:
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            yield key, value, f"set by the environment variable {dotted([name])}"


def _as_variable(key: str) -> str:
    return ENV_PREFIX + key.upper().replace(".", "__")


def _single_settings(given: Iterator[tuple[str, Any, str]], *, spelled: Callable[[str], str]) -> _Layer:
    """A layer of settings given one by one, as (dotted key, value, origin)."""
    layer = _Layer()
    for given_key, given_value, origin in given:
        key = RENAMED.get(given_key, given_key)
        if key != given_key:
            layer.hints.append(_hint(given_key))
        if setting(key) is None:
            layer.problems.append(Problem(dotted(key.split(".")), f"{_unknown(key, spelled)} ({origin})"))
            continue
        *sections, name = key.split(".")
        table = layer.data
        for section in sections:
            table = table.setdefault(section, {})
        value = table[name] = layer.values[key] = _converted(key, given_value)
        inner = value if isinstance(value, dict) else ()
        layer.origins |= dict.fromkeys([key, *(f"{key}.{dotted([entry])}" for entry in inner)], origin)
    return layer


def _unknown(key: str, spelled: Callable[[str], str]) -> str:
    inside = next((known for known in settings() if known.startswith(f"{key}.")), "")
    if inside:
        return f"is a section; set its keys one by one, like {spelled(inside)}"
    nearest = nearest_setting(key)
    return f"unknown key; did you mean {spelled(nearest)}?" if nearest else "unknown key"


def _converted(key: str, value: Any) -> Any:
    """Text as a value of the setting's type; what cannot be converted stays, for the check to refuse."""
    if not isinstance(value, str):
        return value
    known = setting(key)
    annotation: Any = known and known.annotation
    try:
        if get_origin(annotation) is dict:
            return TypeAdapter(dict[str, Any]).validate_json(value)
        if get_origin(annotation) is list:
            return _list(value)
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return value


def _list(text: str) -> Any:
    """A list as JSON or as TOML, which differ in quotes; the text itself when it is neither."""
    try:
        return TypeAdapter(list[Any]).validate_json(text)
    except ValidationError:
        try:
            found = tomli.loads(f"value = {text}")
        except (ValueError, RecursionError):
            return text
    return found["value"] if len(found) == 1 else text


def _move_burst_percent(layer: _Layer) -> None:
    """Bring VellumForge2's layout, `provider_burst_percent` inside the table of limits, into ours."""
    name = "provider_burst_percent"
    table = layer.data.get("provider_rate_limits")
    if not isinstance(table, dict) or name not in table:
        return
    layer.data["provider_rate_limits"] = {key: value for key, value in table.items() if key != name}
    if layer.data.setdefault(name, table[name]) != table[name]:
        message = "stands at the top level and inside [provider_rate_limits], with different values; keep one"
        layer.problems.append(Problem(name, message))


def _rename(layer: _Layer) -> None:
    """Bring settings of a file that stand under an older name to the one that they have now."""
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        table = layer.data.get(section)
        if not isinstance(table, dict) or name not in table:
            continue
        layer.hints.append(_hint(old))
        its_own = new.partition(".")[2]
        if its_own in table:
            message = f"is the older name of {new}, which is given as well; keep one"
            layer.problems.append(Problem(old, message))
        layer.data[section] = {its_own: table[name]} | {key: table[key] for key in table if key != name}


def _hint(old: str) -> str:
    return f"{old} is called {RENAMED[old]} by now"


def _validate(layers: list[dict[str, Any]], *, for_run: bool) -> tuple[Config | None, list[Problem]]:
    # Sections that must be there are empty rather than missing, so that their missing keys are named.
    merged = _Merged(layers=[*layers, {"generation": {}, "models": {}}]).model_extra or {}
    unread = _read_subtopics(merged)
    _fill_by_input(merged)
    _fill_templates(merged)
    if not for_run and isinstance(merged["generation"], dict):
        merged["generation"] = _UNSAID | merged["generation"]
    try:
        config, errors = Config.model_validate(merged), []
    except ValidationError as error:
        config, errors = None, error.errors(include_url=False)
    draft = rules.Draft(merged, frozenset(error["loc"] for error in errors))
    return config, [*unread, *from_errors(errors), *rules.problems(draft)]


def _read_subtopics(merged: dict[str, Any]) -> list[Problem]:
    """Put the lines of a file in the place of its name, where `input.subtopics` names one.

    So a session knows its subtopics, whatever becomes of the file. Returns what is wrong with it.
    """
    given = merged.get("input")
    name = given.get("subtopics") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(name, str) or not name.strip():
        return []
    try:
        lines = read_text(Path(name), LARGEST_FILE).removeprefix("\ufeff").splitlines()
    except ConfigError as error:
        lines, why = [], error.problems[0].message
    else:
        why = "holds no subtopic; one a line is needed"
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    merged["input"] = given | {"subtopics": found}
    return [] if found else [with_value("input.subtopics", name, f"that file {why}")]


def _fill_by_input(merged: dict[str, Any]) -> None:
    """Give what prompts or subtopics of one's own make needless: how many there are, and for prompts a topic.

    How many prompts a file holds is known when it is read.
    """
    given, generation = merged.get("input"), merged["generation"]
    if not isinstance(given, dict) or not isinstance(generation, dict):
        return
    prompts, subtopics = given.get("prompts"), given.get("subtopics")
    if isinstance(prompts, str) and prompts.strip():
        counts = {"num_subtopics": 1, "num_prompts_per_subtopic": 1}
        merged["generation"] = {"main_topic": OWN_TOPIC} | generation | counts
    elif isinstance(subtopics, list) and subtopics:
        merged["generation"] = generation | {"num_subtopics": len(subtopics)}


def _fill_templates(merged: dict[str, Any]) -> None:
    """Give the templates that stand in for the built-in ones, where none are given.

    Prompts of one's own go to the models as they are: the built-in templates are made for prompts of a topic.
    Where a length is wanted, both sides are asked for it.
    """
    given, length, templates = (merged.get(name, {}) for name in ("input", "length", "prompt_templates"))
    if not all(isinstance(section, dict) for section in (given, length, templates)):
        return
    prompts, stand_ins = given.get("prompts"), dict[str, str]()
    if length.get("answer_words"):
        stand_ins = dict(SIZED)
    if isinstance(prompts, str) and prompts.strip():
        wish = f"\n\n{_SIZE}" if stand_ins else ""
        stand_ins = {name: f"{text}{wish}" for name, text in _AS_IT_IS.items()}
    if stand_ins:
        # A form sends them all: what stands there as it would without being said is not meant.
        own = {name: text for name, text in templates.items() if text != _built_in(name)}
        merged["prompt_templates"] = stand_ins | own


OWN_TOPIC: Final = "prompts"
"""The topic of prompts of one's own, where none is given; the same whatever their file is called."""
_UNSAID: Final = {"main_topic": OWN_TOPIC, "num_subtopics": 1, "num_prompts_per_subtopic": 1}
_SIZE: Final = "Answer in {{.AnswerWords}} words."
_AS_IT_IS: Final = {"chosen_generation": "{{.Prompt}}", "rejected_generation": "{{.Prompt}}"}


def _built_in(template: str) -> object:
    key = f"prompt_templates.{template}"
    return default_of(key) if key in settings() else None


def _with_origin(problem: Problem, origins: Mapping[str, str]) -> Problem:
    # What is wrong within an entry of a table came with that entry; the table itself may have come twice.
    entry = problem.key.rpartition(".")[0]
    origin = origins.get(problem.key) or ("" if entry in settings() else origins.get(entry))
    return Problem(problem.key, f"{problem.message} ({origin})") if origin else problem

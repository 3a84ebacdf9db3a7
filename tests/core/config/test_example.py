"""The example configuration and the reference of settings: complete, true, and of use as they stand."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pytest
import tomli
from pydantic_core import PydanticUndefined

from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.problems import allowed_range
from tasks.core.config.settings import DatasetMode, default_of, settings
from tasks.core.config.templates import VARIABLES
from tasks.core.demo.server import DemoServer
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.run import open_run
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.progress import Progress
from tasks.core.rows.formats import rows_of
from tasks.core.secrets import Keys
from tasks.core.traffic.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.core.config.settings import Config
    from tasks.core.models import Job, Pair

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config.example.toml"
REFERENCE = ROOT / "docs" / "configuration.md"

# The example prices one model, and a budget in dollars needs the price of each.
PRICES = '[pricing."weak-model"]\ninput = 0.1\noutput = 0.4\n'

MODES: tuple[str, ...] = get_args(DatasetMode)
# The tables whose names are the user's own: their headings stand for the settings.
TABLES = {key for key, field in settings().items() if get_origin(field.annotation) is dict}

_HEADING = re.compile(r"(?P<off># )?\[(?P<name>[\w.]+)(\.\"[^\"]+\")?\]")
_SETTING = re.compile(r'(?P<off># )?(?P<name>"[^"]+"|[\w-]+) = (?P<value>.*)')
_DEFAULT = re.compile(r"# .*\((?P<required>required)\)|# .*\(default: (?P<default>.*)\)")
_ROW = re.compile(r"\| `(?P<name>\w+)` \| (?P<default>.*?) \| (?P<allowed>.*?) \| (?P<meaning>.*) \|")


@dataclass(frozen=True, slots=True)
class Entry:
    """A setting as the example shows it: its dotted key, whether it is commented out, and what is said."""

    key: str
    off: bool
    said: str


def entries(text: str) -> Iterator[Entry]:
    """The settings of the example, in order, and the comment that each has beside it or above it."""
    section, above, inside = "", "", False
    for line in text.splitlines():
        if inside:
            inside = "'''" not in line
        elif heading := _HEADING.fullmatch(line):
            section = f"{heading['name']}."
            if heading["name"] in TABLES and not heading["off"]:
                yield Entry(heading["name"], off=False, said=above)
        elif setting := _SETTING.fullmatch(line):
            inside = setting["value"] == "'''"
            if section.removesuffix(".") not in TABLES:
                beside = setting["value"].rpartition("  # ")[2]
                yield Entry(
                    section + setting["name"], bool(setting["off"]), above if inside else f"# {beside}"
                )
        above = f"{above} {line}" if line.startswith("#") else ""


def uncommented(text: str) -> str:
    return "\n".join(
        line.removeprefix("# ")
        if (found := _SETTING.fullmatch(line) or _HEADING.fullmatch(line)) and found["off"]
        else line
        for line in text.splitlines()
    )


def example(**overrides: Any) -> Config:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(EXAMPLE, overrides=dotted, environ={}).config


# The example


def test_it_loads_without_a_warning() -> None:
    assert rules.warnings(example()) == ()


def test_it_is_small_and_keeps_checkpoints() -> None:
    generation = example().generation
    assert generation.num_subtopics * generation.num_prompts_per_subtopic <= 100
    assert generation.enable_checkpointing


def test_every_setting_stands_in_it_once_and_in_its_section() -> None:
    counted = Counter(entry.key for entry in entries(EXAMPLE.read_text(encoding="utf-8")))
    assert {key: number for key, number in counted.items() if number > 1} == {}
    assert counted.keys() == settings().keys()


def test_what_is_commented_out_can_be_used() -> None:
    text = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    off = [entry.key for entry in entries(EXAMPLE.read_text(encoding="utf-8")) if entry.off]
    assert off
    assert not any(entry.off for entry in entries(text))
    # One of the two ways to name a key is taken.
    text = re.sub(r"^api_key_block .*$", "", text, flags=re.MULTILINE)
    text = text.replace('[pricing."strong-model"]', PRICES + '[pricing."strong-model"]')
    config = load_config(None, text=text, environ={}).config
    assert config.models.main.headers == {"X-Title": "fantasy", "X-Gateway-Key": "${GATEWAY_KEY}"}
    assert config.models.main.extra_body == {"reasoning_effort": "low"}
    assert config.pricing["strong-model"].cached_input == 1.25
    assert config.provider_token_limits == {"openai": 200000}
    assert config.provider_rate_limits == {"openai": 500, "http://localhost:8000/v1": 600}
    # What stays out is what would change something or have no effect: neither is done by an example.
    assert config.generation.seed != 0
    assert any("judge_timeout_seconds" in line for line in rules.warnings(config))


def test_every_default_that_it_states_is_the_default() -> None:
    for entry in entries(EXAMPLE.read_text(encoding="utf-8")):
        stated = _DEFAULT.search(entry.said)
        assert stated, f"{entry.key} says neither its default nor that it is required"
        check_default(entry.key, "required" if stated["required"] else stated["default"])


def check_default(key: str, stated: str) -> None:
    """A default is stated as TOML, or in words where it is the absence of a value or a long text."""
    default = default_of(key)
    if key.startswith("prompt_templates.") and default:
        assert stated == "built in", key
    elif default is PydanticUndefined or default is None or default == {}:
        absent = "as temperature" if key.endswith(".structure_temperature") else "unset"
        words = {"PydanticUndefined": "required", "None": absent, "{}": "none"}
        assert stated == words[str(default)], key
    else:
        assert tomli.loads(f"value = {stated}")["value"] == default, key
        assert stated == json.dumps(default) or isinstance(default, float), key


def test_it_names_the_variables_of_each_template() -> None:
    for entry in entries(EXAMPLE.read_text(encoding="utf-8")):
        section, _, name = entry.key.rpartition(".")
        if section == "prompt_templates" and not entry.off:
            named = re.search(r"# Variables:((?: \.\w+)+)", entry.said)
            assert named, entry.key
            assert {word.removeprefix(".") for word in named[1].split()} == VARIABLES[name]


@pytest.mark.parametrize("mode", MODES)
async def test_it_makes_a_dataset_in_every_mode(mode: str, tmp_path: Path) -> None:
    async with DemoServer() as server:
        models = {f"models__{role}__base_url": server.base_url for role in ("main", "rejected", "judge")}
        rates = {f"models__{role}__rate_limit_per_minute": 0 for role in ("main", "rejected", "judge")}
        config = example(
            generation__dataset_mode=mode,
            generation__num_subtopics=2,
            generation__num_prompts_per_subtopic=2,
            models__judge__enabled=mode == "mo-dpo",
            output__folder=str(tmp_path),
            **models,
            **rates,
        )
        assert rules.warnings(config) == ()
        pairs = await made(config)
    rows = [row for pair in pairs for row in rows_of(config, pair)]
    assert len(rows) == (8 if mode == "kto" else 4)


async def made(config: Config) -> list[Pair]:
    """The pairs of a run of the three phases, without Prefect and without a session."""
    pairs: list[Pair] = []

    def keep(_: Job, pair: Pair | None) -> None:
        assert pair is not None
        pairs.append(pair)

    async with (
        await Ledger.open(ledger_url(config)) as ledger,
        open_run(config, Keys({}, {}), session="s", ledger=ledger, stop=Stop(), progress=Progress()) as run,
    ):
        names = [Subtopic(index, name) for index, name in enumerate(await find_subtopics(run))]
        jobs = jobs_of(run, (await complete_prompts(run, await write_prompts(run, names))).found)
        outcome = await make_pairs(run, jobs, keep)
    assert outcome.failures == ()
    return pairs


# The reference


def documented() -> dict[str, re.Match[str]]:
    """The rows of the reference's tables by dotted key; a table below several sections is one of each."""
    found: dict[str, re.Match[str]] = {}
    sections = [""]
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            sections = [f"{name}." for name in re.findall(r"`\[([\w.]+)\]`", line)] or [""]
        elif row := _ROW.fullmatch(line):
            for section in sections:
                assert section + row["name"] not in found, f"{section}{row['name']} is there twice"
                found[section + row["name"]] = row
    return found


def test_the_reference_holds_every_setting_and_its_default() -> None:
    found = documented()
    # The judge's switch stands in the table of all models, and says whose it is.
    for role in ("main", "rejected"):
        assert "judge only" in found.pop(f"models.{role}.enabled")["meaning"]
    assert found.keys() == settings().keys()
    for key, row in found.items():
        check_default(key, row["default"].strip("`"))


def test_the_reference_says_what_each_number_may_be() -> None:
    for key, row in documented().items():
        field = settings().get(key)
        if field is None or field.annotation not in {int, float, float | None}:
            continue
        allowed = allowed_range(key, full=False).removeprefix("allowed: ").partition(",")[0]
        assert row["allowed"].startswith(allowed), key


def test_the_reference_names_the_variables_of_each_template() -> None:
    rows = re.findall(r"^\| (.*) \| (`\.\w+`.*) \|$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {
        name: set(re.findall(r"`\.(\w+)`", variables))
        for names, variables in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert named == VARIABLES

"""A dataset's card on the Hub, and what is known of the dataset when it is written.

Texts of users and models stand in it as they are, and are never read as YAML or as markup. Keys do not:
neither they nor the headers of requests are looked at here, and of an address only the host is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
from huggingface_hub import DatasetCardData

from tasks.core.cost import CHARACTERS_PER_TOKEN
from tasks.core.export.rows import DATA, NATIVE
from tasks.core.keys import configuration_hash
from tasks.core.lint.report import in_words
from tasks.core.models import Purpose
from tasks.core.printable import escaped, fenced, printable_line, table
from tasks.core.questions import TEMPLATES, kinds_of, model_of, purposes_of
from tasks.core.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.core.config.settings import Config, ModelConfig
    from tasks.core.cost import Bill, Prices, Usage
    from tasks.core.export.rows import Exported
    from tasks.core.lint.report import Report


TAGS: Final = ("synthetic", "vellumforge2")
LONGEST_TITLE: Final = 120

_SAMPLING: Final = (
    "temperature",
    "structure_temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "max_output_tokens",
    "extra_body",
)
_SMALLEST, _LARGEST = 3, 12
"""The powers of ten between which the Hub's categories of size reach, each ten times the one before."""
_UNITS: Final = {3: "K", 6: "M", 9: "B", 12: "T"}
_PREFERENCES: Final = ("dpo", "kto", "mo-dpo")


def render_card(facts: CardFacts) -> str:
    """The card's text: YAML between two lines of dashes, and Markdown."""
    parts = [f"# {escaped(_title(facts))}", _introduction(facts), *_data(facts), *_models(facts)]
    parts += [*_quality(facts), *_cost(facts), *_templates(facts)]
    body = "\n\n".join(parts)
    # A lone surrogate is no text that a file can hold.
    return f"---\n{_metadata(facts).to_yaml()}\n---\n\n{body}\n".encode("utf-8", "replace").decode()


def size_category(rows: int) -> str:
    """The Hub's category of a dataset with so many rows: `n<1K`, `1K<n<10K`, …, `n>1T`."""
    if rows < 10**_SMALLEST:
        return "n<1K"
    for power in range(_SMALLEST, _LARGEST):
        if rows < 10 ** (power + 1):
            return f"{_power(power)}<n<{_power(power + 1)}"
    return "n>1T"


def _power(power: int) -> str:
    return f"{10 ** (power % 3)}{_UNITS[power - power % 3]}"


def _metadata(facts: CardFacts) -> DatasetCardData:
    mode = facts.config.generation.dataset_mode
    return DatasetCardData(
        license=facts.license or None,
        pretty_name=_title(facts),
        size_categories=[size_category(max(facts.exported.rows.values(), default=0))],
        task_categories=["text-generation"],
        tags=[*TAGS, mode, *(["preference"] if mode in _PREFERENCES else [])],
        configs=[
            {
                "config_name": configuration,
                "data_files": [
                    {"split": split, "path": f"{DATA}/{configuration}/{split}-*"}
                    for split in dict.fromkeys(file.split for file in facts.exported.of(configuration))
                ],
            }
            | ({"default": True} if configuration == _default(facts) else {})
            for configuration in facts.exported.rows
        ],
    )


def _default(facts: CardFacts) -> str:
    """The configuration of those who name none: the first one made for trainers."""
    names = list(facts.exported.rows)
    return next((name for name in names if name != NATIVE), names[0])


def _title(facts: CardFacts) -> str:
    return printable_line(_shown(facts.config.generation.main_topic, facts), LONGEST_TITLE)


def _introduction(facts: CardFacts) -> str:
    mode = facts.config.generation.dataset_mode
    return (
        f"A synthetic dataset of mode `{mode}`: language models wrote its prompts and answers. It was made "
        f"with VellumForge Flows {facts.version}; this card was made with it, of what is on record."
    )


def _data(facts: CardFacts) -> Iterator[str]:
    yield "## Data"
    rows: dict[tuple[str, str], list[int]] = {}
    for file in facts.exported.files:
        sums = rows.setdefault((file.configuration, file.split), [0, 0, 0])
        for place, number in enumerate((file.rows, 1, file.size)):
            sums[place] += number
    yield table(
        ("configuration", "split", "rows", "files", "bytes"),
        [(*name, *(f"{number:,}" for number in sums)) for name, sums in rows.items()],
    )
    load = "\n".join(
        f'{name.replace("-", "_")} = load_dataset("{facts.repo}", "{name}")' for name in facts.exported.rows
    )
    yield fenced(f"from datasets import load_dataset\n\n{load}", "python")


def _models(facts: CardFacts) -> Iterator[str]:
    config = facts.config
    generation = config.generation
    yield "## How it was made"
    subtopics, each = generation.num_subtopics, generation.num_prompts_per_subtopic
    whence = (
        "prompts that were given"
        if config.input.prompts
        else f"{subtopics:,} subtopics, {each:,} prompts each"
    )
    made: list[tuple[str, str]] = [
        ("topic", _title(facts)),
        ("mode", generation.dataset_mode),
        ("begun", f"{datetime.fromtimestamp(facts.created, UTC):%Y-%m-%d}"),
        ("pairs asked for", f"{generation.wanted_pairs:,} ({whence})"),
        ("complete", "yes" if facts.complete else "no: some of what was asked for did not come about"),
        ("seed", str(generation.seed)),
        ("configuration, SHA-256", configuration_hash(config)),
    ]
    if config.judge_filtering.enabled and generation.dataset_mode != "mo-dpo":
        bounds = config.judge_filtering
        made.append(
            (
                "kept by the judge",
                f"chosen from {bounds.min_chosen_score:g}, rejected up to {bounds.max_rejected_score:g}",
            )
        )
    yield table(("what", "value"), made)
    models: dict[str, tuple[ModelConfig, list[str]]] = {}
    for kind in kinds_of(config):
        models.setdefault(kind.section, (model_of(config, kind), []))[1].append(str(kind.purpose))
    yield table(
        ("model", "host", "wrote", "sampling"),
        [
            (
                model.model_name,
                urlsplit(model.base_url).hostname or "",
                ", ".join(wrote),
                _sampling(model, facts),
            )
            for model, wrote in models.values()
        ],
    )


def _sampling(model: ModelConfig, facts: CardFacts) -> str:
    """The sampling settings that are sent, with their values."""
    sent: dict[str, Any] = {
        name: value
        for name in _SAMPLING
        if (value := getattr(model, name)) not in (None, [], {}) and (name, value) != ("top_k", -1)
    }
    return ", ".join(f"{name} {_shown(orjson.dumps(value).decode(), facts)}" for name, value in sent.items())


def _quality(facts: CardFacts) -> Iterator[str]:
    if facts.failures and not facts.complete:
        yield "## What could not be done"
        yield table(
            ("cause", "in all runs"), [(cause, f"{count:,}") for cause, count in facts.failures.items()]
        )
    if facts.lint is None:
        return
    yield "## Lint"
    lengths = facts.lint.lengths
    counted = f"{facts.lint.counted} looked at by {len(facts.lint.shares)} checks"
    if lengths is not None:
        counted += (
            f"; chosen answers have {lengths.chosen_mean:,.0f} characters on average, rejected ones "
            f"{lengths.rejected_mean:,.0f}, and chosen is longer in {lengths.chosen_longer:.1%}"
        )
    yield f"{counted}.{'' if facts.lint.findings else ' Nothing was found.'}"
    if facts.lint.findings:
        found = [(item.check, in_words(item, facts.lint.unit)) for item in facts.lint.findings]
        yield table(("check", "found"), found)


def _cost(facts: CardFacts) -> Iterator[str]:
    if facts.bill is None or not facts.bill.usage().calls:
        return
    yield "## Cost"
    total = facts.bill.cost(facts.prices)
    lines = [
        (model, purpose, *_used(usage), facts.prices.cost(model, usage).in_words or "unknown")
        for model, purpose, usage in facts.bill
    ]
    usage = facts.bill.usage()
    lines.append(("all", "", *_used(usage), total.in_words or "unknown"))
    yield table(("model", "call", "calls", "tokens in", "tokens out", "cost"), lines)
    if usage.unreported:
        yield (
            f"The servers did not report the tokens of {usage.unreported:,} of these calls: "
            f"about {usage.estimated_tokens:,} more, at {CHARACTERS_PER_TOKEN} characters a token."
        )


def _used(usage: Usage) -> tuple[str, str, str]:
    return f"{usage.calls:,}", usage.tokens_in, usage.tokens_out


def _templates(facts: CardFacts) -> Iterator[str]:
    yield "## Templates"
    yield "What the models were told, in the syntax of Go templates."
    for purpose in (item for item in Purpose if item in purposes_of(facts.config)):
        for name in filter(None, TEMPLATES[purpose]):
            text = getattr(facts.config.prompt_templates, name)
            if text:
                # The blank lines end the HTML: what stands in the fence is text again.
                yield f"<details>\n<summary>{name}</summary>\n\n{fenced(_shown(text, facts))}\n\n</details>"


def _shown(text: str, facts: CardFacts) -> str:
    return without_secrets(text, facts.environ)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says.

    Attributes:
        repo: The repository, as owner/name.
        license: Its licence as the Hub names it, or "".
        config: The settings that the session began with.
        created: When it began, in seconds since the epoch.
        complete: Whether every row that was asked for came about.
        exported: The files.
        bill: What the session paid for, or None where its ledger is not here.
        prices: The prices of its models, as far as they are known.
        failures: What could not be done in any of its runs, by cause.
        lint: What lint found in its rows, or None where it has none.
        version: The version of this program.
        environ: The environment; secrets of it that a template or another text quotes are left out.
    """

    repo: str
    license: str
    config: Config
    created: float
    complete: bool
    exported: Exported
    bill: Bill | None
    prices: Prices
    failures: Mapping[str, int]
    lint: Report | None
    version: str
    environ: Mapping[str, str]

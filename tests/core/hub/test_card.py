"""A dataset's card: facts and nothing else, valid for the Hub, whatever stands in its texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import DatasetCard

from tasks.core.hub.card import render_card, size_category
from tasks.core.keys import configuration_hash
from tasks.core.lint.linter import lint_file
from tests.core.hub.datasets import config_of, exported, facts_of
from tests.core.hub.server import SIZES
from tests.core.lint.planted import clean, write

if TYPE_CHECKING:
    from pathlib import Path

    from datasets.utils.metadata import MetadataConfigs

    from tasks.core.config.settings import Config
    from tests.core.hub.server import Hub

HOSTILE = (
    "Tides: [x] {y} & *z !tag | > % @ ` \"q\" 's' # no comment\n---\nlicense: mit\n---\n"
    "\x1b[31m \u202e <script>alert(1)</script> </details> ``` ```` |a|b| [link](http://evil) ![i](x)"
)


def card_of(folder: Path, config: Config | None = None, **more: Any) -> str:
    """The card of a small dataset."""
    return render_card(facts_of(exported(folder), config, **more))


def cells(card: str) -> list[list[str]]:
    """The cells of all tables, without the backslashes."""
    rows = (line.replace("\\", "") for line in card.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def metadata_of(card: DatasetCard) -> dict[str, Any]:
    """What `huggingface_hub` reads in a card."""
    found: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    return found


def configurations_in(card: DatasetCard) -> MetadataConfigs:
    """What `datasets` reads in a card."""
    # Every worker reads this file, and one of them runs it: it takes a second to import.
    from datasets.utils import metadata  # noqa: PLC0415

    return metadata.MetadataConfigs.from_dataset_card_data(card.data)


def test_the_hub_takes_its_metadata_and_datasets_its_configurations(hub: Hub, tmp_path: Path) -> None:
    card = DatasetCard(card_of(tmp_path, license="cc-by-4.0"))
    card.validate()
    assert hub.asked == ["POST /api/validate-yaml"]
    assert metadata_of(card) == {
        "license": "cc-by-4.0",
        "pretty_name": "Tides",
        "size_categories": ["n<1K"],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "vellumforge2", "dpo", "preference"],
        "configs": metadata_of(card)["configs"],
    }
    found = configurations_in(card)
    assert found == {
        "native": {"data_files": [{"split": "train", "path": "data/native/train-*"}]},
        "dpo": {
            "data_files": [
                {"split": "train", "path": "data/dpo/train-*"},
                {"split": "test", "path": "data/dpo/test-*"},
            ],
            "default": True,
        },
    }
    assert found.get_default_config_name() == "dpo"


def test_no_licence_is_assumed(tmp_path: Path) -> None:
    assert "license" not in metadata_of(DatasetCard(card_of(tmp_path)))
    assert "licen" not in card_of(tmp_path).lower()


def test_it_says_what_is_on_record(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", clean("dpo"))
    config = config_of(
        models__main__temperature=0.25,
        generation__seed=7,
        pricing={"strong-model": {"input": 1.0, "output": 2.0}},
        prompt_templates__chosen_generation="Answer {{.Prompt}} at length.",
    )
    lint = lint_file(tmp_path / "rows.jsonl")
    card = card_of(tmp_path, config, lint=lint)
    rows = cells(card)
    assert ["native", "train", "4", "1"] in [row[:4] for row in rows]
    assert ["dpo", "train", "50", "2"] in [row[:4] for row in rows]
    assert ["dpo", "test", "7", "1"] in [row[:4] for row in rows]
    assert ["pairs asked for", "6 (2 subtopics, 3 prompts each)"] in rows
    assert ["begun", "2026-01-31"] in rows
    assert ["seed", "7"] in rows
    assert ["complete", "yes"] in rows
    assert ["configuration, SHA-256", configuration_hash(config)] in rows
    models = {row[0]: row for row in rows if len(row) == 4 and row[0].endswith("-model")}
    assert models["strong-model"][1:3] == ["llm.example.com", "subtopics, prompts, chosen"]
    assert models["weak-model"][1:3] == ["127.0.0.1", "rejected"]
    assert "temperature 0.25" in models["strong-model"][3]
    assert ["strong-model", "chosen", "6", "1,200", "3,400", "$0.0080"] in rows
    assert ["weak-model", "rejected", "6", "600", "900", "unknown"] in rows
    assert ["all", "", "12", "1,800", "4,300", "≥ $0.0080 (6 calls of unknown price)"] in rows
    assert f"{lint.counted} looked at by {len(lint.shares)} checks" in card
    assert lint.rows == 40
    assert "Answer {{.Prompt}} at length." in card
    assert "What could not be done" not in card


def test_what_is_not_complete_says_so(tmp_path: Path) -> None:
    card = card_of(tmp_path, complete=False, failures={"refused": 1_200, "timeout": 3})
    assert ["complete", "no: some of what was asked for did not come about"] in cells(card)
    assert ["refused", "1,200"] in cells(card)


def test_of_what_is_secret_nothing_is_said(tmp_path: Path) -> None:
    config = config_of(
        models__main__base_url="https://gateway.example.com/tenant-4711/secret-path/v1",
        models__main__api_key_env="MY_GATEWAY",
        models__main__headers={"X-Tenant": "header-4711"},
        prompt_templates__chosen_generation="Say hf_KeyInATemplate to {{.Prompt}}, {{.Prompt}}",
    )
    card = card_of(tmp_path, config, environ={"OTHER_TOKEN": "hf_KeyInATemplate"})
    assert "gateway\\.example\\.com" in card
    for hidden in ("4711", "secret-path", "MY_GATEWAY", "hf_Key", "X-Tenant"):
        assert hidden not in card
        assert hidden not in card.replace("\\", "")
    assert "Say *** to {{.Prompt}}" in card


def test_hostile_texts_are_shown_and_never_read(hub: Hub, tmp_path: Path) -> None:
    config = config_of(
        generation__main_topic=HOSTILE.replace("\n", " ").replace("\x1b", ""),
        prompt_templates__chosen_generation=f"{HOSTILE} {{{{.Prompt}}}}",
        models__main__model_name="a|b\\<script>",
    )
    card = card_of(tmp_path, config)
    read = DatasetCard(card)
    read.validate()
    metadata = metadata_of(read)
    assert "license" not in metadata
    assert list(configurations_in(read)) == ["native", "dpo"]
    assert metadata["pretty_name"].isprintable()
    assert hub.defects == []
    body = card.partition("\n---\n\n")[2]
    outside: list[str] = []
    inside: list[str] = []
    fence = ""
    for line in body.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if not fence and len(ticks) >= 3:
            fence = ticks
        elif fence and line == fence:
            fence = ""
        else:
            (inside if fence else outside).append(line)
    assert not fence
    assert any("<script>" in line for line in inside)
    text = "\n".join(outside)
    assert "<script" not in text.replace("\\<", "")
    assert "](" not in text.replace("\\]\\(", "")
    assert text.count("<details>") == text.count("</details>") == card.count("<summary>")
    assert all(row[0] != "b" for row in cells(card))


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (100_000, "100K<n<1M"),
        (5_000_000, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_sizes_are_named_as_the_hub_names_them(rows: int, category: str) -> None:
    assert size_category(rows) == category
    assert category in SIZES | {"100B<n<1T", "n>1T"}


def test_the_same_facts_are_the_same_card(tmp_path: Path) -> None:
    assert card_of(tmp_path / "a") == card_of(tmp_path / "b")

"""SFTTrainer, DPOTrainer and KTOTrainer take two steps on what is exported, as it lies there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from tests.trainers import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import DatasetDict

STEPS = 2
SYSTEM = "<|im_start|>system\nYou are a published writer of short stories about Lighthouse keepers & the sea."

TRAINERS: dict[str, tuple[type[Any], type[Any]]] = {
    "sft": (SFTTrainer, SFTConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "kto": (KTOTrainer, KTOConfig),
}
# Mode, configuration, trainer, and the columns whose tokens hold the answers.
CASES = [
    ("sft", "sft", "sft", ["input_ids"]),
    ("sft", "sft-prompt-completion", "sft", ["input_ids"]),
    ("dpo", "dpo", "dpo", ["chosen_ids", "rejected_ids"]),
    ("kto", "kto", "kto", ["completion_ids"]),
    ("mo-dpo", "dpo", "dpo", ["chosen_ids", "rejected_ids"]),
    ("mo-dpo", "scores", "dpo", ["chosen_ids", "rejected_ids"]),
]


def loaded(folder: Path, configuration: str, cache: Path) -> DatasetDict:
    """A configuration with its splits, as `datasets` reads a folder."""
    return load_dataset(str(folder), data_dir=f"data/{configuration}", cache_dir=str(cache))


def trained(name: str, data: DatasetDict, folder: Path) -> Any:
    """The trainer after its steps."""
    trainer_class, config_class = TRAINERS[name]
    words = tiny.tokenizer()
    tiny.save_model(words, folder / "model")
    options = config_class(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        max_length=None,
        gradient_checkpointing=False,
    )
    trainer = trainer_class(
        model=str(folder / "model"),
        args=options,
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=words,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
@pytest.mark.parametrize("reasoning", ["none", "inline", "reasoning_content"])
@pytest.mark.parametrize(("mode", "configuration", "trainer", "answers"), CASES)
def test_a_trainer_takes_two_steps(
    exports: Path,
    tmp_path: Path,
    *,
    mode: str,
    configuration: str,
    trainer: str,
    answers: list[str],
    reasoning: str,
    file_type: str,
) -> None:
    data = loaded(exports / f"{mode}-{reasoning}-{file_type}", configuration, tmp_path / "cache")
    assert (data["train"].num_rows, data["test"].num_rows) == ((18, 6) if mode == "kto" else (9, 3))
    before = data["train"].to_list()

    done = trained(trainer, data, tmp_path / "out")

    steps = [entry for entry in done.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1))
    assert all(math.isfinite(entry[figure]) for entry in steps for figure in ("loss", "grad_norm"))
    assert math.isfinite(done.evaluate()["eval_loss"])
    assert data["train"].to_list() == before

    # What the trainer learns from has the system prompt, and the reasoning where it is wanted.
    words = done.processing_class
    prompts = "input_ids" if trainer == "sft" else "prompt_ids"
    rows = done.train_dataset
    assert len(rows) == len(before)
    assert all(words.decode(row[prompts]).startswith(SYSTEM) for row in rows)
    texts = [words.decode(row[column]) for row in rows for column in answers]
    thinking = sum("<think>\n" in text and "\n</think>\n\n" in text for text in texts)
    assert (thinking > 0) == (reasoning != "none")


@pytest.mark.parametrize(("mode", "configuration"), [case[:2] for case in CASES])
def test_all_file_types_and_the_run_itself_hold_the_same(
    exports: Path, tmp_path: Path, mode: str, configuration: str
) -> None:
    forms = ("none-parquet", "none-jsonl", "of-the-run")
    every = [loaded(exports / f"{mode}-{form}", configuration, tmp_path / form) for form in forms]
    for split in ("train", "test"):
        first, *others = (data[split] for data in every)
        assert [other.to_list() for other in others] == [first.to_list()] * 2
        assert [other.features for other in others] == [first.features] * 2

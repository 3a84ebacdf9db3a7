"""The rows and files of an export: which modes a session's calls allow, and pure functions from pair to rows.

The rows of `trl` are conversational, as TRL's SFTTrainer, DPOTrainer and KTOTrainer take them: lists of
messages with `role` and `content`, the roles being system, user and assistant.

The files lie as those of a dataset repository, `data/<configuration>/<split>-00000-of-00001.parquet`, so that
a folder can be uploaded as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from tasks.core.config.settings import DatasetMode
from tasks.core.generation.judging import wants_explanations
from tasks.core.models import GivenJob
from tasks.core.questions import Questions, purposes_of
from tasks.core.rows import formats

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tasks.core.config.settings import Config, FileType, Reasoning
    from tasks.core.models import Job, Pair, Scores, Text
    from tasks.core.rows.formats import Message, Row


DATA: Final = "data"
"""The folder of the files, below the exported one."""

TRL: Final = "trl"
"""The format whose configurations are those below but the first; so is its folder in a session called."""

NATIVE: Final = "native"
SFT: Final = "sft"
PROMPT_COMPLETION: Final = "sft-prompt-completion"
DPO: Final = "dpo"
KTO: Final = "kto"
SCORES: Final = "scores"
RANKED: Final = "ranked"
"""All answers to each prompt, the best first; the format is called so, too."""

ExportFormat = Literal["native", "trl", "ranked"]

TRAIN: Final = "train"
TEST: Final = "test"


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export.

    Attributes:
        path: Its path below the exported folder, with slashes.
        configuration: The configuration that it belongs to, one of those above.
        split: `train` or `test`.
        rows: How many rows it holds.
        size: Its size in bytes.
    """

    path: str
    configuration: str
    split: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that is whole.

    Attributes:
        folder: The folder that it was written to.
        files: Its files: by configuration in the order of writing, train before test, shards in order.
    """

    folder: Path
    files: tuple[ExportedFile, ...]

    @property
    def rows(self) -> dict[str, int]:
        """The rows of each configuration, all its splits together."""
        found: dict[str, int] = {}
        for file in self.files:
            found[file.configuration] = found.get(file.configuration, 0) + file.rows
        return found

    def of(self, configuration: str) -> Iterable[ExportedFile]:
        """The files of one configuration."""
        return (file for file in self.files if file.configuration == configuration)


def path_of(configuration: str, split: str, number: int, count: int, file_type: FileType) -> str:
    """Where a shard lies below the exported folder, e.g. `data/dpo/train-00000-of-00001.parquet`."""
    return f"{DATA}/{configuration}/{split}-{number:05}-of-{count:05}.{file_type}"


_TRL: dict[str, tuple[str, ...]] = {
    "sft": (SFT, PROMPT_COMPLETION),
    "dpo": (DPO,),
    "kto": (KTO,),
    "mo-dpo": (DPO, SCORES),
}


def configurations_of(output_format: ExportFormat, mode: DatasetMode) -> tuple[str, ...]:
    """The configurations that a dataset of this mode has in this format."""
    return _TRL[mode] if output_format == "trl" else (output_format,)


class Rows:
    """The rows of pairs, under one configuration of the dataset's settings.

    Attributes:
        config: The settings; their mode is that of the rows.
        reasoning: Where the reasoning of answers goes: nowhere, before the answer in think tags, or, in `trl`
            alone, into `reasoning_content` beside it.
    """

    def __init__(self, config: Config, reasoning: Reasoning) -> None:
        self.config = config
        self.reasoning = reasoning
        self._questions = Questions(config)

    def of(self, configuration: str, pair: Pair) -> list[Row]:
        """The rows of a pair: two in kto, chosen first, and one in every other configuration.

        Raises:
            ValueError: The pair lacks an answer or scores that the configuration needs.
        """
        if configuration == NATIVE:
            inline = self.reasoning == "inline"
            return formats.rows_of(self.config, formats.with_reasoning(self.config, pair) if inline else pair)
        rows = self._trl(configuration, pair)
        return [row | pair.job.kept for row in rows] if isinstance(pair.job, GivenJob) else rows

    def _trl(self, configuration: str, pair: Pair) -> list[Row]:
        if configuration == RANKED:
            return [self._ranked(pair)]
        prompt, chosen = self._prompt(pair.job), [self._answer(pair.chosen)]
        if configuration == SFT:
            return [{"messages": [*prompt, *chosen]}]
        if configuration == PROMPT_COMPLETION:
            return [{"prompt": prompt, "completion": chosen}]
        rejected = [self._answer(self._rejected(pair))]
        if configuration == KTO:
            return [
                {"prompt": prompt, "completion": chosen, "label": True},
                {"prompt": prompt, "completion": rejected, "label": False},
            ]
        row: Row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return [row | _scored(pair) if configuration == SCORES else row]

    def _ranked(self, pair: Pair) -> Row:
        """All answers to a prompt, the best first; equals in the order of models and numbers."""
        sides = {id(pair.chosen): "chosen", id(pair.rejected): "rejected"}
        ranked = sorted(pair.candidates, key=lambda item: (-item.total, item.model, item.number))
        answers = [
            {
                "model": item.model,
                "score": item.total if item.scores else None,
                "choice": sides.get(id(item.text), ""),
                "answer": [self._answer(item.text)],
            }
            for item in ranked
        ]
        return {"prompt": self._prompt(pair.job), "answers": answers}

    def _prompt(self, job: Job) -> list[Message]:
        before = formats.messages_before(job)
        if not before or before[0]["role"] != "system":
            system = self._questions.system_prompt(job)
            before = [{"role": "system", "content": system}, *before] if system else before
        return [*before, {"role": "user", "content": job.prompt}]

    def _answer(self, text: Text) -> Message:
        if self.reasoning == "inline":
            text = formats.thinking(text)
        answer = {"role": "assistant", "content": text.content}
        if self.reasoning == "reasoning_content":
            # Also where there is none: who reads JSON lines takes a column's type from what stands in it.
            answer["reasoning_content"] = text.reasoning
        return answer

    def _rejected(self, pair: Pair) -> Text:
        if pair.rejected is None:
            raise ValueError(f"job {pair.job.id} has no rejected answer; only sft rows do without")
        return pair.rejected


def _scored(pair: Pair) -> Row:
    chosen, rejected = pair.chosen_scores, pair.rejected_scores
    if chosen is None or rejected is None:
        raise ValueError(f"job {pair.job.id} has no scores; these rows are made of judged pairs")
    return {
        "main_topic": pair.job.main_topic,
        "sub_topic": pair.job.sub_topic,
        "chosen_scores": _criteria(chosen),
        "rejected_scores": _criteria(rejected),
        "chosen_score_total": chosen.total,
        "rejected_score_total": rejected.total,
        "preference_margin": chosen.total - rejected.total,
    }


def _criteria(scores: Scores) -> list[dict[str, Any]]:
    """Scores as a list: their criteria are the judge's, and columns must not be."""
    return [
        {"criterion": name, "score": float(item.score), "reasoning": item.reasoning}
        for name, item in scores.criteria.items()
    ]


def in_mode(config: Config, mode: DatasetMode) -> Config:
    """The same settings with another mode; its judge is asked as these settings ask theirs."""
    generation = config.generation.model_copy(update={"dataset_mode": mode})
    explained = {"use_explanations": wants_explanations(config)}
    filtering = config.judge_filtering.model_copy(update=explained)
    return config.model_copy(update={"generation": generation, "judge_filtering": filtering})


def allowed_modes(config: Config) -> tuple[DatasetMode, ...]:
    """The modes that ask for nothing which these settings do not ask for as well.

    In mo-dpo the judge gives reasons, so scores alone do not make its rows.
    """
    held = set(purposes_of(config))
    return tuple(
        mode
        for mode in get_args(DatasetMode)
        if held.issuperset(purposes_of(in_mode(config, mode)))
        and (mode != "mo-dpo" or wants_explanations(config))
    )

"""Output rows: pure functions from an input row and what came for it to JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from tasks.core.formats import rows_of, with_reasoning
from tasks.core.models import Job, Pair
from tasks.core.transform.modes import DPO, KTO, MO_DPO, SFT
from tasks.core.transform.rows import SHAREGPT

if TYPE_CHECKING:
    from tasks.core.config.models import Config
    from tasks.core.formats import Row
    from tasks.core.models import Scores, Text
    from tasks.core.transform.modes import Mode
    from tasks.core.transform.rows import InputRow


@dataclass(frozen=True, slots=True)
class Made:
    """A row after its calls: its answers, and the judge's new scores where there are some."""

    chosen: Text | None
    rejected: Text | None
    scores: tuple[Scores, Scores] | None = None


class Rendering:
    """The lines of rows, under the settings that concern them."""

    def __init__(self, config: Config, mode: Mode) -> None:
        self._mode = mode
        self._config = config
        self._forms: dict[tuple[str, str, bool], Config] = {}

    def lines(self, row: InputRow, made: Made) -> tuple[bytes, bytes]:
        """The row without and with reasoning, each a JSON line with its newline."""
        plain, thinking = self._rows(row, made)
        return tuple(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in (plain, thinking))  # type: ignore[return-value]  # two of them

    def _rows(self, row: InputRow, made: Made) -> tuple[Row, Row]:
        config = self._form(self._kind(row, made), row)
        job = Job(row.place, *(row.topics or (self._config.generation.main_topic, "")), row.prompt)
        if row.kind == KTO:
            return _kto(config, job, made)
        assert made.chosen is not None  # noqa: S101 - every other kind has one
        pair = Pair(job, made.chosen, made.rejected, *(made.scores or (None, None)))
        found = []
        for item in (pair, with_reasoning(config, pair)):
            written = rows_of(config, item)[0]
            if config.generation.dataset_mode == DPO and self._keeps_scores(row):
                written = {"main_topic": job.main_topic, "sub_topic": job.sub_topic, **written, **row.scores}
            found.append(written)
        return found[0], found[1]

    def _kind(self, row: InputRow, made: Made) -> str:
        """The dataset mode of the row that is written."""
        if made.scores is not None:
            return MO_DPO
        return SFT if row.kind == SFT and made.rejected is None else DPO

    def _keeps_scores(self, row: InputRow) -> bool:
        """Whether the scores still are those of the row's answers."""
        return row.kind == MO_DPO and self._mode.name == "add-reasoning"

    def _form(self, kind: str, row: InputRow) -> Config:
        key = kind, row.form or SHAREGPT, row.topics is not None
        if key not in self._forms:
            changes = {"dataset_mode": kind, "sft_format": key[1], "include_topic_columns": key[2]}
            generation = self._config.generation.model_copy(update=changes)
            self._forms[key] = self._config.model_copy(update={"generation": generation})
        return self._forms[key]


def _kto(config: Config, job: Job, made: Made) -> tuple[Row, Row]:
    """A row of kto, which is one side of a pair."""
    label = made.chosen is not None
    text = made.chosen or made.rejected
    assert text is not None  # noqa: S101 - a row of kto has one answer
    # As the side that it is: reasoning of rejected answers is written only where that is asked for.
    pair = Pair(job, text) if label else Pair(job, text, text)
    thinking = with_reasoning(config, pair)
    shown = thinking.chosen if label else thinking.rejected
    assert shown is not None  # noqa: S101 - it was there before
    contents = text.content, shown.content
    plain, other = ({"prompt": job.prompt, "completion": content, "label": label} for content in contents)
    return plain, other

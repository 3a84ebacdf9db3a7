"""Rows as Parquet, and the Arrow schemas of exported rows.

Imported late: pyarrow takes a quarter of a second. The schemas are said and never inferred: each file has
the same, whatever is in it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import IO, TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.errors import UsageError
from tasks.core.export.rows import DPO, KTO, NATIVE, PROMPT_COMPLETION, RANKED, SCORES, SFT
from tasks.core.rows.formats import HISTORY, tells_judges

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tasks.core.config.settings import Config, Reasoning
    from tasks.core.export.shards import Bounds
    from tasks.core.rows.formats import Row


class ParquetFile:
    """Rows as Parquet, a bounded group of them at a time; a shard.

    Columns are cut where their content says, so that a store that keeps equal pieces once, as the Hub does,
    is sent little when a dataset grows.
    """

    def __init__(
        self, file: IO[bytes], schema: pa.Schema, bounds: Bounds, as_text: Collection[str] = ()
    ) -> None:
        """Begin a file.

        Args:
            file: Where it goes.
            schema: The columns.
            bounds: How large its groups are.
            as_text: The columns whose values are of several types: each is written as JSON.
        """
        self._as_text = as_text
        self._file = file
        self._schema = schema
        self._bounds = bounds
        self._rows: list[Row] = []
        self._waiting = 0
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_content_defined_chunking=True,
            write_page_index=True,
            # They would hold the first and last text of each page, whole, and in the footer once more.
            write_statistics=False,
        )

    @property
    def size(self) -> int:
        """Bytes written so far, without the rows that wait for their group to fill."""
        return self._file.tell()

    def write(self, row: Row, size: int) -> None:
        """Write a row whose texts have about so many bytes."""
        for name in self._as_text:
            if row.get(name) is not None:
                row = row | {name: orjson.dumps(row[name]).decode()}
        self._rows.append(row)
        self._waiting += size
        if len(self._rows) >= self._bounds.group_rows or self._waiting >= self._bounds.group_bytes:
            self._write_group()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._waiting = [], 0


MOST_CRITERIA = 256
"""Criteria that can be columns of their own; a judge that names more of them gives no two pairs the same."""

_TEXT = pa.string()
_TOPICS = {"main_topic": _TEXT, "sub_topic": _TEXT}
_DPO = {"prompt": _TEXT, "chosen": _TEXT, "rejected": _TEXT}
_TOTALS = {
    "chosen_score_total": pa.float64(),
    "rejected_score_total": pa.float64(),
    "preference_margin": pa.float64(),
}
_SCORE = {"score": pa.float64(), "reasoning": _TEXT}
_MESSAGE = {"role": _TEXT, "content": _TEXT}


def schema_of(
    configuration: str,
    config: Config,
    reasoning: Reasoning,
    criteria: Collection[str],
    kept: Mapping[str, str] = MappingProxyType({}),
) -> pa.Schema:
    """The schema of a configuration's rows.

    Args:
        configuration: Its name.
        config: The settings that the form of native rows depends on.
        reasoning: Where the reasoning goes; `reasoning_content` is a field of its own.
        criteria: All criteria of all scores, which are columns in native rows of mo-dpo.
        kept: Further columns with the types of their values, as `Spool.kept` gives them.

    Raises:
        UsageError: There are too many criteria for columns.
    """
    prompt = _list(_MESSAGE)
    answer = _list(_MESSAGE | ({"reasoning_content": _TEXT} if reasoning == "reasoning_content" else {}))
    trl = {
        SFT: {"messages": answer},
        PROMPT_COMPLETION: {"prompt": prompt, "completion": answer},
        DPO: {"prompt": prompt, "chosen": answer, "rejected": answer},
        KTO: {"prompt": prompt, "completion": answer, "label": pa.bool_()},
    }
    scores = _list({"criterion": _TEXT} | _SCORE)
    trl[SCORES] = trl[DPO] | _TOPICS | {"chosen_scores": scores, "rejected_scores": scores} | _TOTALS
    one = {"model": _TEXT, "score": pa.float64(), "choice": _TEXT, "answer": answer}
    trl[RANKED] = {"prompt": prompt, "answers": _list(one)}
    native = configuration == NATIVE
    columns = _native(config, criteria) if native else trl[configuration]
    # TRL's rows have what was said before among their messages, and those of ShareGPT as well.
    in_messages = not native or "conversations" in columns
    further = {name: _FURTHER[its_type] for name, its_type in kept.items()}
    if in_messages:
        further.pop(HISTORY, None)
    return pa.schema(columns | further)


_FURTHER = {
    "": _TEXT,
    "text": _TEXT,
    "json": _TEXT,
    "bool": pa.bool_(),
    "int": pa.int64(),
    "large": pa.int64(),
    "float": pa.float64(),
    HISTORY: pa.list_(pa.struct(_MESSAGE)),
}


def _native(config: Config, criteria: Collection[str]) -> dict[str, pa.DataType]:
    generation = config.generation
    match generation.dataset_mode:
        case "sft":
            topics = _TOPICS if generation.include_topic_columns else {}
            if generation.sft_format == "alpaca":
                return topics | {"instruction": _TEXT, "output": _TEXT}
            return topics | {"conversations": _list({"from": _TEXT, "value": _TEXT})}
        case "dpo":
            return _DPO
        case "kto":
            return {"prompt": _TEXT, "completion": _TEXT, "label": pa.bool_()}
        case _:
            if len(criteria) > MOST_CRITERIA:
                raise UsageError(
                    f"the judge names {len(criteria):,} criteria, too many for columns of Parquet; "
                    "take --jsonl, or the format trl, where they stand in a list"
                )
            scores = pa.struct(dict.fromkeys(criteria, pa.struct(_SCORE)))
            scored = {"chosen_scores": scores, "rejected_scores": scores} | _TOTALS
            return _TOPICS | _DPO | scored | _judges(config)


def _judges(config: Config) -> dict[str, pa.DataType]:
    """The columns of `judges_of`."""
    if not tells_judges(config):
        return {}
    said = {
        "judge": _TEXT,
        "model": _TEXT,
        "prefers": _TEXT,
        "chosen": pa.float64(),
        "rejected": pa.float64(),
    }
    flipped = {"flipped": pa.int64()} if config.judging.mode == "pairwise" else {}
    return {"judges": _list(said), "agreement": pa.float64()} | flipped


def _list(fields: dict[str, pa.DataType]) -> pa.DataType:
    return pa.list_(pa.struct(fields))

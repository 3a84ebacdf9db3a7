"""An export written: the pairs of a spool as the files of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

from tasks.core.errors import SessionError, UsageError
from tasks.core.export.rows import Rows, configurations_of
from tasks.core.export.shards import Bounds, JsonLines, Shards
from tasks.core.export.splits import mixed
from tasks.core.export.written import KTO, TEST, TRAIN, Exported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tasks.core.config.models import Config, FileType, OutputFormat, Reasoning
    from tasks.core.export.shards import Shard
    from tasks.core.export.spool import Spool
    from tasks.core.formats import Row

DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported, and as what.

    Attributes:
        config: The dataset's settings; their mode is that of the rows.
        output_format: The form of the rows.
        file_type: The form of the files.
        reasoning: Where the reasoning of answers goes.
        test_share: Share of the pairs that is for testing, by whole subtopics.
        seed: Decides which subtopics these are, and how kto rows are mixed.
    """

    config: Config
    output_format: OutputFormat
    file_type: FileType
    reasoning: Reasoning
    test_share: float
    seed: int

    @classmethod
    def by_settings(cls, config: Config, output_format: OutputFormat) -> Wanted:
        """What the settings themselves say."""
        output = config.output
        reasoning = output.reasoning
        return cls(config, output_format, output.file_type, reasoning, output.test_share, output.split_seed)

    def check(self) -> None:
        """Nothing, where such rows can be.

        Raises:
            UsageError: Native rows have no place for `reasoning_content`.
        """
        if self.output_format == "native" and self.reasoning == "reasoning_content":
            raise UsageError(
                "native rows have no field for the reasoning: take --reasoning inline, or --format trl"
            )


def write_export(spool: Spool, wanted: Wanted, folder: Path, bounds: Bounds = DEFAULT_BOUNDS) -> Exported:
    """Write pairs as the files of a dataset, one row group after the other, into an empty folder.

    The same pairs give the same files, byte for byte, in whatever order they came.

    Args:
        spool: The pairs.
        wanted: What they are written as.
        folder: The folder, which is there.
        bounds: How large files and row groups may be.

    Raises:
        UsageError: Such rows cannot be.
        SessionError: The files cannot be written.
    """
    wanted.check()
    test = spool.subtopics.test(wanted.test_share, wanted.seed)
    splits: dict[str, list[int]] = {TRAIN: [], TEST: []}
    for job, mark in spool.jobs():
        splits[TEST if mark in test else TRAIN].append(job)
    rows = Rows(wanted.config, wanted.reasoning)
    files = []
    try:
        for configuration in configurations_of(wanted.output_format, wanted.config.generation.dataset_mode):
            begin = _beginner(spool, wanted, configuration, bounds)
            for split, jobs in splits.items():
                shards = Shards(
                    folder,
                    configuration=configuration,
                    split=split,
                    file_type=wanted.file_type,
                    begin=begin,
                    most_bytes=bounds.shard_bytes,
                )
                try:
                    for row, size in _rows_of(rows, configuration, spool, jobs, wanted.seed):
                        shards.add(row, size)
                    files += shards.finish()
                finally:
                    shards.abandon()
    except OSError as error:
        raise SessionError(f"the export cannot be written to {folder}: {error.strerror or error}") from error
    return Exported(folder, tuple(files))


def _beginner(
    spool: Spool, wanted: Wanted, configuration: str, bounds: Bounds
) -> Callable[[IO[bytes]], Shard]:
    if wanted.file_type == "jsonl":
        return JsonLines
    # Imported here: they bring pyarrow, which JSON lines do without.
    from tasks.core.export.parquet import ParquetFile  # noqa: PLC0415
    from tasks.core.export.schemas import schema_of  # noqa: PLC0415

    generation = wanted.config.generation
    schema = schema_of(configuration, generation, wanted.reasoning, spool.criteria)
    return partial(ParquetFile, schema=schema, bounds=bounds)


def _rows_of(
    rows: Rows, configuration: str, spool: Spool, jobs: Sequence[int], seed: int
) -> Iterator[tuple[Row, int]]:
    """The rows of some jobs, in their order, each with about the bytes of its texts."""
    if configuration == KTO:
        for job, label in mixed(jobs, seed):
            chosen, rejected = rows.of(configuration, spool.pair(job))
            yield (chosen if label else rejected), spool.size_of(job)
        return
    for job in jobs:
        for row in rows.of(configuration, spool.pair(job)):
            yield row, spool.size_of(job)

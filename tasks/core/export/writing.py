"""The files of an export: pairs wait on the disk, are read in any order, and are written below one folder."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self

import orjson

from tasks.core.errors import SessionError, UsageError
from tasks.core.export.rows import (
    KTO,
    NATIVE,
    TEST,
    TRAIN,
    Exported,
    Rows,
    configurations_of,
)
from tasks.core.export.shards import Bounds, JsonLinesFile, SplitFiles, Subtopics, mixed
from tasks.core.models import Candidate, GivenJob, Job, Opinion, Pair, Score, Scores, Text
from tasks.core.rows.formats import HISTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from tasks.core.config.settings import Config, FileType, Reasoning
    from tasks.core.export.rows import ExportFormat
    from tasks.core.export.shards import RowFile
    from tasks.core.rows.formats import Row


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
    output_format: ExportFormat
    file_type: FileType
    reasoning: Reasoning
    test_share: float
    seed: int

    @classmethod
    def by_settings(cls, config: Config, output_format: ExportFormat) -> Wanted:
        """What the settings themselves say."""
        output = config.output
        reasoning = output.reasoning
        return cls(config, output_format, output.file_type, reasoning, output.test_share, output.split_seed)

    def check(self) -> None:
        """Nothing, where such rows can be.

        Raises:
            UsageError: Native rows have no place for `reasoning_content`.
        """
        if self.output_format == NATIVE and self.reasoning == "reasoning_content":
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
                shards = SplitFiles(
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
) -> Callable[[IO[bytes]], RowFile]:
    if wanted.file_type == "jsonl":
        return JsonLinesFile
    # Imported here: they bring pyarrow, which JSON lines do without.
    from tasks.core.export.parquet import ParquetFile, schema_of  # noqa: PLC0415

    schema = schema_of(configuration, wanted.config, wanted.reasoning, spool.criteria, spool.kept)
    as_text = [name for name, its_type in spool.kept.items() if its_type == "json"]
    return partial(ParquetFile, schema=schema, bounds=bounds, as_text=as_text)


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


class Spool:
    """Pairs in a file without a name, which is gone with the process; in memory some hundred bytes of each.

    Attributes:
        subtopics: What a split has to keep together.
    """

    def __init__(self, folder: Path, *, with_candidates: bool = False) -> None:
        """Begin an empty one.

        Args:
            folder: The folder whose disk holds the pairs.
            with_candidates: Whether it holds all answers that a pair was chosen of.

        Raises:
            SessionError: No file can be made there.
        """
        self.subtopics = Subtopics()
        self._folder = folder
        self._with_candidates = with_candidates
        self._criteria: set[str] = set()
        self._kept: dict[str, str] = {}
        self._has_history = False
        self._marks: dict[int, str] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._size = 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".pairs.")  # noqa: SIM115 - see `close`
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria of all scores; sorted, for pairs come in no set order."""
        return tuple(sorted(self._criteria))

    @property
    def kept(self) -> dict[str, str]:
        """The further columns of the rows, each with the type of its values: see `type_of`."""
        return self._kept | ({HISTORY: HISTORY} if self._has_history else {})

    def add(self, pair: Pair) -> None:
        """Take a pair; of a job that is there already the first one counts.

        Raises:
            SessionError: The disk is full, or fails.
        """
        job = pair.job
        if job.id in self._places:
            return
        lean = pair if self._with_candidates or not pair.candidates else replace(pair, candidates=())
        packed = orjson.dumps(lean)
        try:
            # A write that failed, or a pair that was read, may have left it elsewhere.
            self._file.seek(self._size)
            self._file.write(packed)
        except OSError as error:
            raise self._failed(error) from error
        self._places[job.id] = (self._size, len(packed))
        self._size += len(packed)
        self._marks[job.id] = self.subtopics.add(job)
        for scores in (pair.chosen_scores, pair.rejected_scores):
            self._criteria.update(scores.criteria if scores else ())
        if isinstance(job, GivenJob):
            self._has_history = self._has_history or bool(job.history or job.system)
            for name, value in job.kept.items():
                self._kept[name] = type_of(value, self._kept.get(name, ""))

    def jobs(self) -> list[tuple[int, str]]:
        """The id of each job, ascending, with the mark of its subtopic."""
        return [(job, self._marks[job]) for job in sorted(self._places)]

    def size_of(self, job: int) -> int:
        """Bytes of a job's pair as it lies on the disk: about those of its texts."""
        return self._places[job][1]

    def pair(self, job: int) -> Pair:
        """The pair of a job.

        Raises:
            SessionError: The disk fails.
        """
        start, length = self._places[job]
        try:
            self._file.seek(start)
            return _unpacked(self._file.read(length))
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let the file go; a second time changes nothing."""
        self._file.close()

    def _failed(self, error: OSError) -> SessionError:
        return SessionError(
            f"pairs for the export cannot be kept in {self._folder}: {error.strerror}; every answer is in "
            "the ledger, so do it again when there is room"
        )


def _unpacked(packed: bytes) -> Pair:
    document = orjson.loads(packed)
    rejected = document["rejected"]
    pair = Pair(
        _job(document["job"]),
        Text(**document["chosen"]),
        None if rejected is None else Text(**rejected),
        _scores(document["chosen_scores"]),
        _scores(document["rejected_scores"]),
        comparisons=tuple(Opinion(**item) for item in document["comparisons"]),
        candidates=tuple(map(_candidate, document["candidates"])),
    )
    # By their texts, both sides are told from candidates that are not taken.
    chosen = next((item.text for item in pair.candidates if item.text == pair.chosen), pair.chosen)
    of_others = (item.text for item in pair.candidates if item.text is not chosen)
    other = next((text for text in of_others if text == pair.rejected), pair.rejected)
    return replace(pair, chosen=chosen, rejected=other)


def _candidate(document: dict[str, Any]) -> Candidate:
    text, scores = Text(**document["text"]), _scores(document["scores"])
    return Candidate(document["model"], document["number"], text, scores, document["is_fit"])


def _job(document: dict[str, Any]) -> Job:
    if "kept" not in document:
        return Job(**document)
    return GivenJob(**document | {"history": tuple(map(tuple, document["history"]))})


def type_of(value: object, before: str = "") -> str:
    """The type of a column's values, as far as they are known: text, bool, int, large, float or json.

    Args:
        value: The next of them; None is of every type. A large one is a whole number that no float can be.
        before: The type of those before; "" where nothing but None was there.
    """
    if value is None:
        return before
    its_own = _TYPES.get(type(value), "json")
    if isinstance(value, int) and its_own == "int" and abs(value) > _EXACT:
        its_own = "large"
    if before in {"", its_own}:
        return its_own
    return _BOTH.get(frozenset({before, its_own}), "json")


_TYPES = {str: "text", bool: "bool", int: "int", float: "float"}
_BOTH = {frozenset({"int", "float"}): "float", frozenset({"int", "large"}): "large"}
_EXACT = 1 << 53


def _scores(document: dict[str, Any] | None) -> Scores | None:
    if document is None:
        return None
    criteria = {name: Score(**score) for name, score in document["criteria"].items()}
    return Scores(criteria, tuple((judge, total) for judge, total in document["judges"]))

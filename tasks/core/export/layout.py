"""What an export has written: a folder, and its files as they lie below it.

The layout is that of a dataset repository, `data/<configuration>/<split>-00000-of-00001.parquet`, so that
a folder can be uploaded as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tasks.core.config.settings import FileType


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

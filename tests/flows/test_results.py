"""The results of tasks, which several runs may share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WRITES = 500


def test_who_reads_a_result_that_another_run_writes_reads_a_whole_one(tmp_path: Path) -> None:
    # Every worker reads this file, and one of them runs it: Prefect is not imported before.
    from prefect.filesystems import LocalFileSystem  # noqa: PLC0415

    from tasks.options import _replace  # noqa: PLC0415

    storage, contents = LocalFileSystem(basepath=str(tmp_path)), [b"a" * 10_000, b"b" * 20_000]

    def write(number: int) -> None:
        for _ in range(WRITES):
            _replace(storage, "key", contents[number])

    write(0)
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        while not all(writer.done() for writer in writers):
            assert (tmp_path / "key").read_bytes() in contents
        for writer in writers:
            writer.result()
    assert [path.name for path in tmp_path.iterdir()] == ["key"]

"""The command `vellumforge2 export`: a finished session's dataset in any format, from its ledger."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from flows.place import Place
    from tasks.core.config.models import FileType
    from tasks.core.export.written import Exported
    from tasks.core.session.exporting import ExportOrder

# Said once more, for the settings' own types bring the whole configuration with them; a test compares them.
Format = Literal["native", "trl"]
Mode = Literal["sft", "dpo", "kto", "mo-dpo"]
Reasoning = Literal["none", "inline", "reasoning_content"]


def export(
    session: str,
    /,
    *,
    output_format: Annotated[Format, Parameter(name="--format")],
    mode: Mode | None = None,
    parquet: bool = False,
    jsonl: bool = False,
    reasoning: Reasoning | None = None,
    test_share: float | None = None,
    seed: int | None = None,
    into: Path | None = None,
    partial: bool = False,
    json: bool = False,
    config: str | None = None,
    output: str | None = None,
) -> int:
    """Write a finished session's dataset as files for trainers. Nothing is asked and nothing paid for.

    What is left out is as the session's own [output] has it.

    Args:
        session: The session's name, as the list shows it.
        output_format: trl, which TRL's trainers take as it is; or native, the session's own rows.
        mode: The mode of the rows, in place of the session's own: of mo-dpo also dpo, kto and sft.
        parquet: Write Parquet.
        jsonl: Write JSON lines.
        reasoning: The models' reasoning: none, inline in think tags before the answer, or reasoning_content,
            a field of its own in the answer's message.
        test_share: Share of the pairs, 0 to 1, for a test split of whole subtopics.
        seed: Another number chooses other subtopics for it, and mixes kto otherwise.
        into: A folder for it that is not there yet; one in the session's own folder when left out.
        partial: Export what there is of a session that is not finished.
        json: Print one JSON object.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    # Imported here: help is there at once.
    import asyncio  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    from flows.place import Place  # noqa: PLC0415
    from tasks.core.config.values import MOST  # noqa: PLC0415
    from tasks.core.errors import UsageError  # noqa: PLC0415
    from tasks.core.session.exporting import ExportOrder  # noqa: PLC0415

    if parquet and jsonl:
        raise UsageError("one file type at a time: leave out --parquet or --jsonl")
    if test_share is not None and not 0 <= test_share <= 1:
        raise UsageError(f"--test-share {test_share}: allowed: 0 to 1")
    if seed is not None and not 0 <= seed <= MOST:
        raise UsageError(f"--seed {seed}: allowed: 0 to {MOST}")
    order = ExportOrder(
        output_format, mode, _file_type(parquet, jsonl), reasoning, test_share, seed, into, partial=partial
    )
    exported = asyncio.run(_export(Place(config, output), session, order))
    if json:
        document = {"session": session, "folder": str(exported.folder), "files": exported.files}
        print(orjson.dumps(document).decode())  # noqa: T201 - the command's output
    else:
        print("\n".join(_lines(exported)))  # noqa: T201 - the same
    return 0


def _file_type(parquet: bool, jsonl: bool) -> FileType | None:  # noqa: FBT001 - as they were given
    if parquet:
        return "parquet"
    return "jsonl" if jsonl else None


async def _export(place: Place, session: str, order: ExportOrder) -> Exported:
    from tasks.core.session.exporting import export_dataset  # noqa: PLC0415 - help is there at once
    from tasks.core.session.find import find_session  # noqa: PLC0415 - the same

    folder = find_session(place.folder, session)
    async with place.ledger() as ledger:
        return await export_dataset(folder, ledger, order)


def _lines(exported: Exported) -> list[str]:
    width = max(len(file.path) for file in exported.files)
    return [
        f"{exported.folder}:",
        *(f"  {file.path:<{width}}  {file.rows:>9,} rows  {file.size:>13,} bytes" for file in exported.files),
    ]

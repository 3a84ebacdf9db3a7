"""The commands over a finished dataset: `vellumforge2 lint`, `report` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.workspace import Workspace
    from tasks.core.config.settings import FileType
    from tasks.core.export.layout import Exported
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.lint.report import Report
    from tasks.core.models import Job, Pair
    from tasks.core.session.exporting import ExportRequest


DATASET = "dataset.jsonl"


def lint(
    dataset: str,
    /,
    *,
    json: bool = False,
    fail_on: Annotated[tuple[str, ...], Parameter(name="--fail-on")] = (),
    max_tokens: int | None = None,
    config: str | None = None,
    output: str | None = None,
) -> int:
    """Look for what is wrong with a dataset: equal sides, length bias, refusals, broken-off answers and more.

    Exit code 1: more was found than --fail-on allows. Exit code 2: some lines are no rows.

    Args:
        dataset: A session's name, as the list shows it, or a file of rows of any mode.
        json: Print one JSON object.
        fail_on: CHECK or CHECK=SHARE, e.g. identical,markup=0.1; may be given several times. More than this
            share of what the check looks at, or any finding where no share is given, is exit code 1.
        max_tokens: Tokens, by estimate, that a prompt with one answer may have.
        config: The configuration file that names the output folder; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    # Imported here: help is there at once.
    import orjson  # noqa: PLC0415

    from tasks.core.errors import UsageError  # noqa: PLC0415
    from tasks.core.lint.gates import check_gates, read_gates  # noqa: PLC0415
    from tasks.core.lint.linter import lint_file  # noqa: PLC0415

    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"--max-tokens {max_tokens}: a row has at least one token")
    gates = read_gates(fail_on, max_tokens=max_tokens)
    path = _file(dataset, config, output)
    report = lint_file(path, max_tokens=max_tokens)
    if not report.rows and not report.bad_lines:
        raise UsageError(f"{path} holds no rows")
    if json:
        print(orjson.dumps({"file": str(path), **report.document()}).decode())  # noqa: T201 - the output
    elif report.rows:
        print("\n".join([str(path), *report.lines()]))  # noqa: T201 - the same
    if report.bad_lines:
        raise UsageError("\n".join(_bad_lines(path, report)))
    check_gates(report, gates)
    return 0


def _file(dataset: str, config: str | None, output: str | None) -> Path:
    """The file that is meant: what is named like a session is one, unless there is a file of that name.

    Raises:
        UsageError: There is no such file or session.
    """
    from flows.workspace import Workspace  # noqa: PLC0415 - help is there at once
    from tasks.core.errors import UsageError  # noqa: PLC0415 - the same
    from tasks.core.session.folder import PREFIX, find_session  # noqa: PLC0415 - the same

    path = Path(dataset)
    if path.is_file():
        return path
    if dataset.startswith(PREFIX) and path.name == dataset and path.suffix != ".jsonl":
        path = find_session(Workspace(config, output).folder, dataset)
    file = path / DATASET if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}: give a session's name or a file of rows")
    return file


def _bad_lines(path: Path, report: Report) -> list[str]:
    lines = [f"{path}:{bad.line}: {bad.reason}" for bad in report.first_bad_lines]
    more = report.bad_lines - len(lines)
    return [*lines, f"and {more:,} more lines that are no rows"] if more else lines


MOST_FAILURES = 1_000_000


def report(session: str, /, *, config: str | None = None, output: str | None = None) -> int:
    """Write the session's report.html: a page about its rows, its cost and what lint found. It asks no model.

    Args:
        session: The session's name, as the list shows it.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    # Imported here: help is there at once.
    import asyncio  # noqa: PLC0415

    from flows.workspace import Workspace  # noqa: PLC0415

    print(asyncio.run(_write(Workspace(config, output), session)))  # noqa: T201 - the command's output
    return 0


async def _write(place: Workspace, session: str) -> Path:
    """Write the report of a session from its files and the ledger.

    Raises:
        UsageError: There is no such session, no ledger, no record of the session, or no dataset.
        LedgerError: The ledger cannot be read.
        SessionError: The report cannot be written.
    """
    from collections import Counter  # noqa: PLC0415 - help is there at once

    from tasks.core.errors import UsageError  # noqa: PLC0415 - the same
    from tasks.core.report.page import write_report  # noqa: PLC0415 - the same
    from tasks.core.report.tally import facts_of  # noqa: PLC0415 - the same
    from tasks.core.session.folder import find_session  # noqa: PLC0415 - the same
    from tasks.core.session.record import restore_record  # noqa: PLC0415 - the same
    from tasks.core.session.resuming import find_resumption, survey_session  # noqa: PLC0415 - the same

    folder = find_session(place.folder, session)
    async with place.ledger() as ledger:
        await restore_record(folder, ledger)
        found = find_resumption(folder)
        if found.foreign or found.before is None:
            raise UsageError(
                f"session {session} is VellumForge2's; resume it first, then its report is there"
            )
        done: set[int] = set()

        def note(job: Job, _pair: Pair | None) -> None:
            done.add(job.id)

        walked = await survey_session(found.record, found.before, ledger, note)
        facts = await facts_of(
            ledger,
            found.record,
            folder.name,
            found.before,
            subtopics=walked.subtopics,
            jobs=walked.jobs,
            dropped=walked.dropped,
            lost=dict(Counter(walked.lost.values()).most_common()),
            failed=await _failed(ledger, found.record.id, walked.jobs, done),
        )
    return write_report(folder, facts)


async def _failed(ledger: Ledger, session: str, jobs: Iterable[Job], done: set[int]) -> dict[str, int]:
    """Why jobs are not done, by the cause that was listed last."""
    from collections import Counter  # noqa: PLC0415 - help is there at once

    from tasks.core.ledger.failures import last_failures  # noqa: PLC0415 - the same

    left = {f"job {job.id}": "not asked yet" for job in jobs if job.id not in done}
    for failure in await last_failures(ledger, session, 0.0, MOST_FAILURES) if left else ():
        if failure.item in left:
            left[failure.item] = failure.cause
    return dict(Counter(left.values()).most_common())


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

    from flows.workspace import Workspace  # noqa: PLC0415
    from tasks.core.config.values import MOST  # noqa: PLC0415
    from tasks.core.errors import UsageError  # noqa: PLC0415
    from tasks.core.session.exporting import ExportRequest  # noqa: PLC0415

    if parquet and jsonl:
        raise UsageError("one file type at a time: leave out --parquet or --jsonl")
    if test_share is not None and not 0 <= test_share <= 1:
        raise UsageError(f"--test-share {test_share}: allowed: 0 to 1")
    if seed is not None and not 0 <= seed <= MOST:
        raise UsageError(f"--seed {seed}: allowed: 0 to {MOST}")
    request = ExportRequest(
        output_format, mode, _file_type(parquet, jsonl), reasoning, test_share, seed, into, partial=partial
    )
    exported = asyncio.run(_export(Workspace(config, output), session, request))
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


async def _export(place: Workspace, session: str, request: ExportRequest) -> Exported:
    from tasks.core.session.exporting import export_dataset  # noqa: PLC0415 - help is there at once
    from tasks.core.session.folder import find_session  # noqa: PLC0415 - the same

    folder = find_session(place.folder, session)
    async with place.ledger() as ledger:
        return await export_dataset(folder, ledger, request)


def _lines(exported: Exported) -> list[str]:
    width = max(len(file.path) for file in exported.files)
    return [
        f"{exported.folder}:",
        *(f"  {file.path:<{width}}  {file.rows:>9,} rows  {file.size:>13,} bytes" for file in exported.files),
    ]

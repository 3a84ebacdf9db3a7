"""The command `vellumforge2 lint`: what a dataset should be looked at for before anybody trains on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from tasks.core.lint.report import Report

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
    from flows.place import Place  # noqa: PLC0415 - help is there at once
    from tasks.core.errors import UsageError  # noqa: PLC0415 - the same
    from tasks.core.session.find import find_session  # noqa: PLC0415 - the same
    from tasks.core.session.folder import PREFIX  # noqa: PLC0415 - the same

    path = Path(dataset)
    if path.is_file():
        return path
    if dataset.startswith(PREFIX) and path.name == dataset and path.suffix != ".jsonl":
        path = find_session(Place(config, output).folder, dataset)
    file = path / DATASET if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}: give a session's name or a file of rows")
    return file


def _bad_lines(path: Path, report: Report) -> list[str]:
    lines = [f"{path}:{bad.line}: {bad.reason}" for bad in report.first_bad_lines]
    more = report.bad_lines - len(lines)
    return [*lines, f"and {more:,} more lines that are no rows"] if more else lines

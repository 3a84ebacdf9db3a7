"""The commands `vellumforge2 ledger …`: is the ledger whole, what can be saved, what is used by nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations

from cyclopts import App

app: App = App(name="ledger", help="Look after the ledger of paid answers: check, salvage, prune.")


@app.command
def check(*, config: str | None = None, output: str | None = None) -> int:
    """Read the whole ledger and every answer in it; exit code 1 when anything is damaged.

    Args:
        config: The configuration file that names the ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.workspace import Workspace  # noqa: PLC0415 - help is there at once
    from tasks.core.ledger.care import check_ledger  # noqa: PLC0415 - the same

    path = Workspace(config, output).ledger_file
    health = check_ledger(path)
    for problem in health.problems:
        _print(f"{path}: {problem}")
    if health.sound:
        _print(f"{path} is sound: {health.calls:,} answers")
        return 0
    _print(
        f"{path}: {health.calls:,} answers can be read, {health.damaged:,} cannot; "
        "`vellumforge2 ledger salvage --into NEW` copies what can be saved"
    )
    return 1


@app.command
def salvage(*, into: Path, config: str | None = None, output: str | None = None) -> int:
    """Copy all that can still be read into a new ledger; the damaged one stays as it is.

    Args:
        into: The new file.
        config: The configuration file that names the ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.workspace import Workspace  # noqa: PLC0415 - help is there at once
    from tasks.core.ledger.care import salvage_ledger  # noqa: PLC0415 - the same

    path = Workspace(config, output).ledger_file
    saved = salvage_ledger(path, into)
    _print(f"{into}: {saved.saved.get('calls', 0):,} answers saved, {saved.damaged:,} lost")
    _print(f"to use it, put it in the place of {path}, or set output.ledger")
    return 0


@app.command
def prune(*, dry_run: bool = False, config: str | None = None, output: str | None = None) -> int:
    """Remove answers that no session in the output folder uses.

    Args:
        dry_run: Say how many there are, and remove nothing.
        config: The configuration file that names the ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.commands.sessions import prune_ledger  # noqa: PLC0415 - the same
    from flows.workspace import Workspace  # noqa: PLC0415 - help is there at once

    unused, total = asyncio.run(prune_ledger(Workspace(config, output), dry_run=dry_run))
    _print(f"{unused:,} of {total:,} answers are used by no session{'' if dry_run else ' and were removed'}")
    return 0


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the commands' output

"""The commands `vellumforge2 ledger …`: is the ledger whole, what can be saved, what is used by nobody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from flows.late import when_used
from flows.process.terminal import tell
from flows.request import HERE, AtLocation

if TYPE_CHECKING:
    from flows import workspace
    from flows.commands import sessions
    from tasks.core import files
    from tasks.core.ledger import care
else:
    workspace, sessions, care, files = when_used(
        "flows.workspace", "flows.commands.sessions", "tasks.core.ledger.care", "tasks.core.files"
    )

app: App = App(name="ledger", help="Look after the ledger of paid answers: check, salvage, prune.")


@app.command
def check(location: AtLocation = HERE) -> int:
    """Read the whole ledger and every answer in it; exit code 1 when anything is damaged."""
    path = workspace.Workspace(location).ledger_file
    health = care.check_ledger(path)
    for problem in health.problems:
        tell(f"{path}: {problem}")
    if health.sound:
        tell(f"{path} is sound: {health.calls:,} answers")
        return 0
    tell(
        f"{path}: {health.calls:,} answers can be read, {health.damaged:,} cannot; "
        "`vellumforge2 ledger salvage --into NEW` copies what can be saved"
    )
    return 1


@app.command
def salvage(location: AtLocation = HERE, *, into: Path) -> int:
    """Copy all that can still be read into a new ledger; the damaged one stays as it is.

    Args:
        into: The new file.
    """
    path = workspace.Workspace(location).ledger_file
    files.check_file(into)
    saved = care.salvage_ledger(path, into)
    tell(f"{into}: {saved.saved.get('calls', 0):,} answers saved, {saved.damaged:,} lost")
    tell(f"to use it, put it in the place of {path}, or set output.ledger")
    return 0


@app.command
def prune(location: AtLocation = HERE, *, dry_run: bool = False) -> int:
    """Remove answers that no session in the output folder uses; what a session at work may use stays.

    Args:
        dry_run: Say how many there are, and remove nothing.
    """
    return sessions.prune(location, dry_run=dry_run)

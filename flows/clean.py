"""The flow `clean`: old sessions removed by the rules of `vellumforge2 checkpoint clean`."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations
from prefect.logging import get_run_logger

from flows.pages.run_page import failed
from flows.workspace import Workspace
from tasks.core.errors import VellumforgeError
from tasks.core.session.listing import clean_sessions


@flow(name="clean", persist_result=False)
def clean(
    *,
    older_than: str = "",
    keep_last: int = 0,
    dry_run: bool = False,
    force: bool = False,
    config: str = "",
    output: str = "",
) -> dict[str, int] | State[Any]:
    """Remove old sessions from the output folder. What they paid for stays in the ledger.

    Args:
        older_than: Only sessions whose files did not change for so long: `45m`, `12h`, `30d`, `2w`; left out,
            any age, and then `keep_last` must be given.
        keep_last: So many of the newest sessions stay, whatever their age.
        dry_run: Only say in the log which sessions would be removed.
        force: Remove sessions that are not finished, too; never one that is being written to.
        config: Path of the configuration file, which names the output folder; left out, `config.toml` where
            there is one.
        output: The output folder, in place of the configuration's.

    Returns:
        How many sessions were removed and kept; in a dry run, would be.

    Raises:
        UsageError: The parameters or the configuration cannot be used; nothing was removed.
        SessionError: A folder cannot be read or removed.
    """
    log = get_run_logger()
    try:
        verdicts = clean_sessions(
            Workspace(config or None, output or None).folder,
            older_than=older_than,
            keep_last=keep_last,
            dry_run=dry_run,
            force=force,
        )
    except VellumforgeError as error:
        return failed(error)
    for verdict in verdicts:
        log.info(verdict.line(dry_run=dry_run))
    removed = sum(verdict.remove for verdict in verdicts)
    return {"removed": removed, "kept": len(verdicts) - removed}

"""The flow `clean`: old sessions removed by the rules of `vellumforge2 checkpoint clean`."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations
from prefect.logging import get_run_logger

from flows.pages.run_page import failed
from flows.request import CleanRequest, takes
from flows.workspace import Workspace
from tasks.core.errors import VellumforgeError
from tasks.core.session.listing import clean_sessions


@flow(name="clean", persist_result=False)
@takes(CleanRequest)
def clean(request: CleanRequest) -> dict[str, int] | State[Any]:
    """Remove finished sessions from the output folder; the ledger keeps all answers.

    Returns:
        How many sessions were removed and kept; in a dry run, would be.

    Raises:
        UsageError: The parameters or the configuration cannot be used; nothing was removed.
        SessionError: A folder cannot be read or removed.
    """
    log = get_run_logger()
    try:
        verdicts = clean_sessions(
            Workspace(request).folder,
            older_than=request.older_than,
            keep_last=request.keep_last,
            dry_run=request.dry_run,
            force=request.force,
        )
    except VellumforgeError as error:
        return failed(error)
    for verdict in verdicts:
        log.info(verdict.line(dry_run=request.dry_run))
    removed = sum(verdict.remove for verdict in verdicts)
    return {"removed": removed, "kept": len(verdicts) - removed}

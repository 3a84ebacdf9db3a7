"""A run or a transform in this process: what is asked for is checked once, then its flow is carried out.

The flows are imported late: they import Prefect, which reads its settings when it is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import hub
from flows.checking import check_run, check_transform
from flows.process.demo import DEMO_URL, demo_settings
from flows.process.run import Prepared, run_here, run_within
from flows.process.terminal import show_json, show_summary
from flows.setup import check_ledger
from tasks.core.errors import UsageError
from tasks.core.files import check_folder

if TYPE_CHECKING:
    from flows.checking import CheckedRequest
    from flows.process.console import Console
    from flows.request import RunRequest, TransformRequest


def generate_here(request: RunRequest, *, json: bool, verbose: bool) -> int:
    """Run the flow `generate` in this process, which is its own, and print its summary.

    Args:
        request: What is asked for.
        json: Whether the summary is printed as one JSON object.
        verbose: Whether log records of level INFO are shown.

    Returns:
        The exit code.

    Raises:
        VellumforgeError: What ended the run.
    """
    show = show_json if json else show_summary
    return run_here(request, prepare_run(request), _generate, show=show, verbose=verbose)


def transform_here(request: TransformRequest, *, json: bool, verbose: bool) -> int:
    """Run the flow `transform` in this process; as `generate_here`."""
    show = show_json if json else show_summary
    return run_here(request, prepare_transform(request), _transform, show=show, verbose=verbose)


async def generate_within(request: RunRequest) -> Console:
    """Run the flow `generate` in a process that is somebody else's; gives what the run left.

    Raises:
        VellumforgeError: What ended the run.
    """
    return await run_within(request, await prepare_run(request), _generate)


async def check_here(request: RunRequest) -> CheckedRequest:
    """Read and check what a run in this process is asked to do.

    Raises:
        UsageError: Something given cannot be used.
    """
    if request.demo and request.config:
        raise UsageError("the demo has its own configuration; leave out --demo or --config")
    if (request.repo or request.public) and not request.upload_to_hf:
        raise UsageError("--repo and --public are for --upload-to-hf, which is not given")
    settings = demo_settings(DEMO_URL, request.settings) if request.demo else None
    return await check_run(request, settings)


async def prepare_run(request: RunRequest) -> Prepared:
    """Check what a run in this process is asked to do, before anything is created for it.

    Raises:
        UsageError: Something given cannot be used, or there is no token for the upload.
    """
    checked = await check_here(request)
    check_folder(Path(checked.config.output.folder), writes=True)
    await check_ledger(checked)
    upload = hub.at_the_end(request, checked.config) if request.upload_to_hf else None
    # The demo's settings are made anew: they hold the address of a server that does not run yet.
    return Prepared(checked.config.output.folder, None if request.demo else checked, upload)


async def prepare_transform(request: TransformRequest) -> Prepared:
    """Check what a transform is asked to do, before anything is created for it; this reads the input once.

    Raises:
        UsageError: Something given cannot be used.
    """
    checked = await check_transform(request)
    check_folder(Path(checked.config.output.folder), writes=True)
    return Prepared(checked.config.output.folder, checked)


def _generate() -> Any:
    from flows.generate import generate  # noqa: PLC0415 - Prefect finds its settings made

    return generate


def _transform() -> Any:
    from flows.transform import transform  # noqa: PLC0415 - the same

    return transform

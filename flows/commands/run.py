"""The commands that run a flow in this process, or say what it would bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.late import when_used
from flows.request import (
    AS_BEGUN,
    AS_CONFIGURED,
    FIELDS,
    AtLocated,
    AtResume,
    DryRun,
    FlowRequest,
    Json,
    LocatedRequest,
    RunRequest,
    Session,
    TransformRequest,
    Verbose,
)

if TYPE_CHECKING:
    from flows import hosting
    from flows.commands import estimate as estimating
    from flows.commands import validate as validating
else:
    hosting, estimating, validating = when_used(
        "flows.hosting", "flows.commands.estimate", "flows.commands.validate"
    )

NEW = RunRequest()


def run(
    request: Annotated[RunRequest, FIELDS] = NEW,
    *,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Generate a dataset.

    Run it again with the same configuration and everything that was paid for is used again.
    """
    if dry_run:
        return estimating.estimate_here(request, json=json)
    return hosting.generate_here(request, json=json, verbose=verbose)


def estimate(request: AtLocated = AS_CONFIGURED, *, json: Json = False) -> int:
    """Say what a run would cost: calls in the ledger, calls to pay for, tokens and money. Nothing is made."""
    return estimating.estimate_here(RunRequest(**vars(request)), json=json)


def preview(
    request: AtLocated = AS_CONFIGURED,
    *,
    number: Annotated[int, Parameter(name=("--number", "-n"))] = 5,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Generate a few pairs and show them, with what the whole run would cost. It pays for none of them again.

    Args:
        number: How many pairs.
    """
    return estimating.preview_here(FlowRequest(**vars(request)), number, json=json, verbose=verbose)


def validate(request: AtLocated = AS_CONFIGURED, *, ping: bool = False, json: Json = False) -> int:
    """Check the configuration, and show the requests that it makes, with sample values. Nothing is made.

    Args:
        ping: Ask each model up to three tiny questions, which cost a few tokens: does it answer, stream,
            keep to a JSON schema, and what does it say about its limits. Exit code 3: one does not answer.
    """
    return validating.validate_here(FlowRequest(**vars(request)), ping=ping, json=json)


def resume(
    session: Session, /, request: AtResume = AS_BEGUN, *, json: Json = False, verbose: Verbose = False
) -> int:
    """Go on with a session, in its own folder; only what is missing is paid for.

    Where there is no configuration file, the settings that it began with hold.
    """
    return hosting.generate_here(_of_session(request, session), json=json, verbose=verbose)


def retry(
    session: Session,
    /,
    request: AtResume = AS_BEGUN,
    *,
    only: tuple[str, ...] = (),
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Go on with a session, and ask again for all of what failed or for some of it.

    In place of answers that cannot be used, further ones are asked for, as many as max_retries allows and at
    least one. The command failures says what there is; what --only does not name stays missing. Where there
    is no configuration file, the settings that the session began with hold; --set models.main.max_retries=5
    allows more tries of answers that cannot be used.

    Args:
        only: What is asked again, as cause=NAME, phase=NAME or purpose=NAME, e.g. cause=timeout; may be given
            several times: of one key, any holds, and of several, all. Left out, all that is missing is
            asked for, as checkpoint resume does; where those are only answers that cannot be used, further
            ones.
    """
    return hosting.generate_here(
        _of_session(request, session, only=only, further=True), json=json, verbose=verbose
    )


def _of_session(request: LocatedRequest, session: str, **more: Any) -> RunRequest:
    return RunRequest(**vars(request), resume=session, **more)


def transform(
    request: Annotated[TransformRequest, FIELDS],
    *,
    dry_run: DryRun = False,
    checkpoint: str = "",
    resume: bool = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Make a dataset into another one: new rejected or chosen answers, new scores, reasoning.

    Run the same again after whatever stopped it: what was paid for is in the ledger.

    Args:
        checkpoint: For VellumForge2's command lines; nothing is written there, the ledger knows more.
        resume: For VellumForge2's command lines; every transform goes on where it was.
    """
    del checkpoint, resume
    if dry_run:
        return estimating.estimate_transform_here(request, json=json)
    return hosting.transform_here(request, json=json, verbose=verbose)

"""The commands that run the flow in this process: `run`, `checkpoint resume` and `retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.overrides import read_override
from flows.process.terminal import show_json, show_summary

if TYPE_CHECKING:
    from flows.request import RunRequest


def generate_here(request: RunRequest, *, json: bool, verbose: bool) -> int:
    """Run the flow `generate` in this process.

    Args:
        request: What is asked for.
        json: Whether the summary is printed as one JSON object.
        verbose: Whether log records of level INFO are shown.

    Returns:
        The exit code.
    """
    from flows.process.run import run_here  # noqa: PLC0415 - it brings the whole pipeline with it

    return run_here(request, _generate, show=show_json if json else show_summary, verbose=verbose)


def _generate() -> Any:
    from flows.generate import generate  # noqa: PLC0415 - Prefect finds its settings made

    return generate


def retry(
    session: str,
    /,
    *,
    only: tuple[str, ...] = (),
    config: str | None = None,
    env_file: str | None = None,
    accept_changes: bool = False,
    output: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    json: bool = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False,
) -> int:
    """Go on with a session, and ask again for all of what failed or for some of it.

    In place of answers that cannot be used, further ones are asked for, as many as max_retries allows and at
    least one. The command failures says what there is; what --only does not name stays missing.

    Args:
        session: The session's name, as the list shows it.
        only: What is asked again, as cause=NAME, phase=NAME or purpose=NAME, e.g. cause=timeout; may be given
            several times: of one key, any holds, and of several, all. Left out, all that is missing is
            asked for, as checkpoint resume does; where those are only answers that cannot be used, further
            ones.
        config: The configuration file; config.toml when left out, else the settings it began with.
        env_file: A file with API keys; without it, .env is read when there is one.
        accept_changes: Go on although settings differ that change the outcome.
        output: The output folder, in place of output.folder.
        settings: A setting as KEY=VALUE, e.g. models.main.max_retries=5 for further tries of answers that
            cannot be used; may be given several times.
        json: Print the summary as one JSON object.
        verbose: Show the log's records of level INFO.
    """
    from flows.request import RunRequest  # noqa: PLC0415 - it brings the whole pipeline with it

    overrides = dict(read_override(item) for item in settings)
    if output is not None:
        overrides["output.folder"] = output
    request = RunRequest(
        config, env_file, overrides, resume=session, accept_changes=accept_changes, only=only, further=True
    )
    return generate_here(request, json=json, verbose=verbose)

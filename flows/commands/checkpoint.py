"""The commands `vellumforge2 checkpoint …`.

The pipeline is imported inside the commands: help is there at once.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import Annotated

from cyclopts import App, Parameter

from flows.commands.run import generate_here
from flows.overrides import read_override

Settings = Annotated[tuple[str, ...], Parameter(name="--set")]
Verbose = Annotated[bool, Parameter(name=("--verbose", "-v"))]

app: App = App(
    name="checkpoint", help="Look after sessions: list, inspect, resume, compare, move, merge, remove."
)


@app.command(name="list")
def list_(*, config: str | None = None, output: str | None = None, json: bool = False) -> int:
    """List the sessions in the output folder, newest first.

    Args:
        config: The configuration file that names the output folder; config.toml when left out.
        output: The output folder, in place of output.folder.
        json: Print JSON.
    """
    from flows.commands import sessions  # noqa: PLC0415

    return sessions.list_all(config, output, json=json)


@app.command
def inspect(
    session: str, /, *, config: str | None = None, output: str | None = None, json: bool = False
) -> int:
    """Show a session in detail: its phases, its statistics, what it paid for, what failed.

    Args:
        session: The session's name, as the list shows it.
        config: The configuration file that names the output folder; config.toml when left out.
        output: The output folder, in place of output.folder.
        json: Print JSON.
    """
    from flows.commands import sessions  # noqa: PLC0415

    return sessions.inspect(session, config, output, json=json)


@app.command
def resume(
    session: str,
    /,
    *,
    config: str | None = None,
    env_file: str | None = None,
    accept_changes: bool = False,
    output: str | None = None,
    settings: Settings = (),
    json: bool = False,
    verbose: Verbose = False,
) -> int:
    """Go on with a session, in its own folder; only what is missing is paid for.

    Args:
        session: The session's name, as the list shows it.
        config: The configuration file; config.toml when left out, else the settings it began with.
        env_file: A file with API keys; without it, .env is read when there is one.
        accept_changes: Go on although settings differ that change the outcome.
        output: The output folder, in place of output.folder.
        settings: A setting as KEY=VALUE; may be given several times.
        json: Print the summary as one JSON object.
        verbose: Show the log's records of level INFO.
    """
    from flows.request import RunRequest  # noqa: PLC0415 - it brings the whole pipeline with it

    overrides = dict(read_override(item) for item in settings)
    if output is not None:
        overrides["output.folder"] = output
    request = RunRequest(config, env_file, overrides, resume=session, accept_changes=accept_changes)
    return generate_here(request, json=json, verbose=verbose)


@app.command
def merge(*sessions: str, into: str, config: str | None = None, output: str | None = None) -> int:
    """Make one session of several with the same topic and mode: their jobs, duplicate prompts dropped.

    The first one's settings hold. What any of them paid for is not paid for again; they stay as they are.

    Args:
        sessions: The sessions' names, at least two.
        into: The new session's name.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.commands import sessions as commands  # noqa: PLC0415

    return commands.merge(sessions, into, config, output)


@app.command
def clean(
    *,
    older_than: str | None = None,
    keep_last: int = 0,
    dry_run: bool = False,
    force: bool = False,
    config: str | None = None,
    output: str | None = None,
) -> int:
    """Remove finished sessions; answers stay in the ledger.

    Args:
        older_than: Only sessions untouched for so long, e.g. 30d, 12h, 2w.
        keep_last: Keep so many of the newest sessions.
        dry_run: Say what would be removed, and remove nothing.
        force: Remove sessions that are not finished, too.
        config: The configuration file that names the output folder; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.commands import sessions  # noqa: PLC0415

    return sessions.clean(
        config, output, older_than=older_than, keep_last=keep_last, dry_run=dry_run, force=force
    )


@app.command
def diff(
    session: str,
    other: str | None = None,
    /,
    *,
    config: str | None = None,
    output: str | None = None,
) -> int:
    """Compare two sessions, or a session with a configuration and what going over to it would cost.

    Args:
        session: A session's name.
        other: Another one; left out, the session is compared with the configuration.
        config: The configuration file; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.commands import sessions  # noqa: PLC0415

    return sessions.diff(session, other, config, output)


@app.command
def export(
    session: str, /, *, to: Path | None = None, config: str | None = None, output: str | None = None
) -> int:
    """Write a session and the calls that it uses into one file, to be resumed elsewhere.

    Args:
        session: The session's name.
        to: The file; <session>.vellumforge.zip when left out.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.commands import sessions  # noqa: PLC0415

    return sessions.export(session, to, config, output)


@app.command(name="import")
def import_(
    file: Path, /, *, name: str | None = None, config: str | None = None, output: str | None = None
) -> int:
    """Bring a session in from a file that `export` wrote; what it paid for is paid for here too.

    Args:
        file: The file.
        name: The session's name here; the one that it had when left out.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    from flows.commands import sessions  # noqa: PLC0415

    return sessions.import_(file, name, config, output)

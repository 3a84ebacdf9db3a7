"""The commands `vellumforge2 checkpoint …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from flows.commands.run import resume
from flows.late import when_used
from flows.request import AS_SET, FIELDS, HERE, AtLocation, AtSettings, CleanRequest, Json, Session

if TYPE_CHECKING:
    from flows.commands import sessions
else:
    (sessions,) = when_used("flows.commands.sessions")

NOTHING_NAMED = CleanRequest()

app: App = App(
    name="checkpoint", help="Look after sessions: list, inspect, resume, compare, move, merge, remove."
)

app.command(resume)


@app.command(name="list")
def list_(location: AtLocation = HERE, *, json: Json = False) -> int:
    """List the sessions in the output folder, newest first."""
    return sessions.list_all(location, json=json)


@app.command
def inspect(session: Session, /, location: AtLocation = HERE, *, json: Json = False) -> int:
    """Show a session in detail: its phases, its statistics, what it paid for, what failed."""
    return sessions.inspect(session, location, json=json)


@app.command
def merge(*names: Session, into: str, location: AtLocation = HERE) -> int:
    """Make one session of several with the same topic and mode: their jobs, duplicate prompts dropped.

    The first one's settings hold. What any of them paid for is not paid for again; they stay as they are.

    Args:
        into: The new session's name.
    """
    return sessions.merge(names, into, location)


@app.command
def clean(request: Annotated[CleanRequest, FIELDS] = NOTHING_NAMED) -> int:
    """Remove finished sessions; answers stay in the ledger."""
    return sessions.clean(request)


@app.command
def diff(session: Session, other: str = "", /, request: AtSettings = AS_SET) -> int:
    """Compare two sessions, or a session with a configuration and what going over to it would cost.

    --set and --prompts are taken as `run` takes them: what would they cost?

    Args:
        other: Another session; left out, the session is compared with the configuration.
    """
    return sessions.diff(session, other, request)


@app.command
def export(session: Session, /, location: AtLocation = HERE, *, to: Path | None = None) -> int:
    """Write a session and the calls that it uses into one file, to be resumed elsewhere.

    Args:
        to: The file; <session>.vellumforge.zip when left out.
    """
    return sessions.export(session, to, location)


@app.command(name="import")
def import_(file: Path, /, location: AtLocation = HERE, *, name: str = "") -> int:
    """Bring a session in from a file that `export` wrote; what it paid for is paid for here too.

    Args:
        file: The file.
        name: The session's name here; the one that it had when left out.
    """
    return sessions.import_(file, name, location)

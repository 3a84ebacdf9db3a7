"""A session's way to the Hugging Face Hub, for the command `upload` and for the end of a run.

`huggingface_hub` is imported where something is uploaded, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flows.checking import DEFAULT_ENV_FILE, refusal_of
from flows.late import when_used
from flows.process.console import stderr
from flows.process.terminal import DISTRIBUTION, PROGRAM
from flows.request import OUTPUT_FOLDER
from flows.workspace import Workspace
from tasks.core.config.load import given_settings
from tasks.core.errors import VellumforgeError
from tasks.core.secrets import Keys, read_env_file
from tasks.core.session.folder import find_session
from tasks.core.session.record import Order, read_record, settings_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from flows.process.run import AtTheEnd
    from flows.request import RunRequest
    from tasks.core.config.settings import Config
    from tasks.core.hub import card as cards
    from tasks.core.hub import upload as uploading
    from tasks.core.hub.card import CardFacts
    from tasks.core.hub.upload import Uploaded, UploadRequest
else:
    cards, uploading = when_used("tasks.core.hub.card", "tasks.core.hub.upload")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a dataset goes, and with what.

    Attributes:
        repo: The repository, as owner/name.
        token: The user's token for the Hub.
        public: Whether a repository that is made for it is for everybody to see.
        environ: The environment and the env file; what they hold of secrets is never shown.
    """

    repo: str
    token: SecretStr
    public: bool
    environ: dict[str, str] = field(repr=False)


def destination(repo: str, *, public: bool, env_file: str) -> Destination:
    """Where a dataset goes, as far as it can be said before anything is done for it.

    Raises:
        UsageError: There is no token, or no repository can have that name.
        ConfigError: The env file cannot be used.
    """
    variables = read_env_file(Path(env_file or DEFAULT_ENV_FILE), required=bool(env_file))
    token = uploading.check_target(repo, Keys(os.environ, variables).hub_token())
    return Destination(repo, token, public, {**variables, **os.environ})


def repository(place: Workspace, session: str, again: str, *, trusted: bool) -> str:
    """The repository that the configuration names, or where it names none, the session's own settings.

    Args:
        place: Where the session is, and the configuration.
        session: The session's name.
        again: The command that asks for the same with trust in the session.
        trusted: Whether the user trusts the session.

    Raises:
        UsageError: There is no such session; or it came from elsewhere, and is not trusted.
    """
    if place.config is not None and place.config.huggingface.repo_id:
        return place.config.huggingface.repo_id
    record = read_record(find_session(place.folder, session))
    before = None if record is None else settings_of(record)
    if record is None or before is None:
        return ""
    repo, key = before.huggingface.repo_id, "huggingface.repo_id"
    said_here = given_settings({}, os.environ).get(key) == repo
    if repo and record.from_elsewhere and not trusted and not said_here:
        raise refusal_of(session, [Order(tuple(key.split(".")), repo)], again)
    return repo


def send(place: Workspace, session: str, wanted: UploadRequest, to: Destination) -> Uploaded:
    """Export a session, write its card, and upload both.

    Args:
        place: Where the session and its ledger are.
        session: The session's name.
        wanted: What is uploaded.
        to: Where it goes.

    Raises:
        UsageError: There is no such session, or it cannot be exported so.
        HubError: The Hub did not take it.
        SessionError: The session cannot be read, or is being written.
        LedgerError: The ledger cannot be read.
    """
    folder = find_session(place.folder, session)
    with uploading.staging(folder) as stage:

        async def prepared() -> CardFacts:
            async with place.ledger() as ledger:
                return await uploading.prepare(
                    folder,
                    ledger,
                    stage,
                    wanted,
                    now=place.config,
                    version=version(DISTRIBUTION),
                    environ=to.environ,
                )

        tell(f"exporting {session} as Parquet")
        facts = asyncio.run(prepared())
        card = cards.render_card(facts)
        # Outside the loop, whose end would wait for a thread: Ctrl+C ends it at once.
        return uploading.upload(
            facts.exported, card, to.repo, to.token, public=to.public, environ=to.environ, tell=tell
        )


def at_the_end(request: RunRequest, config: Config) -> AtTheEnd:
    """What uploads the dataset of a run once it is complete; the session itself stays as it is.

    Args:
        request: What is asked for.
        config: The run's configuration.

    Raises:
        UsageError: There is no token, or no repository can have that name.
        ConfigError: The env file cannot be used.
    """
    to = destination(
        request.repo or config.huggingface.repo_id, public=request.public, env_file=request.env_file
    )
    place = Workspace(config=config)
    words = ["--repo", to.repo, *(["--public"] if to.public else [])]
    for option, value in (
        ("--license", request.overrides.get("huggingface.license")),
        ("--config", request.config),
        ("--env-file", request.env_file),
        ("--output", request.settings.get(OUTPUT_FOLDER)),
    ):
        words += [option, str(value)] if value else []

    def upload(session: str, error: VellumforgeError | None) -> VellumforgeError | None:
        again = shlex.join([PROGRAM, "upload", session, *words])
        if error is not None:
            if session:
                error.add_note(f"nothing was uploaded; once the session is complete: {again}")
            return error
        try:
            done = send(place, session, uploading.UploadRequest(to.repo, config.huggingface.license), to)
        except VellumforgeError as failed:
            failed.add_note(f"the dataset is complete in {place.folder / session}; to upload it: {again}")
            return failed
        tell(in_words(done))
        return None

    return upload


def in_words(done: Uploaded) -> str:
    """What the Hub has now, in a line."""
    what = f"{done.files} files" if done.changed else "nothing to change"
    removed = f", {done.removed} of an older export removed" if done.removed else ""
    return f"{done.url} ({'private' if done.private else 'public'}): {what}{removed}"


def tell(line: str) -> None:
    """Show people how far an upload is, on standard error."""
    stderr.print_line(line)

"""The command `vellumforge2 upload`: a finished session's dataset on the Hugging Face Hub, with a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.dataset import Format  # noqa: TC001 - cyclopts reads the annotations

if TYPE_CHECKING:
    from flows.workspace import Workspace


def upload(
    session: str,
    /,
    *,
    repo: str = "",
    public: bool = False,
    licence: Annotated[str | None, Parameter(name="--license")] = None,
    formats: Annotated[tuple[Format, ...], Parameter(name="--format")] = (),
    test_share: float | None = None,
    partial: bool = False,
    json: bool = False,
    config: str | None = None,
    env_file: str | None = None,
    output: str | None = None,
) -> int:
    """Upload a finished session's dataset to the Hugging Face Hub, with a card. Nothing is paid for.

    The repository is private unless --public. Run it again after an interruption: what is there already is
    not sent again.

    Args:
        session: The session's name, as the list shows it.
        repo: The dataset repository, as OWNER/NAME; huggingface.repo_id when left out.
        public: Make the repository for everybody to see. One that is there already stays as it is.
        licence: Its licence as the Hub names it; huggingface.license when left out, and none without that.
        formats: native or trl; may be given several times. As the session's own [output] when left out.
        test_share: Share of the pairs, 0 to 1, for a test split of whole subtopics.
        partial: Upload what there is of a session that is not finished.
        json: Print one JSON object.
        config: The configuration file that names output folder, ledger, repository and licence; config.toml
            when left out.
        env_file: A file with HF_TOKEN; without it, .env is read when there is one.
        output: The output folder, in place of output.folder.
    """
    # Imported here: help is there at once.
    from dataclasses import asdict  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    from flows.hub import destination, in_words, send  # noqa: PLC0415
    from flows.workspace import Workspace  # noqa: PLC0415
    from tasks.core.config.values import check_license  # noqa: PLC0415
    from tasks.core.errors import UsageError  # noqa: PLC0415
    from tasks.core.hub.sessions import UploadRequest  # noqa: PLC0415

    try:
        check_license(licence or "")
    except ValueError as error:
        raise UsageError(f"--license {licence}: {error}") from error
    if test_share is not None and not 0 <= test_share <= 1:
        raise UsageError(f"--test-share {test_share}: allowed: 0 to 1")
    place = Workspace(config, output)
    to = destination(repo or _repo_of(place, session), public=public, env_file=env_file)
    done = send(place, session, UploadRequest(to.repo, licence, formats, test_share, partial=partial), to)
    print(orjson.dumps(asdict(done)).decode() if json else in_words(done))  # noqa: T201 - the command's output
    return 0


def _repo_of(place: Workspace, session: str) -> str:
    """The repository that the configuration names, or where it names none, the session's own settings."""
    from tasks.core.session.folder import find_session  # noqa: PLC0415 - help is there at once
    from tasks.core.session.record import read_record, settings_of  # noqa: PLC0415 - the same

    if place.config is not None and place.config.huggingface.repo_id:
        return place.config.huggingface.repo_id
    record = read_record(find_session(place.folder, session))
    before = None if record is None else settings_of(record)
    return "" if before is None else before.huggingface.repo_id

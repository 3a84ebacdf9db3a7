"""A session's dataset on its way to the Hub: what is sent, and what can go wrong, each in one line.

What the Hub has already it knows by SHA-256, and it is not sent again. Nothing of it is to be seen before
the commit, so an upload that was cut off leaves what was there as it was.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import httpx2
import orjson
from httpx2 import HTTPError
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
    is_offline_mode,
    set_client_factory,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from tasks.core import files
from tasks.core.cost import prices_for
from tasks.core.errors import HubError, SessionError, UsageError
from tasks.core.export.rows import DATA, DPO, KTO, NATIVE, PROMPT_COMPLETION, RANKED, SCORES, SFT
from tasks.core.hub.card import CardFacts
from tasks.core.ledger.failures import failures_of
from tasks.core.ledger.sessions import spent_by
from tasks.core.lint.linter import lint_file
from tasks.core.printable import printable_line
from tasks.core.secrets import without_secrets
from tasks.core.session.dataset import DATASET
from tasks.core.session.exporting import ExportRequest, export_dataset
from tasks.core.session.folder import locked
from tasks.core.session.record import read_record, restore_record, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from huggingface_hub.hf_api import DatasetInfo
    from pydantic import SecretStr

    from tasks.core.config.settings import Config, OutputFormat
    from tasks.core.export.rows import Exported
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.lint.report import Report
    from tasks.core.session.record import SessionRecord


TOKENS: Final = "https://huggingface.co/settings/tokens"
AGAIN: Final = "the same command again goes on where this one ended"

_MOST_QUOTED: Final = 200
_NO_ROOM: Final = (402, 413, 507)
_WORDS_OF_NO_ROOM: Final = ("storage limit", "storage quota", "storage space", "payment required")
_LEAST_SERVER_ERROR: Final = 500
_TROUBLE: Final = ("the Hub has trouble of its own (HTTP {status})", AGAIN)
_REFUSED: Final = ("the Hub refused {repo} (HTTP {status})", AGAIN)
_ANSWERS: Final = {
    400: ("the Hub does not accept {repo}", "change what it names"),
    401: ("the Hub does not know the token", f"set HF_TOKEN to one from {TOKENS}"),
    403: (
        "the token may not write to {repo}",
        f"give it write access to {{owner}} at {TOKENS}, or name another repository with --repo",
    ),
    404: ("the Hub has no dataset {repo} that this token may see", "look at --repo"),
    409: ("the name {repo} is taken", "name another one with --repo"),
    412: ("somebody else changed {repo} meanwhile", AGAIN),
    429: ("the Hub wants fewer requests", f"wait a few minutes: {AGAIN}"),
}
"""What a status of the Hub's means, and what to do about it."""


@contextmanager
def translated(repo: str, environ: Mapping[str, str]) -> Iterator[None]:
    """Turn whatever `huggingface_hub` raises in the block into one line, and keep its warnings out of sight.

    Args:
        repo: The repository, as owner/name.
        environ: The environment; its secrets are left out of what the server said.

    Raises:
        HubError: The block failed.
    """
    try:
        # Hints about the card and about its own dependencies: nothing that the user can do anything about.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    # A server that is none of the Hub's may answer anything, and the library looks into it unchecked.
    except (HTTPError, OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise HubError(_line(error, repo, environ)) from error


def _line(error: BaseException, repo: str, environ: Mapping[str, str]) -> str:
    chain = list(_chain(error))
    answered = next((item for item in chain if isinstance(item, HfHubHTTPError)), None)
    if answered is not None:
        said = _quoted(answered.server_message or "", environ)
        return _refused(answered.response.status_code, repo, said, mine=_is_mine(answered))
    for item in chain:
        said = _quoted(str(item) or type(item).__name__, environ)
        if isinstance(item, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, and without the network nothing can be uploaded; unset it"
        if isinstance(item, HTTPError):
            return f"the Hub cannot be reached ({said}): look at the network and at HF_ENDPOINT; {AGAIN}"
    last = chain[-1]
    said = _quoted(_wrong_with_card(str(last)) or str(last) or type(last).__name__, environ)
    if any(words in said.lower() for words in _WORDS_OF_NO_ROOM):
        return _full(repo, f": {said}")
    return f"{repo} was not uploaded: {said}"


def _wrong_with_card(text: str) -> str:
    """What the Hub's check of a card found, which the library passes on as it came; "" for other texts."""
    try:
        return "; ".join(error["message"] for error in orjson.loads(text)["errors"])
    except (ValueError, LookupError, TypeError):
        return ""


def _refused(status: int, repo: str, said: str, *, mine: bool) -> str:
    """What a status of the Hub's means here, and what to do about it."""
    because = f": {said}" if said else ""
    owner = repo.partition("/")[0]
    if status in _NO_ROOM or any(words in said.lower() for words in _WORDS_OF_NO_ROOM):
        return _full(repo, because)
    if not mine:
        # A place for files that the Hub named: what it refuses says nothing about the token.
        return f"the Hub's storage refused a file of {repo} (HTTP {status}){because}; {AGAIN}"
    what, advice = _ANSWERS.get(status, _TROUBLE if status >= _LEAST_SERVER_ERROR else _REFUSED)
    names = {"repo": repo, "owner": owner, "status": status}
    return f"{what.format(**names)}{because}; {advice.format(**names)}"


def _full(repo: str, because: str) -> str:
    owner = repo.partition("/")[0]
    return f"there is no room for {repo}{because}; free storage of {owner}, or extend its plan; {AGAIN}"


def _is_mine(error: HfHubHTTPError) -> bool:
    """Whether the request carried the token: it goes to the Hub alone."""
    return "authorization" in error.response.request.headers


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the last cause last."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _quoted(text: str, environ: Mapping[str, str]) -> str:
    return printable_line(without_secrets(text, environ), _MOST_QUOTED).rstrip(".")


TIMEOUT: Final = httpx2.Timeout(120.0, connect=30.0)
"""Seconds; the library itself would wait for ever."""

_CONFIGURATIONS: Final = f"{NATIVE}|{SFT}|{PROMPT_COMPLETION}|{DPO}|{KTO}|{SCORES}|{RANKED}"
_OURS: Final = re.compile(rf"{DATA}/({_CONFIGURATIONS})/(train|test)-\d{{5}}-of-\d{{5}}\.(parquet|jsonl)")
"""The names of files that an export may have: an older one's shards must not be read beside the new ones."""

_NAME: Final = re.compile(
    r"(?=.{3,96}$)(?!.*(--|\.\.))(?!.*\.git$)[a-z0-9](?:[\w-]*[a-z0-9])?/[a-z0-9_](?:[\w.-]*[a-z0-9_])?",
    re.ASCII | re.IGNORECASE,
)
_DATASET: Final = "dataset"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A dataset that is on the Hub.

    Attributes:
        repo: Its repository, as owner/name.
        url: Its page.
        commit: The commit that holds it, 40 hex digits.
        private: Whether only its owner sees it.
        created: Whether the repository was made for it.
        changed: Whether the Hub had anything else before.
        files: How many files it has, its card included.
        removed: How many files of an older export were removed.
    """

    repo: str
    url: str
    commit: str
    private: bool
    created: bool
    changed: bool
    files: int
    removed: int


def check_target(repo: str, token: SecretStr | None) -> SecretStr:
    """The token, when an upload to this repository can be tried with it.

    Raises:
        UsageError: There is no token, or no repository can have that name.
    """
    if not repo:
        raise UsageError("no repository is named; give --repo OWNER/NAME, or set huggingface.repo_id")
    if not _NAME.fullmatch(repo):
        raise UsageError(
            f"{repo!r} is no name of a repository; it is OWNER/NAME, of letters, digits, '-', '_' and '.', "
            "e.g. ada/fantasy-dpo"
        )
    if token is None:
        raise UsageError(
            f"there is no token for the Hugging Face Hub: set HF_TOKEN in the environment or the env file, "
            f"to one with write access from {TOKENS}"
        )
    return token


def upload(
    exported: Exported,
    card: str,
    repo: str,
    token: SecretStr,
    *,
    public: bool,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
) -> Uploaded:
    """Send an export and its card to a dataset repository, which is made when it is missing.

    Args:
        exported: The files; each keeps its path.
        card: The text of README.md.
        repo: The repository, as owner/name, as `check_target` accepts it.
        token: The user's token.
        public: Whether a repository that is made here is for everybody to see.
        environ: The environment; its secrets stand in no message.
        tell: Takes a line for people before each step that may take long.

    Returns:
        What the Hub has then.

    Raises:
        HubError: The Hub refused it, or cannot be reached; what it had before stays as it was.
    """
    set_client_factory(_client)
    api = HfApi(token=token.get_secret_value(), library_name="vellumforge-flows")
    with translated(repo, environ):
        DatasetCard(card).validate()
        before, created = _opened(api, repo, public=public)
    if not created:
        tell(f"{repo} is there already, and stays {_visibility(private=bool(before.private))}")
    additions = [
        CommitOperationAdd(file.path, exported.folder / file.path)
        for file in sorted(exported.files, key=lambda file: file.path)
    ]
    for number, addition in enumerate(additions, 1):
        tell(
            f"file {number} of {len(additions)}: {addition.path_in_repo}, {addition.upload_info.size:,} bytes"
        )
        with translated(repo, environ):
            # One at a time: what a cut leaves unfinished is one file, and Ctrl+C need not wait for others.
            api.preupload_lfs_files(repo, [addition], repo_type=_DATASET, num_threads=1, free_memory=False)
    stale = _stale(before, [file.path for file in exported.files])
    with translated(repo, environ):
        commit = api.create_commit(
            repo,
            [
                *additions,
                CommitOperationAdd("README.md", card.encode()),
                *(CommitOperationDelete(path, is_folder=False) for path in stale),
            ],
            commit_message=f"Upload {len(additions)} data files",
            repo_type=_DATASET,
            # Else a file that somebody else sends meanwhile could stay beside these.
            parent_commit=before.sha,
            num_threads=1,
        )
    return Uploaded(
        repo=repo,
        url=f"{api.endpoint}/datasets/{repo}",
        commit=commit.oid,
        private=bool(before.private),
        created=created,
        changed=commit.oid != before.sha,
        files=len(additions) + 1,
        removed=len(stale),
    )


def _opened(api: HfApi, repo: str, *, public: bool) -> tuple[DatasetInfo, bool]:
    """The repository as it is before the upload, and whether it was made for it."""
    try:
        return api.dataset_info(repo), False
    except RepositoryNotFoundError:
        pass
    except HfHubHTTPError as error:
        # Over plain HTTP the library does not read this as a repository that is missing or hidden.
        if error.response.status_code != 404:  # noqa: PLR2004 - an HTTP status
            raise
    api.create_repo(repo, private=not public, repo_type=_DATASET, exist_ok=True)
    return api.dataset_info(repo), True


def _stale(before: DatasetInfo, paths: Sequence[str]) -> list[str]:
    """The files of an older export that the new one does not replace."""
    found = {item.rfilename for item in before.siblings or ()}
    return sorted(path for path in found.difference(paths) if _OURS.fullmatch(path))


def _visibility(*, private: bool) -> str:
    return "private" if private else "public"


def _client() -> httpx2.Client:
    return httpx2.Client(event_hooks={"request": [_check_online]}, follow_redirects=True, timeout=TIMEOUT)


def _check_online(request: httpx2.Request) -> None:
    if is_offline_mode():
        raise OfflineModeIsEnabled(f"cannot reach {request.url.host}")


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What is to be uploaded, and as what.

    Attributes:
        repo: The repository, as owner/name.
        license: The dataset's licence as the Hub names it; None for that of the settings.
        formats: The forms of its rows; none for those of the session's own settings.
        test_share: Share of the pairs for a test split, by whole subtopics; None as the session's own.
        partial: Whether a session that is not finished is uploaded as far as it is.
    """

    repo: str
    license: str | None = None
    formats: Sequence[OutputFormat] = ()
    test_share: float | None = None
    partial: bool = False


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder for the files, inside the session's, which nobody else writes to while the block runs.

    What an upload left that was killed is removed first.

    Raises:
        SessionLockedError: The session is being written, or uploaded.
        SessionError: The folder cannot be made.
    """
    with locked(folder):
        files.sweep(folder)
        with ExitStack() as stack:
            try:
                stage = stack.enter_context(files.folder_beside(folder, ".hub.", files.SUFFIX))
            except OSError as error:
                raise SessionError(f"{folder} cannot be written: {error.strerror}") from error
            yield stage


async def prepare(
    folder: Path,
    ledger: Ledger,
    stage: Path,
    order: UploadRequest,
    *,
    now: Config | None,
    version: str,
    environ: Mapping[str, str],
) -> CardFacts:
    """Export a session as Parquet, and gather what its card says.

    Args:
        folder: The session's folder.
        ledger: The ledger that holds its answers.
        stage: An empty folder for the files, as `staging` makes it.
        order: What is wanted.
        now: The configuration as it is now, where there is one. Its licence and prices are taken, and those
            of the session's own where it has none.
        version: The version of this program.
        environ: The environment.

    Raises:
        UsageError: The session cannot be exported so.
        SessionError: The session cannot be read, or the files not be written.
        LedgerError: The ledger cannot be read.
    """
    await restore_record(folder, ledger)
    record, before = _known(folder)
    formats = order.formats or before.output.formats
    exports = [await _export(folder, ledger, stage, order, name) for name in dict.fromkeys(formats)]
    exported = await asyncio.to_thread(_beside_each_other, stage, exports)
    configured = (now.huggingface.license if now else "") or before.huggingface.license
    return CardFacts(
        repo=order.repo,
        license=configured if order.license is None else order.license,
        config=before,
        created=record.created,
        complete=record.complete,
        exported=exported,
        bill=await spent_by(ledger, record.id),
        prices=prices_for(now, before),
        failures=await failures_of(ledger, record.id),
        lint=await asyncio.to_thread(_lint, folder / DATASET),
        version=version,
        environ=environ,
    )


def _lint(dataset: Path) -> Report | None:
    """What lint finds in the session's own rows; None where they cannot be read: the upload does without."""
    try:
        return lint_file(dataset)
    except UsageError:
        return None


def _known(folder: Path) -> tuple[SessionRecord, Config]:
    """The session's record, and the settings that it began with."""
    record = read_record(folder)
    before = None if record is None else settings_of(record)
    if record is None or before is None:
        raise UsageError(
            f"the settings of session {folder.name} are not known; if it is VellumForge2's, resume it first"
        )
    return record, before


async def _export(
    folder: Path, ledger: Ledger, stage: Path, order: UploadRequest, output_format: OutputFormat
) -> Exported:
    wanted = ExportRequest(
        output_format,
        file_type="parquet",
        test_share=order.test_share,
        into=stage / output_format,
        partial=order.partial,
    )
    return await export_dataset(folder, ledger, wanted)


def _beside_each_other(stage: Path, exports: Sequence[Exported]) -> Exported:
    """The exports as one: no two formats have a configuration in common."""
    try:
        (stage / DATA).mkdir()
        for exported in exports:
            for configuration in exported.rows:
                (exported.folder / DATA / configuration).rename(stage / DATA / configuration)
    except OSError as error:
        raise SessionError(f"{stage} cannot be written: {error.strerror}") from error
    return replace(exports[0], folder=stage, files=tuple(file for one in exports for file in one.files))

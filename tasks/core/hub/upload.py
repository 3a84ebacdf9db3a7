"""A dataset's way to the Hub: its files one after the other, and then one commit that shows them all.

What the Hub has already it knows by SHA-256, and it is not sent again. Nothing of it is to be seen before
the commit, so an upload that was cut off leaves what was there as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx2
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

from tasks.core.errors import UsageError
from tasks.core.export.written import DATA, DPO, KTO, NATIVE, PROMPT_COMPLETION, SCORES, SFT
from tasks.core.hub.refusals import TOKENS, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from huggingface_hub.hf_api import DatasetInfo
    from pydantic import SecretStr

    from tasks.core.export.written import Exported

TIMEOUT: Final = httpx2.Timeout(120.0, connect=30.0)
"""Seconds; the library itself would wait for ever."""

_CONFIGURATIONS: Final = f"{NATIVE}|{SFT}|{PROMPT_COMPLETION}|{DPO}|{KTO}|{SCORES}"
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

"""What can go wrong on the way to the Hub, as one line that says what to do: the table of its errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from httpx2 import HTTPError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from tasks.core.errors import HubError
from tasks.core.printable import printable_line
from tasks.core.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKENS: Final = "https://huggingface.co/settings/tokens"
AGAIN: Final = "the same command again goes on where this one ended"

_MOST_QUOTED: Final = 200
_NO_ROOM: Final = (402, 413, 507)
_WORDS_OF_NO_ROOM: Final = ("storage limit", "storage quota", "storage space", "payment required")
_LEAST_SERVER_ERROR: Final = 500


@contextmanager
def translated(repo: str, environ: Mapping[str, str]) -> Iterator[None]:
    """Turn whatever `huggingface_hub` raises in the block into one line.

    Args:
        repo: The repository, as owner/name.
        environ: The environment; its secrets are left out of what the server said.

    Raises:
        HubError: The block failed.
    """
    try:
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
    said = _quoted(str(chain[-1]) or type(chain[-1]).__name__, environ)
    if any(words in said.lower() for words in _WORDS_OF_NO_ROOM):
        return _full(repo, f": {said}")
    return f"{repo} was not uploaded: {said}"


def _refused(status: int, repo: str, said: str, *, mine: bool) -> str:
    """What a status of the Hub's means here, and what to do about it."""
    because = f": {said}" if said else ""
    owner = repo.partition("/")[0]
    if status in _NO_ROOM or any(words in said.lower() for words in _WORDS_OF_NO_ROOM):
        return _full(repo, because)
    if not mine:
        # A place for files that the Hub named: what it refuses says nothing about the token.
        return f"the Hub's storage refused a file of {repo} (HTTP {status}){because}; {AGAIN}"
    match status:
        case 400:
            return f"the Hub does not accept {repo}{because}"
        case 401:
            return f"the Hub does not know the token{because}; set HF_TOKEN to one from {TOKENS}"
        case 403:
            return (
                f"the token may not write to {repo}{because}; give it write access to {owner} at {TOKENS}, "
                "or name another repository with --repo"
            )
        case 404:
            return f"the Hub has no dataset {repo} that this token may see{because}; look at --repo"
        case 409:
            return f"the name {repo} is taken{because}; name another one with --repo"
        case 412:
            return f"somebody else changed {repo} meanwhile{because}; {AGAIN}"
        case 429:
            return f"the Hub wants fewer requests{because}; wait a few minutes: {AGAIN}"
    trouble = "has trouble of its own" if status >= _LEAST_SERVER_ERROR else "refused"
    return f"the Hub {trouble} (HTTP {status}){because}; {AGAIN}"


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

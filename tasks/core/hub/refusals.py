"""What can go wrong on the way to the Hub, as one line that says what to do: the table of its errors."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import orjson
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

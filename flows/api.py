"""The Prefect server that the user named: does it answer, and take us? Asked before anything is made."""

from __future__ import annotations

import asyncio
import http
import logging
import re

from tasks.core.errors import UsageError

log = logging.getLogger(__name__)

NOTE_SECONDS = 5.0
"""How long it may take before a line says that it is waited for."""

_USER_INFO = re.compile(r"//[^/]*@")


class ApiError(UsageError):
    """The configured Prefect server cannot be used; nothing was paid for."""


async def check_api(url: str) -> None:
    """Ask the configured server something that only Prefect answers, and only to those whom it knows.

    It may take as long as any request to it, PREFECT_API_REQUEST_TIMEOUT, tries together: a server that has
    much to do is slow. Prefect's own client would try for minutes.

    Args:
        url: The URL of its API, as configured.

    Raises:
        ApiError: It does not answer, is no Prefect server, does not take us, or is another major version.
    """
    # Imported here: Prefect's settings are made by now, and not before.
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT  # noqa: PLC0415 - as above

    seconds, shown = PREFECT_API_REQUEST_TIMEOUT.value(), _USER_INFO.sub("//", url)
    note = asyncio.get_running_loop().call_later(
        NOTE_SECONDS, log.warning, "waiting for the Prefect server at %s, for %g s", shown, seconds
    )
    try:
        async with asyncio.timeout(seconds), get_client() as client:
            await client.read_flows(limit=1)
    except Exception as error:  # whatever Prefect makes of the answer of a server that is not its own
        raise ApiError(
            f"the Prefect server at {shown} cannot be used: {_reason(error, seconds)}; "
            "nothing was paid for. Set PREFECT_API_URL to the API of a server that runs, or to nothing for "
            "one of our own"
        ) from error
    finally:
        note.cancel()


def _reason(error: Exception, seconds: float) -> str:
    """What is wrong, in a few words."""
    import httpx  # noqa: PLC0415 - as above

    # Prefect says "Failed to reach API", and its cause says why.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    if isinstance(cause, (TimeoutError, httpx.TimeoutException)):
        return f"it does not answer within {seconds:g} s"
    if isinstance(cause, httpx.HTTPStatusError):
        status = cause.response.status_code
        if status in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
            return f"it does not let us in (HTTP {status}): PREFECT_API_AUTH_STRING is missing or wrong"
        hint = ": the URL of Prefect's API ends in /api" if status == http.HTTPStatus.NOT_FOUND else ""
        return f"it answers HTTP {status}{hint}"
    if isinstance(cause, ValueError):
        return "what answers there is not Prefect's API"
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)

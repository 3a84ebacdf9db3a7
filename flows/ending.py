"""How a run that an error of ours ended stands in Prefect: Failed, with the error's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.states import Failed

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.core.errors import VellumforgeError


def failed(error: VellumforgeError) -> State[Any]:
    """The state of a run that this ended, for its flow to return.

    An error that a flow raises is logged with a traceback, which says nothing to whom it is shown, and
    written into the result storage, as a pickle by default.
    Whoever awaits the flow is raised it all the same.
    """
    return Failed(message=str(error), data=error)

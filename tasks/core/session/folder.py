"""The session folder: a name of its own even when two runs start in the same second."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

from tasks.core.errors import SessionError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

PREFIX = "session_"


def create_folder(output: Path, now: datetime) -> Path:
    """Make a new session folder under `output`, named after the local time `now`.

    Returns:
        `output/session_YYYY-MM-DDTHH-MM-SS`, with `-2`, `-3`, … behind it when that name is taken.

    Raises:
        SessionError: The folder cannot be made.
    """
    stamp = f"{PREFIX}{now:%Y-%m-%dT%H-%M-%S}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = output / (stamp if number == 1 else f"{stamp}-{number}")
            # By one's own attempt alone: whoever looks first and makes it then may find it made meanwhile.
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise SessionError(f"{error.filename} cannot be made: {error.strerror}") from error
    raise AssertionError("unreachable: the numbers do not end")

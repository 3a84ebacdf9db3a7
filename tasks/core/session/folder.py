"""The session folder: a name of its own even when two runs start in the same second."""

from __future__ import annotations

import itertools
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
    for number in itertools.count(1):
        folder = output / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if output.exists() and not output.is_dir():
                raise SessionError(f"{output} is a file; the output folder must be a folder") from error
        except OSError as error:
            raise SessionError(f"{folder} cannot be made: {error.strerror}") from error
        else:
            return folder
    raise AssertionError("unreachable: the numbers do not end")

"""The session folder: a name of its own even when two runs start in the same second."""

from __future__ import annotations

import errno
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

PREFIX = "session_"


def create_folder(output: Path, now: datetime, fill: Callable[[Path], None]) -> Path:
    """Make a new session folder under `output`, named after the local time `now`.

    It is filled under a hidden name and put in its place in one step: whoever finds it, finds it whole.

    Args:
        output: The output folder; made when it is missing.
        now: The time.
        fill: Writes the folder's first files.

    Returns:
        `output/session_YYYY-MM-DDTHH-MM-SS`, with `-2`, `-3`, … behind it when that name is taken.

    Raises:
        SessionError: The folder cannot be made.
    """
    stamp = f"{PREFIX}{now:%Y-%m-%dT%H-%M-%S}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=output, prefix=".making-"))
        try:
            made.chmod(0o755)
            fill(made)
            return _put_in_place(made, output, stamp)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise SessionError(f"{error.filename} cannot be made: {error.strerror}") from error


def _put_in_place(made: Path, output: Path, stamp: str) -> Path:
    for number in itertools.count(1):
        folder = output / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            # By one's own attempt alone: whoever looks first may find it made meanwhile.
            made.rename(folder)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
        else:
            return folder
    raise AssertionError("unreachable: the numbers do not end")

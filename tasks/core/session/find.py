"""Sessions by name: a name is one component below the output folder, and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tasks.core.errors import UsageError
from tasks.core.session.folder import PREFIX

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(rf"(?!.*\.\.){PREFIX}[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}")


def check_name(name: str) -> str:
    """The name, when a session can have it.

    Raises:
        UsageError: It is no session's name: a path, `..`, a control character, or not `session_…`.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no session's name: give it as the list shows it, e.g. {PREFIX}2026-01-31T12-00-00"
        )
    return name


def find_session(output: Path, name: str) -> Path:
    """The folder of the session called `name` under `output`.

    Raises:
        UsageError: The name is not valid, there is no such folder, or it is a link that leads elsewhere.
    """
    folder = output / check_name(name)
    if not folder.is_dir():
        raise UsageError(
            f"there is no session {name} in {output}; `checkpoint list` shows those that are there"
        )
    if folder.resolve().parent != output.resolve():
        raise UsageError(f"session {name} is a link that leads out of {output}")
    return folder


def all_sessions(output: Path) -> list[Path]:
    """The session folders under `output`, newest name first; none when there is no such folder."""
    if not output.is_dir():
        return []
    resolved = output.resolve()
    found = [
        folder
        for folder in output.iterdir()
        if _NAME.fullmatch(folder.name) and folder.is_dir() and folder.resolve().parent == resolved
    ]
    return sorted(found, key=lambda folder: folder.name, reverse=True)

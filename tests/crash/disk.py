"""A small disk that can be made full and given room again, without being root."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tests.flows.command import User

ROOM = 256 << 20
"""Bytes of a disk with room; it is memory, taken only as far as it is written to."""
PAGE = 4096
TRIES = 100
"""How often a disk is made smaller that grows meanwhile."""


class NoSmallDiskError(Exception):
    """This system lets nobody but root mount a disk."""


class SmallDisk:
    """A disk in memory at `folder`, seen by the programs of `seen_by`; a context manager.

    It is mounted in a namespace that a shell holds open, and is gone with that shell, however that ends.

    Raises:
        NoSmallDiskError: On entering, where the system has no such namespaces or does not allow them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh"]
        try:
            self._shell = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            mounted = self._told(f"mount -t tmpfs -o size={ROOM} tmpfs '{self._folder}'")
        except OSError as error:
            raise NoSmallDiskError(f"no disk of a user's own can be mounted here: {error}") from error
        if not mounted:
            self._leave()
            raise NoSmallDiskError("no disk of a user's own can be mounted here")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def folder(self) -> Path:
        """The folder as it is seen from outside."""
        return Path(f"/proc/{self._shell.pid}/root{self._folder}")

    def seen_by(self, user: User) -> User:
        """The user as someone whose programs see the disk."""
        return replace(user, within=self._shell.pid)

    def fill(self, left: int = 0) -> None:
        """Take away all room but `left` bytes."""
        # It may grow meanwhile, and no disk can be made smaller than what is on it.
        for _ in range(TRIES):
            if self._remounted(f"size={self._used() + max(left, PAGE)}"):
                return
        raise AssertionError("the disk can be made no smaller")

    def make_room(self) -> None:
        """Give it room again."""
        assert self._remounted(f"size={ROOM}")

    def forbid_writing(self) -> None:
        """Make it read-only; nothing on it may be open for writing."""
        assert self._remounted("ro")

    def allow_writing(self) -> None:
        """Let it be written to again."""
        assert self._remounted("rw")

    def _remounted(self, option: str) -> bool:
        """Mount it again with another option; whether that succeeded.

        What it was mounted with is not repeated: it names the user as the system does, and as nobody is
        called in the namespace.
        """
        return self._told(f"mount --options-mode ignore -o remount,{option} '{self._folder}'")

    def _used(self) -> int:
        status = os.statvfs(self.folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def _told(self, command: str) -> bool:
        """Have the shell run a command; whether it succeeded."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command} 2>/dev/null && echo yes || echo no\n")
        self._shell.stdin.flush()
        return self._shell.stdout.readline() == "yes\n"

    def _leave(self) -> None:
        self._shell.communicate()

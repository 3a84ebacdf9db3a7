"""What a mirror of a session holds, and what of it is remembered here.

A mirror is the folder `<output.mirror>/<session>`: the session's own files under `files/`, its calls under
`calls/`, the milestones of its lists, what a server refused, its jobs when they were taken over, and the
manifest, all as in an archive of the session. The calls stand in parts that are only ever added, each named
by the hash of its content: one that was cut off, or is there twice, does no harm.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.core.session.archive import line_of
from tasks.core.session.archived import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

PARTS = "calls/"
LARGEST_PAPER = 64 * 1024 * 1024
"""Bytes that the manifest, the milestones, the refusals or the jobs may have."""

_PART_NAME = re.compile(r"([0-9a-f]{64})\.jsonl\.gz")
_FASTEST = 1
"""Level of compression: most of a call is an answer, which is compressed already."""


def address(mirror: str, session: str) -> str:
    """Where a session's mirror is."""
    return f"{mirror.rstrip('/')}/{session}"


def pack_part(rows: Sequence[dict[str, Any]]) -> tuple[str, bytes]:
    """Calls, as the ledger's table holds them, as a part: its name and its content."""
    content = gzip.compress(b"".join(line_of(row) for row in rows), _FASTEST, mtime=0)
    return f"{PARTS}{hashlib.sha256(content).hexdigest()}.jsonl.gz", content


def is_part(name: str) -> bool:
    """Whether a file under `calls/` is a part."""
    return _PART_NAME.fullmatch(name) is not None


def is_whole(part: Path) -> bool:
    """Whether a part's content is the one that it was written with."""
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == part.name.partition(".")[0]


class Memory:
    """The keys of the calls that a mirror holds, in a small hidden file of the session's folder.

    Losing it does no harm: the calls are then copied once more.

    Attributes:
        keys: The keys, also those that are not yet in the file.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """Read what is remembered.

        Args:
            folder: The session's folder.
            url: Address of the mirror: another mirror has another memory.
        """
        self._path = folder / f".mirror-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._added: list[bytes] = []
        try:
            content = self._path.read_bytes()
        except OSError:
            content = b""
        # A key that was cut off at the end is none, and the next one is written over it.
        self._size = len(content) - len(content) % KEY_BYTES
        self.keys = {content[place : place + KEY_BYTES] for place in range(0, self._size, KEY_BYTES)}

    def add(self, keys: Iterable[bytes]) -> None:
        """Remember keys; `save` makes it last."""
        new = [key for key in keys if key not in self.keys]
        self.keys.update(new)
        self._added += new

    def forget(self) -> None:
        """The mirror does not hold what it held."""
        self.keys.clear()
        self._added.clear()
        self._size = 0

    def save(self) -> None:
        """Write down what was added, once the mirror says itself that it holds it."""
        content = b"".join(self._added)
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                os.ftruncate(descriptor, self._size)
                os.pwrite(descriptor, content, self._size)
            finally:
                os.close(descriptor)
            self._size += len(content)
            self._added.clear()

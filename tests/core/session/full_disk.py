"""A disk without room, as far as this process is concerned."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail, as they do when the disk is full.

    Python ignores the signal that comes with it, so that only the error is left.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

"""What is exported, and something tiny to train with it; nothing is downloaded."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

# In the project's own environment there are no trainers.
collect_ignore_glob = [] if find_spec("trl") else ["test_*.py"]


def contents(folder: Path) -> dict[str, str]:
    """The hash of each exported file."""
    files = sorted(path for path in folder.glob("*/data/**/*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of all exports, which no trainer changes."""
    folder = tmp_path_factory.mktemp("exports")
    command = [str(ROOT / ".venv/bin/python"), "-m", "tests.trainers.exports", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    before = contents(folder)
    assert len(before) > 24
    yield folder
    assert contents(folder) == before

"""What a user does with a dataset on the Hub, in a process of its own: download it, load it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.core.hub.server import TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.core.hub.server import Hub

REPO = "ada/tides"

LOAD = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import snapshot_download

def loaded(repo):
    folder = snapshot_download(repo, repo_type="dataset", local_dir=f"{sys.argv[1]}/{repo}")
    found = {
        name: {split: len(rows) for split, rows in load_dataset(folder, name).items()}
        for name in get_dataset_config_names(folder)
    }
    return found | {"": {split: len(rows) for split, rows in load_dataset(folder).items()}}

print(json.dumps([loaded(repo) for repo in sys.argv[2:]]))
"""


def ran(hub: Hub, home: Path, program: str, *arguments: str) -> str:
    """What a Python program prints that knows this Hub and no other, with a home of its own.

    Args:
        hub: The Hub.
        home: A folder for what the libraries keep.
        program: Its text.
        arguments: Its arguments.
    """
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=kept | own,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def loaded(hub: Hub, home: Path, repo: str = REPO) -> dict[str, dict[str, Any]]:
    """Download a dataset, and load each of its configurations, and the one that is loaded when none is named.

    Returns:
        Rows by configuration, `""` for none, and split.
    """
    (found,) = all_loaded(hub, home, [repo])
    return found


def all_loaded(hub: Hub, home: Path, repos: Sequence[str]) -> list[dict[str, dict[str, Any]]]:
    """The same of several datasets, in one process: to import the library takes longer than all else."""
    found: list[dict[str, dict[str, Any]]] = json.loads(
        ran(hub, home, LOAD, str(home / "downloaded"), *repos)
    )
    return found

"""Matplotlib as a report uses it, in a process of its own: it reads its fonts when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.flows.command import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import json, os
from tasks.core.report.plots import drawing
with drawing():
    from matplotlib import font_manager
    fonts = font_manager.fontManager
print(json.dumps([[font.name, os.path.isfile(font.fname)] for font in [*fonts.ttflist, *fonts.afmlist]]))
"""


@pytest.mark.parametrize("given", [False, True])
def test_no_font_of_the_machine_is_looked_at_and_nothing_is_left_behind(
    tmp_path: Path, *, given: bool
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    variables = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": ""}
    variables |= {"MPLCONFIGDIR": str(folder)} if given else {}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    fonts = json.loads(ended.stdout)
    assert ["DejaVu Sans", True] in fonts
    # A folder that the user names holds what matplotlib itself puts there.
    assert (len(fonts) > 1) == given == any(folder.iterdir())
    assert [*tmp_path.iterdir()] == [folder]

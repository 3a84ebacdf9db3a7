"""The golden sessions: where they are kept, and how a test gets one.

`sessions.zip` holds one folder for each case:

- `output/`, with `ledger.db` and the session folders as the program left them, without logs and reports;
- `requests.jsonl`: every paid call that the session uses, one a line: the key and all that it is made of;
- `expected/`: the files that the complete session has, where the kept one is not complete;
- further files of the working folder that the session needs, such as the input of a transform.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

if TYPE_CHECKING:
    from collections.abc import Mapping

ARCHIVE = Path(__file__).with_name("sessions.zip")

PORT = 18417
"""Where the demo model server listened. The endpoint is a part of every key, so that tests which ask the
server use the same port; they stand in one file, for the files of tests run at the same time."""

WRITTEN = ("dataset.jsonl", "dataset_reasoning.jsonl")
"""The files of a session that must come out the same, byte for byte."""


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
        complete: Whether the kept session is complete.
        behaviour: How the demo model behaved, by the options of `Behaviour`.
    """

    complete: bool = True
    behaviour: Mapping[str, Any] | None = None


REFUSED = "clear arc:\n\nA"
"""In what the demo model refuses with 400: chosen answers to prompts that begin with A."""

WRONG = {"refuse": 0.15, "repeat": 0.1, "bad": 0.05}

CASES: dict[str, Case] = {
    "sft_sharegpt": Case(),
    "sft_alpaca": Case(),
    "dpo": Case(),
    "kto": Case(),
    "mo-dpo": Case(),
    "judge_filtering": Case(behaviour=WRONG),
    "reasoning": Case(behaviour={"reasoning": 0.6}),
    "refused_for_good": Case(behaviour={"fail_matching": REFUSED}),
    "parameters": Case(),
    "seed": Case(),
    "interrupted": Case(complete=False),
    "out_of_budget": Case(complete=False),
    "refused_and_short": Case(complete=False),
    "taken_over": Case(),
    "merged": Case(),
}
"""What `tests.golden.make` made; transforms are apart, for they have no phases."""


def unpack(name: str, folder: Path) -> Path:
    """Unpack a case below `folder`; returns its folder, which holds `output/` and the rest."""
    with ZipFile(ARCHIVE) as archive:
        archive.extractall(folder, [entry for entry in archive.namelist() if entry.startswith(f"{name}/")])
    return folder / name


def requests_of(case: Path) -> list[dict[str, Any]]:
    """The paid calls of a case's session: the fields of each `ChatRequest`, and its `key` in hex."""
    lines = (case / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def session_of(case: Path) -> Path:
    """The folder of a case's session: the last one of its output folder."""
    return max((case / "output").glob("session_*"))


def expected(case: Path) -> dict[str, bytes]:
    """The files that the complete session must have, by name."""
    folder = case / "expected"
    where = folder if folder.is_dir() else session_of(case)
    return {name: (where / name).read_bytes() for name in WRITTEN if (where / name).exists()}

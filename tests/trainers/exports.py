"""Sessions of every mode made by the command line, and exported in every way.

`python -m tests.trainers.exports FOLDER` runs in the project's own environment; what it
writes is what users get.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.flows.command import PROGRAM, User, config, model

MODES = ("sft", "dpo", "kto", "mo-dpo")
REASONING = ("none", "inline", "reasoning_content")
FILE_TYPES = ("parquet", "jsonl")
SETTINGS = '[output]\nformats = ["native", "trl"]\ntest_share = 0.3'


def main(folder: Path) -> None:
    """Write `<mode>-<reasoning>-<file type>` folders below `folder`."""
    with model(reasoning=0.9) as server:
        for mode in MODES:
            user = User.made(folder / "users" / mode)
            user.write("config.toml", config(server.url, mode=mode, subtopics=4, prompts=3, more=SETTINGS))
            done(user, "run")
            (session,) = user.sessions()
            (session / "trl").rename(folder / f"{mode}-of-the-run")
            for reasoning in REASONING:
                for file_type in FILE_TYPES:
                    into = folder / f"{mode}-{reasoning}-{file_type}"
                    options = ["--reasoning", reasoning, f"--{file_type}", "--into", str(into)]
                    done(user, "export", session.name, "--format", "trl", *options)


def done(user: User, *words: str) -> None:
    """Run the command line, and see that it succeeds."""
    ended = user.run(*words, program=PROGRAM)
    assert (ended.code, ended.err) == (0, ""), ended


if __name__ == "__main__":
    main(Path(sys.argv[1]))

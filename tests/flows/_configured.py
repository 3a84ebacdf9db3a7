"""For each case on stdin: the API URL as we read it, and as Prefect does. A process of its own."""

from __future__ import annotations

import json
import os
import sys

from prefect.settings import Settings

from flows.process.settings import configured_api_url


def main() -> None:
    """Read a list of `{"folder": ..., "environment": {...}}`, write a list of `[ours, Prefect's]`."""
    plain = dict(os.environ)
    answers = []
    for case in json.load(sys.stdin):
        os.environ.clear()
        os.environ.update(plain | case["environment"])
        os.chdir(case["folder"])
        answers.append([configured_api_url(), Settings().api.url])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

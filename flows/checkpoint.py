"""`python -m flows.checkpoint …` is `vellumforge2 checkpoint …`."""

from __future__ import annotations

import sys

from flows.commands.app import main

if __name__ == "__main__":
    sys.exit(main(["checkpoint", *sys.argv[1:]]))

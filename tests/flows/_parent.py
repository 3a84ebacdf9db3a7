"""A parent of an embedded server: prints the server's process id, then waits to be ended from outside."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from flows.process.server import EmbeddedServer


def main() -> None:
    """`_parent.py HOME starting|ready`: says so when the server was started, or when it answers."""
    server = EmbeddedServer(Path(sys.argv[1]))
    server.start()
    if sys.argv[2] == "ready":
        server.wait_ready()
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()

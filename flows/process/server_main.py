"""The child process of `flows.process.server`: Prefect's API on a socket that it inherits, until stdin ends.

`python -m flows.process.server_main FD OWNER` serves on the listening socket with that number, and writes
down that OWNER made every flow run. Standard input is a pipe whose other end only the parent holds: it ends
when the parent closes it, and also when the parent dies of whatever cause, SIGKILL included.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import socket
import sqlite3
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote
from uuid import UUID

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

GRACE_SECONDS = 2.0
START_FAILED = 3
TABLES: Final = Path(__file__).with_name("prefect.sql")
"""What Prefect's migrations make of an empty SQLite file, with the number of the last one, as statements.

A newer Prefect goes on from there. `make tables` writes it anew.
"""
_REVISION: Final = re.compile(r'INSERT INTO "alembic_version" VALUES\(\'(\w+)\'\)')


class _Server(uvicorn.Server):
    """Uvicorn, with one start at a time in a home: two that migrate one new database would both fail."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Blocking the loop is meant: there is nothing else on it yet.
        lock_file = Path(os.environ["PREFECT_HOME"], "start.lock")
        with lock_file.open("w") as lock, _one_processor():  # noqa: ASYNC230 - as above
            fcntl.flock(lock, fcntl.LOCK_EX)
            if database := _own_database():
                give_tables(database)
            await super().startup(sockets)


@contextmanager
def _one_processor() -> Iterator[None]:
    """Keep this process on one processor, where the system can: migrations take half the time there.

    They hand each of their statements from one thread to another, up to 35,000 of them, and waiting for the
    interpreter's lock on another processor costs more than the statement.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    """Serve until standard input ends, then leave within `GRACE_SECONDS`."""
    watch = _Watch()
    threading.Thread(target=watch.run, daemon=True).start()
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(_application(), lifespan="on", log_config=None, timeout_graceful_shutdown=1)
    server = _Server(config)
    watch.server = server
    server.run(sockets=[listener])
    _leave(0 if server.started else START_FAILED)


class _Watch:
    """Ends the server when standard input ends, at once while there is none yet."""

    server: uvicorn.Server | None = None

    def run(self) -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        if self.server is not None:
            # The graceful way writes down the task runs that are still waiting to be recorded.
            self.server.should_exit = True
            time.sleep(GRACE_SECONDS)
        _leave(0)


def _application() -> FastAPI:
    """Prefect's API without user interface and with the few services that its settings leave on."""
    # What is imported stays: collecting garbage meanwhile costs a fifth of the start and finds none.
    gc.disable()
    # Imported here, so that the watch runs already during the seconds that it takes.
    from prefect.server.api import dependencies, server  # noqa: PLC0415
    from prefect.server.schemas.core import CreatedBy  # noqa: PLC0415 - as above

    application: FastAPI = server.create_app(ephemeral=True)
    # A run and who made it are written in one moment: by that, those of a process that is gone are known.
    owner = CreatedBy(id=UUID(sys.argv[2]), type="PROCESS", display_value=f"process {os.getppid()}")
    routes: FastAPI = application.api_app  # type: ignore[attr-defined]  # Prefect sets it
    routes.dependency_overrides[dependencies.get_created_by] = lambda: owner
    gc.freeze()
    gc.enable()
    return application


def give_tables(database: Path, statements: Path = TABLES) -> bool:
    """Make the database of a home that has none yet, in 25 ms where Prefect's migrations take some 4 s.

    Whoever calls it sees to it that nobody else makes it meanwhile.

    Args:
        database: The file, in a folder that is there.
        statements: What makes its tables.

    Returns:
        Whether it was made: not where there is one, nor for a Prefect that does not know these tables.

    Raises:
        OSError: It cannot be written.
        sqlite3.Error: The same.
    """
    tables = statements.read_text(encoding="utf-8")
    found = _REVISION.search(tables)
    if database.exists() or found is None or not _is_known(found[1]):
        return False
    # In one step: what is half made would be taken for a database of Prefect's.
    part = database.with_name(f"{database.name}.part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as made:
        made.executescript(tables)
    part.replace(database)
    return True


def _is_known(revision: str) -> bool:
    """Whether the Prefect that is installed has a migration of that number."""
    # Imported here: whoever stops the server at once does not wait for it.
    import prefect.server  # noqa: PLC0415

    folder = Path(prefect.server.__path__[0], "database", "_migrations", "versions", "sqlite")
    return any(folder.glob(f"*_{revision}_*.py"))


def _own_database() -> Path | None:
    """The SQLite file that Prefect's settings name; None where it keeps its data elsewhere."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL  # noqa: PLC0415 - as above

    scheme, _, path = str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition(":///")
    return Path(unquote(path)) if scheme == "sqlite+aiosqlite" and "?" not in path else None


def _leave(status: int) -> None:
    """End the process without the second that tearing down the interpreter takes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()

"""A PostgreSQL server of the tests' own, on the loopback interface, with a password."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.needs import POSTGRESQL

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_USER = "postgres"
"""Debian's; PostgreSQL refuses to run as root."""

TIMEOUT = 600


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        password: Of its user `ledger`, for PGPASSWORD.
    """

    port: int
    password: str

    def url(self, database: str = "postgres", *, password: bool = False) -> str:
        """The address of a database as SQLAlchemy wants it; without its password, as settings want it."""
        secret = f":{self.password}" if password else ""
        return f"postgresql+asyncpg://ledger{secret}@127.0.0.1:{self.port}/{database}"

    def make_database(self, name: str) -> str:
        """Make a database; its URL without the password."""
        self.run("createdb", name)
        return self.url(name)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs on the server; what it printed."""
        where = ["--host=127.0.0.1", f"--port={self.port}", "--username=ledger"]
        done = subprocess.run(
            [str(POSTGRESQL.programs() / program), *where, *arguments],
            env={"PGPASSWORD": self.password, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server over a new cluster in a folder of its own, gone afterwards."""
    binaries = POSTGRESQL.programs()
    # Not below pytest's folder, which is closed to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Postgres(_free_port(), secrets.token_urlsafe(24))
    try:
        (folder / "password").write_text(server.password)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, SYSTEM_USER, SYSTEM_USER)
        data = folder / "data"
        _run(
            binaries / "initdb",
            f"--pgdata={data}",
            "--username=ledger",
            "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}",
            "--encoding=UTF8",
            "--no-sync",
        )
        options = f"-c listen_addresses=127.0.0.1 -c port={server.port} -c unix_socket_directories={folder}"
        control = [binaries / "pg_ctl", f"--pgdata={data}", "--wait", f"--log={folder / 'log'}"]
        _run(*control, f"--options={options}", "start")
        try:
            yield server
        finally:
            _run(*control, "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: object) -> None:
    as_user = ["runuser", "-u", SYSTEM_USER, "--"] if os.geteuid() == 0 else []
    # To a file: the server inherits what it is started with, and a pipe would stay open for as long.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*as_user, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            check=False,
            timeout=TIMEOUT,
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

"""Several machines, as far as one can be several: workers in folders and homes of their own, one database."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.flows.command import PREFECT, ROOT, User, prefect_server, until
from tests.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Process
    from tests.postgres import Postgres

POOL = "vellumforge"


@dataclass
class Cluster:
    """A Prefect server, a database and machines that know both.

    Attributes:
        folder: Where everything is.
        api: The URL of Prefect's API.
        database: The database server.
        workers: The workers that were started, by name.
    """

    folder: Path
    api: str
    database: Postgres
    workers: dict[str, Process] = field(default_factory=dict)

    def machine(self, name: str) -> User:
        """A machine: a home, a folder and a Prefect home of its own, and the password of the ledger."""
        place = self.folder / name
        return User.made(
            place,
            PREFECT_API_URL=self.api,
            PREFECT_HOME=str(place / "prefect"),
            PGPASSWORD=self.database.password,
            PREFECT_WORKER_QUERY_SECONDS="1",
            PREFECT_LOGGING_LEVEL="INFO",
        )

    def deploy(self) -> None:
        """Make the work pool and the deployments of `prefect.yaml`."""
        user = self.machine("deployer")
        at_root = User(user.home, ROOT, user.variables)
        for arguments in (["work-pool", "create", POOL, "--type", "process"], ["deploy", "--all"]):
            done = at_root.run(*arguments, program=PREFECT)
            assert done.code == 0, done.out + done.err

    def start_worker(self, name: str, *options: str) -> Process:
        """Start a worker on a machine of its own, with more options of `prefect worker start`."""
        user = self.machine(name)
        worker = user.start("worker", "start", "--pool", POOL, "--name", name, *options, program=PREFECT)
        self.workers[name] = worker
        return worker

    def kill_worker(self, name: str) -> None:
        """SIGKILL a worker's machine: the worker and all that it started."""
        home = User(self.folder / name / "home", self.folder, {})
        worker = self.workers.pop(name)
        worker.kill(group=True)
        for pid in home.processes():
            kill(pid)
        until(lambda: not worker.running, "the end of a worker that was killed")

    def close(self) -> None:
        """End all workers and what they started."""
        for name in list(self.workers):
            self.kill_worker(name)


def kill(pid: int) -> None:
    """SIGKILL a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A Prefect server with the deployments, and a database server; no worker yet."""
    with ExitStack() as stack:
        api = stack.enter_context(prefect_server(folder / "server"))
        found = Cluster(folder, api, stack.enter_context(postgres()))
        stack.callback(found.close)
        found.deploy()
        yield found

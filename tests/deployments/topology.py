"""The parts of `compose.yaml` as processes on the loopback interface, with its commands and environment."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from dotenv import dotenv_values

from deployments.make_secrets import write
from tests.deployments.compose import FOLDER, parts
from tests.flows.command import ROOT, TIMEOUT, free_port, until
from tests.needs import REDIS, WHOLE_POSTGRESQL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.deployments.compose import Part

STOP_SECONDS = 20.0
"""What a part may take to stop before it is killed."""


@dataclass
class Topology:
    """All parts, running.

    Attributes:
        folder: Everything that they write is below it.
        secrets: The generated passwords by name.
        work: The folder that runs work in, as /app is in the image.
        processes: Those that keep running, by part.
    """

    folder: Path
    secrets: dict[str, str]
    parts: dict[str, Part]
    ports: dict[str, int]
    work: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The Prefect API's URL."""
        return f"http://127.0.0.1:{self.ports['api']}/api"

    @property
    def ledger(self) -> str:
        """The ledger's URL, as the workers have it, with its password."""
        url = self.environment("worker")["VELLUMFORGE__OUTPUT__LEDGER"]
        return url.replace("//ledger@", f"//ledger:{self.secrets['LEDGER_DATABASE_PASSWORD']}@")

    def here(self, text: str) -> str:
        """What stands in compose.yaml, with addresses and folders of this machine for the containers' own."""
        for name, port in (("postgres", 5432), ("redis", 6379), ("api", 4200)):
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{self.ports[name]}")
        places = {"/app/output": self.work / "output", "/tmp/ui": self.folder / "ui"}  # noqa: S108 - a container's
        for place, own in places.items():
            text = text.replace(place, str(own))
        return text

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a part: compose's own, and of this machine's what programs need."""
        declared = {key: self.here(value) for key, value in self.parts[name].environment.items()}
        addresses = {
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(self.ports["redis"]),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.ports["api"]),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["worker"]),
        }
        declared |= {key: value for key, value in addresses.items() if key in declared}
        folders = (Path(sys.executable).parent, WHOLE_POSTGRESQL.programs(), REDIS.programs())
        own = {
            "PATH": ":".join([*map(str, folders), os.environ["PATH"]]),
            "HOME": str(self.folder / "home"),
            "PREFECT_HOME": str(self.folder / "prefect" / name),
            "PYTHONPATH": str(ROOT),
        }
        return own | declared

    def start(self, name: str, *more: str, user: str | None = None) -> None:
        """Start a part that keeps running; `more` is added to its command."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*map(self.here, self.parts[name].command), *more],
                env=self.environment(name),
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )

    def carry_out(self, name: str) -> None:
        """Run a part that comes to an end, and see that it ends well."""
        _finish([*map(self.here, self.parts[name].command)], env=self.environment(name), cwd=self.work)

    def until_answers(self, name: str, url: str) -> None:
        """Wait until a part answers there with success."""
        process = self.processes[name]
        until(lambda: process.poll() is not None or _answers(url), f"{name} to answer at {url}")
        assert process.poll() is None, (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def processes_of(self) -> list[int]:
        """The process ids of all that belongs to it, however they were started."""
        home = f"HOME={self.folder / 'home'}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if home in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:  # another's, or ended meanwhile
                continue
        return found + [process.pid for process in self.processes.values()]

    def stop(self) -> None:
        """End all parts, the last one first."""
        for process in reversed(self.processes.values()):
            process.terminate()
            # A worker may hang in its farewell to a server that is busy.
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()


@contextmanager
def running(folder: Path) -> Iterator[Topology]:
    """All parts, started in the order that compose.yaml asks for, with passwords of their own."""
    write(folder / ".env")
    secrets = {key: value or "" for key, value in dotenv_values(folder / ".env").items()}
    ports = {name: free_port() for name in ("postgres", "redis", "api", "worker")}
    work = folder / "work"
    for made in (work, folder / "home", folder / "redis", folder / "prefect"):
        made.mkdir()
    variables = secrets | {"PUBLIC_URL": f"http://127.0.0.1:{ports['api']}"}
    topology = Topology(folder, secrets, parts(variables), ports, work)
    shutil.copy(ROOT / "prefect.yaml", work)
    try:
        _start_postgres(topology)
        _start_redis(topology)
        topology.carry_out("migrate")
        topology.start("api")
        topology.until_answers("api", f"{topology.url}/ready")
        topology.start("services")
        topology.carry_out("deploy")
        yield topology
    finally:
        topology.stop()


def _start_postgres(topology: Topology) -> None:
    # It refuses to run as root; its image changes to a user of its own, too.
    user = "postgres" if os.geteuid() == 0 else None
    data = topology.folder / "database"
    data.mkdir()
    if user:
        os.chown(data, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        for above in (topology.folder, *topology.folder.parents):
            # pytest makes its folders for their owner alone; the way through them has to be open.
            if above.stat().st_uid == 0 and not above.stat().st_mode & 0o1:
                above.chmod(above.stat().st_mode | 0o1)
    environment = topology.environment("postgres") | {
        "PGHOST": str(data),
        "PGPORT": str(topology.ports["postgres"]),
    }
    make: list[str | Path] = [
        WHOLE_POSTGRESQL.programs() / "initdb",
        "--username=postgres",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
    ]
    _finish([*make, "--no-sync", "--pgdata", data], env=environment, cwd=data, user=user)
    place = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={topology.ports['postgres']}"]
    topology.start("postgres", "-D", str(data), *place, "-k", str(data), user=user)
    probe: list[str | Path] = [
        WHOLE_POSTGRESQL.programs() / "pg_isready",
        "--quiet",
        "--host",
        data,
        "--port",
        str(topology.ports["postgres"]),
    ]
    until(lambda: subprocess.run(probe, check=False).returncode == 0, "PostgreSQL's start")
    _finish([FOLDER / "databases.sh"], env=environment, cwd=data, user=user)


def _start_redis(topology: Topology) -> None:
    part = topology.parts["redis"]
    place = f"bind 127.0.0.1\nport {topology.ports['redis']}\ndir {topology.folder / 'redis'}\n"
    part.command[-1] = part.command[-1].replace("END\n", f"END\n{place}", 1)
    topology.start("redis")
    ping = {**topology.environment("redis"), "REDISCLI_AUTH": topology.secrets["REDIS_PASSWORD"]}
    probe = [str(REDIS.programs() / "redis-cli"), "-p", str(topology.ports["redis"]), "ping"]
    until(
        lambda: subprocess.run(probe, env=ping, capture_output=True, check=False).stdout == b"PONG\n",
        "the start of Redis",
    )


def _finish(
    command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, user: str | None = None
) -> None:
    ended = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}\n{ended.stderr}"


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 - http, of our own
            return bool(response.status == 200)
    except (URLError, OSError):
        return False

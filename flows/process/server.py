"""A Prefect server of our own for runs without a configured one, and the end of what it records.

Prefect's own temporary server outlives a killed parent, takes a port that may be taken, asks for no
password and loses task runs. This one is a child process (`flows.process.server_main`) that ends with us.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import http
import http.client
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from flows.process.end import UI_IS_BEHIND, state_after
from tasks.core.errors import UsageError, VellumforgeError
from tasks.core.printable import reason_of
from tasks.core.traffic.stop import Deadline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

HOST = "127.0.0.1"
STOP_SECONDS = 3.0
LOG_NAME = "server.log"
DATABASE = "prefect.db"
_DATABASE_SETTINGS = {"PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"}
_ROOM_BYTES = 1 << 20
"""Bytes that a disk has left on which the server failed for other reasons than that it is full."""
_FULL = ("database or disk is full", "No space left on device", "Disk quota exceeded")
OWNERS = "owners"
"""The folder, in a home, with a file for each process that has a server there, locked while that lives."""
_TAIL_BYTES = 4096
_POLL_SECONDS = 0.1
_PAGE = 200
"""The most that the API lists at once."""

_SERVER_SETTINGS: Mapping[str, str] = {
    # Its terminal is the log, which says why a server did not start.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR",
    # Nobody looks at it while it runs; afterwards `prefect server start` with this home shows all runs.
    "PREFECT_SERVER_UI_ENABLED": "false",
    # 1.4 s of a first start, for block types that a run does not use.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    # Automations, the list of events and its live stream: work for each event, and only the recorder of
    # task runs is wanted.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
}

logger = logging.getLogger("vellumforge.embedded")


class EmbeddedServerError(VellumforgeError):
    """The embedded Prefect server did not start, or died while it was waited for."""


class EmbeddedServer:
    """A Prefect server on loopback that ends when `stop` is called or this process ends, however it ends.

    `start` returns at once: put `client_settings` into the environment, import Prefect while the server
    starts, then `wait_ready`. Several servers may share a home, also at the same time: each has its own
    port and password; the database is one SQLite file in WAL mode, and they start one after the other.

    Args:
        home: The folder of the server's database and log; made when missing.
    """

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._auth = f"vellumforge:{secrets.token_urlsafe(32)}"
        self._owner = str(uuid4())
        self._alive: BinaryIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._port = 0

    @property
    def api_url(self) -> str:
        """The URL of the API, known from `start` on."""
        return f"http://{HOST}:{self._port}/api"

    @property
    def pid(self) -> int | None:
        """The server's process, or None when it is not running."""
        return self._process.pid if self._process else None

    @property
    def runs(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def client_settings(self) -> dict[str, str]:
        """Environment variables that make Prefect use this server when it is imported after they are set."""
        return {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self._auth,
            # The server is the client's own version and gives out no CSRF tokens: two questions less.
            "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
            "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
            # A server that died does not come back: five tries would hold the end of a run up for a minute.
            "PREFECT_CLIENT_MAX_RETRIES": "2",
            # A proxy that the user set for the world outside cannot reach our loopback.
            **{name: _with_host(os.environ.get(name, "")) for name in ("NO_PROXY", "no_proxy")},
        }

    def start(self) -> None:
        """Start the server's process; returns before it answers.

        Raises:
            EmbeddedServerError: The home cannot be written, or the process cannot be started.
        """
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _owners(self._home) as owners:
                self._alive = (owners / self._owner).open("wb")
                fcntl.flock(self._alive, fcntl.LOCK_EX)
            with (self._home / LOG_NAME).open("ab") as log, socket.create_server((HOST, 0)) as listener:
                self._log_start = log.tell()
                self._port = listener.getsockname()[1]
                self._process = self._spawn(listener, log)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise no_room(self._home) from error
            raise EmbeddedServerError(
                f"cannot start the embedded Prefect server in {self._home}: {error}"
            ) from error

    def wait_ready(self, timeout: float = 300.0) -> str:
        """Wait until the server answers.

        Args:
            timeout: The bound in seconds.

        Returns:
            The URL of the API.

        Raises:
            EmbeddedServerError: The server died or did not answer in time; it is stopped then.
        """
        # The socket listens since before the child was started: the kernel keeps the request until the
        # server takes it, and refuses it as soon as the server is gone.
        connection = http.client.HTTPConnection(HOST, self._port, timeout=timeout)
        try:
            connection.request("GET", "/api/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise self._failure(f"status {status}")
        return self.api_url

    def stop(self) -> None:
        """End the server: gracefully, and after `STOP_SECONDS` by SIGKILL. Does nothing a second time."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101 - it was opened as a pipe
        # One that died before may not have taken note of how a run ended.
        was_there = process.poll() is None
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._alive is not None:
            if was_there:
                with suppress(OSError):  # it stays, then, and the next run looks for what is not there
                    (self._home / OWNERS / self._owner).unlink()
            self._alive.close()

    def note_end(self, error: VellumforgeError | None) -> None:
        """Leave word, for the next run here, of how a run ended that the server did not take note of.

        Args:
            error: What ended it, if not its last line.
        """
        if self._alive is not None:
            with suppress(OSError):  # on a full disk it counts as crashed
                self._alive.write(f"{state_after(error)}\n{error or ''}".encode())
                self._alive.flush()

    async def mark_lost(self) -> None:
        """Set those runs of this home that have not ended, and whose process is gone, to what became of them.

        That is Crashed, unless their process left word.
        It never raises, for the record is for people. Without a process that left something behind it asks
        nothing of the server.
        """
        try:
            with _left_behind(self._home) as lost:
                if lost:
                    words = {file.name: file.read_text(encoding="utf-8", errors="replace") for file in lost}
                    await _set_ended(words)
                for file in lost:
                    file.unlink()
        except Exception as error:  # noqa: BLE001 - whatever Prefect raises, the run goes on; the next one tries again
            logger.info("runs of processes that are gone may be shown as Running: %s", reason_of(error))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, listener: socket.socket, log: BinaryIO) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **_SERVER_SETTINGS,
            "PREFECT_HOME": str(self._home),
            "PREFECT_SERVER_API_AUTH_STRING": self._auth,
            # The child finds what this process finds, wherever that was started.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        if "?" in str(self._home) and not _DATABASE_SETTINGS & environment.keys():
            # Prefect puts the path into a URL as it is, where a `?` begins a query.
            database = quote(str(self._home / DATABASE))
            environment["PREFECT_API_DATABASE_CONNECTION_URL"] = (
                f"sqlite+aiosqlite:///file:{database}?uri=true"
            )
        environment.pop("PREFECT_API_URL", None)
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "flows.process.server_main", str(listener.fileno()), self._owner],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            # Ctrl+C in the terminal is for the parent, which still has things to record.
            start_new_session=True,
        )

    def _failure(self, reason: str) -> EmbeddedServerError:
        status = self._process.poll() if self._process is not None else None
        if status is not None:
            # Negative for a signal: whoever killed it is the next question.
            reason = f"{reason}, it ended with status {status}"
        self.stop()
        log = self._home / LOG_NAME
        with log.open("rb") as file:
            file.seek(max(self._log_start, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        said_full = any(word in line for word in _FULL for line in lines)
        if said_full or is_full(self._home):
            return no_room(self._home)
        said = " | ".join([line.strip() for line in lines if line.strip()][-3:]) or "nothing"
        return EmbeddedServerError(
            f"the embedded Prefect server does not answer ({reason}); it said: {said}; "
            f"see {log}, or set PREFECT_API_URL to a server that runs"
        )


def is_full(folder: Path) -> bool:
    """Whether there is so little room on a folder's disk that Prefect fails for that."""
    return shutil.disk_usage(folder).free < _ROOM_BYTES


def no_room(home: Path) -> EmbeddedServerError:
    """The error of a disk that is full, which is not Prefect's."""
    return EmbeddedServerError(
        f"the disk of {home} is full: what Prefect keeps of a run takes some megabytes there; "
        "make room, or name another output folder"
    )


@contextmanager
def _owners(home: Path) -> Iterator[Path]:
    """The folder of the owners' files; nobody makes one, or looks for those that are gone, meanwhile."""
    folder = home / OWNERS
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


@contextmanager
def _left_behind(home: Path) -> Iterator[list[Path]]:
    """The files of owners that are gone; taken, so that two runs that begin at once do not share them."""
    found: dict[Path, int] = {}
    try:
        with _owners(home) as owners:
            for file in owners.iterdir():
                descriptor = os.open(file, os.O_RDONLY)
                try:
                    # The kernel frees it when its process ends, however that ends.
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    found[file] = descriptor
        yield list(found)
    finally:
        for descriptor in found.values():
            os.close(descriptor)


async def _set_ended(words: Mapping[str, str]) -> None:
    """Set the runs that have not ended, and that one of these owners made, to its word, else to Crashed."""
    from prefect import states  # noqa: PLC0415 - Prefect's settings are made by now, and not before

    made = {"Completed": states.Completed, "Cancelled": states.Cancelled, "Failed": states.Failed}
    flow_runs = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    message = (
        "the process of this run is gone, and did not say how it ended; what was paid for is kept: "
        "resume its session to go on"
    )
    async with _client() as client:
        found: list[Any] = []
        while True:
            page = {"flow_runs": flow_runs, "sort": "ID_DESC", "limit": _PAGE, "offset": len(found)}
            some = (await client.request("POST", "/flow_runs/filter", json=page)).json()
            found += some
            if len(some) < _PAGE:
                break
        for run in found:
            word = words.get((run.get("created_by") or {}).get("id", ""))
            if word is not None:
                name, _, said = word.partition("\n")
                state: Any = made[name](message=said) if name in made else states.Crashed(message=message)
                # Forced: one that is Cancelling would else wait for a worker to say that it is Cancelled.
                await client.set_flow_run_state(run["id"], state, force=True)


def _client() -> PrefectClient:
    """A client of the API that Prefect's settings name."""
    # Imported here: Prefect's settings are made by now, and not before.
    from prefect.client.orchestration import get_client  # noqa: PLC0415

    return get_client()


async def settle(flow_run_ids: Collection[UUID], expected: int, timeout: float) -> bool:  # noqa: ASYNC109 - one bound over several waits
    """Wait until the server has recorded how the task runs of these flow runs ended.

    Call it when the flow has returned: it sends what the client still has queued (events and logs). It
    never raises, for the record is for people; the run is proved elsewhere.

    Args:
        flow_run_ids: The flow runs.
        expected: Task runs that ended in them, all together.
        timeout: The bound in seconds.

    Returns:
        Whether at least `expected` task runs are recorded in a final state.
    """
    try:
        async with Deadline(timeout):
            await _drain()
            async with _client() as client:
                # The recorder tells nobody when it has written: it can only be asked.
                while await _recorded(client, flow_run_ids) < expected:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        logger.warning("%s: not all task runs were recorded within %.0f s", UI_IS_BEHIND, timeout)
        return False
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, the run itself is over and safe
        logger.warning("%s: %s", UI_IS_BEHIND, reason_of(error))
        return False
    return True


async def _drain() -> None:
    """Send the events and logs that the client has queued; its workers start again when there are more."""
    # Prefect is imported when the environment is complete, and long after the server was started.
    from prefect.events.worker import EventsWorker  # noqa: PLC0415
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    for worker in (EventsWorker, APILogWorker):
        # "Still processing items" is what we are waiting for.
        logging.getLogger(worker.__name__).setLevel(logging.ERROR)
        waiting = worker.drain_all()
        if asyncio.iscoroutine(waiting):
            await waiting


async def _recorded(client: PrefectClient, flow_run_ids: Collection[UUID]) -> int:
    """How many task runs of the flow runs the server holds in a final state."""
    from prefect.client.schemas.objects import TERMINAL_STATES  # noqa: PLC0415 - as above

    task_runs = {
        "flow_run_id": {"any_": [str(flow_run_id) for flow_run_id in flow_run_ids]},
        "state": {"type": {"any_": [state.value for state in TERMINAL_STATES]}},
    }
    response = await client.request("POST", "/task_runs/count", json={"task_runs": task_runs})
    count: int = response.json()
    return count


def _with_host(no_proxy: str) -> str:
    hosts = [host for host in no_proxy.split(",") if host]
    return ",".join(hosts if HOST in hosts else [*hosts, HOST])


log = logging.getLogger(__name__)

NOTE_SECONDS = 5.0
"""How long it may take before a line says that it is waited for."""

_USER_INFO = re.compile(r"//[^/]*@")


class ApiError(UsageError):
    """The configured Prefect server cannot be used; nothing was paid for."""


async def check_api(url: str) -> None:
    """Ask the configured server something that only Prefect answers, and only to those whom it knows.

    It may take as long as any request to it, PREFECT_API_REQUEST_TIMEOUT, tries together: a server that has
    much to do is slow. Prefect's own client would try for minutes.

    Args:
        url: The URL of its API, as configured.

    Raises:
        ApiError: It does not answer, is no Prefect server, does not take us, or is another major version.
    """
    # Imported here: Prefect's settings are made by now, and not before.
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT  # noqa: PLC0415

    seconds, shown = PREFECT_API_REQUEST_TIMEOUT.value(), _USER_INFO.sub("//", url)
    note = asyncio.get_running_loop().call_later(
        NOTE_SECONDS, log.warning, "waiting for the Prefect server at %s, for %g s", shown, seconds
    )
    try:
        async with asyncio.timeout(seconds), _client() as client:
            await client.read_flows(limit=1)
    except Exception as error:  # whatever Prefect makes of the answer of a server that is not its own
        raise ApiError(
            f"the Prefect server at {shown} cannot be used: {_reason(error, seconds)}; "
            "nothing was paid for. Set PREFECT_API_URL to the API of a server that runs, or to nothing for "
            "one of our own"
        ) from error
    finally:
        note.cancel()


def _reason(error: Exception, seconds: float) -> str:
    """What is wrong, in a few words."""
    # Prefect says "Failed to reach API", and its cause says why.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    if isinstance(cause, (TimeoutError, httpx.TimeoutException)):
        return f"it does not answer within {seconds:g} s"
    if isinstance(cause, httpx.HTTPStatusError):
        status = cause.response.status_code
        if status in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
            return f"it does not let us in (HTTP {status}): PREFECT_API_AUTH_STRING is missing or wrong"
        hint = ": the URL of Prefect's API ends in /api" if status == http.HTTPStatus.NOT_FOUND else ""
        return f"it answers HTTP {status}{hint}"
    if isinstance(cause, ValueError):
        return "what answers there is not Prefect's API"
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)

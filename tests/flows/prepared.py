"""A parent that has imported the program, and forks a process for each run of it.

A process of the command line spends 1.3 to 2.5 s of CPU on imports, which prove nothing more the hundredth
time. The parent imports them once. What it forks is a process like any other: it has its own folder,
environment, arguments, files and process group, runs the same module as `__main__`, can be killed, and reads
Prefect's settings at the moment at which it would import Prefect.

The embedded server that such a process starts is forked by the parent, too: what the process takes for the
interpreter is a launcher, which stands for the server and ends with it.

Where there is a Prefect server, the parent also runs the program once itself: what is made when it is first
used is there as well. Prefect's threads, which that leaves, are not there after a fork: it makes them anew.

Where not even the process is what is proved, one that was forked runs the command line for one test after the
other: each time with that test's folder, environment, arguments and files.
"""

from __future__ import annotations

import ast
import atexit
import ctypes
import fcntl
import gc
import importlib
import inspect
import json
import logging
import os
import pkgutil
import resource
import runpy
import select
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from contextlib import suppress
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

import certifi

import tasks.core
from flows.process.settings import DEFAULTS, QUIET, variable_of
from tasks.core.chat.negotiation import LEARNED
from tasks.core.session.dataset import ROOT as LOGGER

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.abc import Loader
    from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]
BEFORE_PREFECT = (
    "flows.commands.app",
    "flows.commands.sessions",
    "flows.commands.validate",
    "flows.hosting",
    "aiosqlite",
    "fastapi",
    "uvicorn.main",
    "xml.etree.ElementTree",
)
"""What is imported besides all of `tasks.core`, before Prefect."""
READS_ENVIRONMENT = "tasks.core.hub"
"""What is not imported before: the library of the Hub reads its settings when it is imported."""
WITH_PREFECT = (
    "prefect",
    "prefect.cli",
    "prefect.server.api.server",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "flows.generate",
    "flows.generate_shard",
    "flows.transform",
    "flows.clean",
)
OURS = ("flows", "tasks")
NEVER_IMPORTED = ("TYPE_CHECKING", "__name__ == '__main__'")
POLL = 0.01
START_SECONDS = 600.0
IN_TURN = "--in-turn"
"""What is forked to run the command line again and again; its standard input is where it is told what."""
WARM = "--warm"
"""What the parent itself is told to run, once: what is made when it is first used is made then."""
STARTED = ("flows.process.server_main",)
"""Modules that forked processes start in processes of their own, and that the parent forks, too. What a
worker starts is none of them: it goes by who the parent of a process is."""
LAUNCHER = '''#!{python} -ISE
"""The interpreter of what the tests' parent forked: has the parent fork what is started with it.

It stands for what is forked: it hands on signals, ends as that ends, and that ends with it.
"""
import os, sys

if sys.argv[1] != "-m" or sys.argv[2] not in {started}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])

import json, signal, socket

files = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name))
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({address!r})
asked = dict(command=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
asked.update(numbers=files, umask=os.umask(0))
socket.send_fds(line, [json.dumps(asked).encode()], files)
pid = int(line.recv(64))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, _: os.killpg(pid, number))
for file in files:
    os.close(file)
code = int(line.recv(64))
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
'''
ANSWERED_BY_PREFECT = (".env", "prefect.toml", "pyproject.toml")
"""The files of a working folder in which Prefect finds settings."""
SHARED = "VELLUMFORGE_TESTS"
"""The environment variable with the folder that all of pytest's workers share."""


def authorities() -> str:
    """A file with one certificate authority.

    Nothing here has a certificate, and a client takes 30 ms of CPU to read the 150 of certifi's.
    """
    folder = os.environ.get(SHARED)
    if folder is None:
        return certifi.where()
    one = Path(folder, "authority.pem")
    if not one.exists():
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
        first = certifi.contents().partition(begin)[2].partition(end)[0]
        part = one.with_suffix(f".{os.getpid()}")
        part.write_text(begin + first + end)
        part.rename(one)
    return str(one)


class Forked:
    """A process that the prepared parent forked; what the tests need of `subprocess.Popen`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()
        weakref.finalize(self, line.close)
        self.returncode: int | None = None
        line.settimeout(START_SECONDS)
        self.pid = int(line.recv(64))

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("forked", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, timeout: float) -> int | None:
        readable = select.poll()
        readable.register(self._line, select.POLLIN)
        # One thread may wait while another one asks.
        if self.returncode is None and readable.poll(timeout * 1000):
            with self._lock:
                if self.returncode is None:
                    said = self._line.recv(64)
                    assert said, "the parent of the tests' processes is gone"
                    self.returncode = int(said)
        return self.returncode


class Parent:
    """The prepared parent, started when it is first needed; it ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        files: Sequence[int],
        within: int | None = None,
    ) -> Forked:
        """Run a command.

        Args:
            command: What follows the interpreter: `-m` and a module's name, or `-c` and a program; then the
                arguments.
            folder: The working folder.
            environment: All environment variables.
            files: Descriptors of standard input, output and error output.
            within: A process whose user and mount namespaces it enters first.
        """
        with self._lock:
            if self._socket is None:
                self._socket = self._start()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            asked = {
                "command": list(command),
                "folder": str(folder),
                "environment": dict(environment),
                "within": within,
            }
            socket.send_fds(self._socket, [json.dumps(asked).encode()], [theirs.fileno(), *files])
        return Forked(ours)

    def warm(self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        """Have the parent itself run the command line once: what it forks does nothing for the first time.

        Args:
            arguments: Those of `vellumforge2`.
            folder: The working folder.
            environment: All environment variables.
        """
        with Path(os.devnull).open("rb+") as nothing:
            files = [nothing.fileno()] * 3
            said = self.fork([WARM, *arguments], folder=folder, environment=environment, files=files)
            ended = said.wait(START_SECONDS)
        assert ended == 0, "the first run of the tests' parent failed"

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            plain = {
                name: value for name, value in os.environ.items() if not name.upper().startswith("PREFECT_")
            }
            # As the program sets them: logging is set up once for all that leave it so.
            plain |= {variable_of(name): value for name, value in {**DEFAULTS, **QUIET}.items()}
            plain["SSL_CERT_FILE"] = authorities()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.flows.prepared", str(theirs.fileno())],
                cwd=ROOT,
                env=plain,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self._stop)
        return ours

    def _stop(self) -> None:
        assert self._socket is not None
        assert self._process is not None
        self._socket.close()
        self._process.wait(START_SECONDS)


PARENT = Parent()


class InTurn:
    """A process that runs the command line for one test after the other; it ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._process: Forked | None = None

    def run(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], files: Sequence[int]
    ) -> int:
        """Run the command line to its end.

        Args:
            arguments: Those of `vellumforge2`.
            folder: The working folder.
            environment: All environment variables.
            files: Descriptors of standard input, output and error output.

        Returns:
            The exit code.
        """
        asked = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
        with self._lock:
            line = self._line or self._start()
            socket.send_fds(line, [json.dumps(asked).encode()], list(files))
            try:
                said = line.recv(64)
            except TimeoutError:
                os.kill(self._ended().pid, SIGKILL)
                raise
            # A run that cannot wait for Prefect leaves its process at once, and the next one has another.
            return int(said) if said else self._ended().wait(START_SECONDS)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, Path(os.devnull).open("wb") as nothing:
            files = (theirs.fileno(), nothing.fileno(), nothing.fileno())
            self._process = PARENT.fork([IN_TURN, ""], folder=ROOT, environment=os.environ, files=files)
        ours.settimeout(START_SECONDS)
        atexit.register(ours.close)
        self._line = ours
        return ours

    def _ended(self) -> Forked:
        assert self._line is not None
        assert self._process is not None
        self._line.close()
        self._line = None
        return self._process


HERE = InTurn()


class _Kept:
    """What was imported with Prefect: it is there again when one of it is imported, and reads its settings.

    Prefect reads its settings once, at import, and the program makes them before. So a forked process must
    find Prefect not imported, and importing it must read the settings as they are then.
    """

    def __init__(self, logged_by: list[object]) -> None:
        self._modules: dict[str, ModuleType] = {}
        self._logged_by = logged_by
        self._specs: dict[str, ModuleSpec | None] = {}
        self._is_there = False
        self._read_from: list[object] | None = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A finder's answer for a module that is kept."""
        del path, target
        if name not in self._modules or self._is_there:
            return None
        spec = self._specs[name]
        assert spec is not None
        packaged = spec.submodule_search_locations is not None
        return ModuleSpec(name, self._loader(), origin=spec.origin, is_package=packaged)

    def _loader(self) -> Loader:
        return self  # type: ignore[return-value]  # it has a loader's two methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that is kept."""
        if not self._is_there:
            self._is_there = True
            sys.modules.update(self._modules)
            read_from = _settings_sources()
            if read_from is None or read_from != self._read_from:
                self._logged_by = _read_settings(self._logged_by)
            self._read_from = read_from
        return self._modules[spec.name]

    def keep(self, names: Iterable[str]) -> None:
        """Keep modules that are imported, too."""
        for name in names:
            self._modules[name] = module = sys.modules[name]
            self._specs[name] = module.__spec__
        self.put_away()

    @property
    def names(self) -> set[str]:
        """The names of what is kept."""
        return set(self._modules)

    def put_away(self) -> None:
        """Whoever imports it next finds it not imported."""
        self._is_there = False
        for name in self._modules:
            sys.modules.pop(name, None)

    def get_code(self, name: str) -> CodeType | None:
        """The code of the module, to run it as `__main__`."""
        spec = self._specs[name]
        assert spec is not None
        assert isinstance(spec.loader, SourceFileLoader)
        return spec.loader.get_code(name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it was executed in the parent."""
        module.__spec__ = self._specs[module.__name__]


def _settings_sources() -> list[object] | None:
    """All that Prefect reads its settings from; None where there are files of them, which may change."""
    variables = {name: value for name, value in os.environ.items() if name.upper().startswith("PREFECT_")}
    homes = [Path(variables.get("PREFECT_HOME") or Path.home() / ".prefect") / "profiles.toml"]
    if any(path.exists() for path in (*map(Path, ANSWERED_BY_PREFECT), *homes)):
        return None
    return [variables, Path.home()]


def _read_settings(logged_by: list[object]) -> list[object]:
    """Have Prefect read its settings; gives what its logging is set up by now."""
    from prefect import context  # noqa: PLC0415 - it is kept away until now
    from prefect.logging import configuration  # noqa: PLC0415 - the same

    context.refresh_global_settings_context()
    now = _logging()
    if now != logged_by:
        configuration.PROCESS_LOGGING_CONFIG.clear()
        configuration.setup_logging()
    return now


def _logging() -> list[object]:
    """All that Prefect's logging is set up by; to set it up takes a fifth of a small run."""
    from prefect import settings  # noqa: PLC0415 - the same

    now = settings.get_current_settings()
    return [
        now.logging.level,
        now.server.logging_level,
        now.internal.logging_level,
        now.logging.extra_loggers,
        now.logging.config_path.exists(),
        {name: value for name, value in os.environ.items() if name.upper().startswith("PREFECT_LOGGING_")},
    ]


class _Serving:
    """Forks a process for each message, from the tests and from the launchers of what was forked."""

    def __init__(self, control: socket.socket, kept: _Kept) -> None:
        self._control = control
        self._kept = kept
        self._watched = selectors.DefaultSelector()
        self._watched.register(control, selectors.EVENT_READ, self._hear)
        folder = tempfile.mkdtemp(prefix="parent-", dir=os.environ.get(SHARED))
        address = str(Path(folder, "parent.sock"))
        self._launchers = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._launchers.bind(address)
        self._launchers.listen()
        self._watched.register(self._launchers, selectors.EVENT_READ, self._greet)
        self.launcher = Path(folder, "python")
        text = LAUNCHER.format(python=sys.executable, started=STARTED, address=address)
        self.launcher.write_text(text, encoding="utf-8")
        self.launcher.chmod(0o700)
        self._lines: set[socket.socket] = set()
        self._processes: set[int] = set()
        self._ended = False

    def until_forked(self) -> dict[str, Any] | None:
        """Returns in each forked process with what it is to run, and None at the end."""
        while not self._ended:
            for key, _ in self._watched.select():
                # One that is read before may have ended what another one tells of.
                if key not in self._watched.get_map().values():
                    continue
                asked: dict[str, Any] | None = key.data(key)
                if asked is not None:
                    return asked
        shutil.rmtree(self.launcher.parent)
        return None

    def _hear(self, key: selectors.SelectorKey) -> dict[str, Any] | None:
        """A message of the tests."""
        del key
        message, files, _, _ = socket.recv_fds(self._control, 1 << 20, 4)
        if not message:
            self._ended = True
            return None
        asked: dict[str, Any] = json.loads(message)
        line = socket.socket(fileno=files.pop(0))
        line.set_inheritable(False)
        if asked["command"][0] == WARM:
            with line:
                line.send(b"%d" % os.getpid())
                line.send(b"%d" % _warm_up(asked, files, self._kept))
            return None
        return self._fork(line, {**asked, "numbers": [0, 1, 2]}, files)

    def _greet(self, key: selectors.SelectorKey) -> None:
        """A launcher that was started; it says at once what it wants."""
        del key
        line, _ = self._launchers.accept()
        line.set_inheritable(False)
        self._watched.register(line, selectors.EVENT_READ, self._hear_launcher)

    def _hear_launcher(self, key: selectors.SelectorKey) -> dict[str, Any] | None:
        line: Any = key.fileobj
        self._watched.unregister(line)
        message, files, _, _ = socket.recv_fds(line, 1 << 20, 16)
        if not message:
            line.close()
            return None
        return self._fork(line, {**json.loads(message), "within": None, "launched": True}, files)

    def _fork(
        self, line: socket.socket, asked: dict[str, Any], files: Sequence[int]
    ) -> dict[str, Any] | None:
        pid = os.fork()
        if not pid:
            os.setsid()
            line.send(b"%d" % os.getpid())
            for other_process in self._processes:
                os.close(other_process)
            for other in (*self._lines, line, self._control, self._launchers):
                other.close()
            self._watched.close()
            _take(files, asked["numbers"])
            return asked
        for file in files:
            os.close(file)
        descriptor = os.pidfd_open(pid)
        self._processes.add(descriptor)
        self._lines.add(line)
        self._watched.register(descriptor, selectors.EVENT_READ, partial(self._note_end, pid, line))
        if asked.get("launched"):
            self._watched.register(line, selectors.EVENT_READ, partial(self._end_too, pid))
        return None

    def _note_end(self, pid: int, line: socket.socket, key: selectors.SelectorKey) -> None:
        """A process ended."""
        _, status = os.waitpid(pid, 0)
        self._watched.unregister(key.fileobj)
        self._processes.remove(key.fd)
        os.close(key.fd)
        with suppress(KeyError):  # only a launcher's is watched
            self._watched.unregister(line)
        self._lines.remove(line)
        with line, suppress(OSError):  # nobody may be there to be told
            line.send(b"%d" % os.waitstatus_to_exitcode(status))

    def _end_too(self, pid: int, key: selectors.SelectorKey) -> None:
        """A launcher was killed: what it stands for is killed, with all that has its process group."""
        self._watched.unregister(key.fileobj)
        os.killpg(pid, SIGKILL)


def _take(files: Sequence[int], numbers: Sequence[int] = (0, 1, 2)) -> None:
    """Have these files under these numbers."""
    # Some may have a number that another one is to have.
    free = max(*files, *numbers) + 1
    apart = [fcntl.fcntl(file, fcntl.F_DUPFD, free) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(apart, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def _warm_up(asked: Mapping[str, Any], files: Sequence[int], kept: _Kept) -> int:
    """Run the command line in the parent itself, and have all else as it was; gives its exit code."""
    own = [os.dup(number) for number in range(len(files))]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    before_the_end = list(threading._threading_atexits)  # type: ignore[attr-defined]
    code = _run_here({**asked, "arguments": asked["command"][1:]}, files, kept)
    _take(own)
    # What Prefect would do at the end of its threads, which are not there in what is forked.
    threading._threading_atexits[:] = before_the_end  # type: ignore[attr-defined]
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    os.chdir(ROOT)
    _put_away(kept)
    return code


def _enter(pid: int) -> None:
    """Enter the user and the mount namespace of a process, as `nsenter` does."""
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "mnt")]
    for space in spaces:
        if libc.setns(space, 0):
            raise OSError(ctypes.get_errno(), "the namespace cannot be entered")
        os.close(space)


def _imported_at_once(module: ModuleType) -> set[str]:
    """The names of the modules that a module of ours imports when it is imported itself."""
    found: set[str] = set()
    statements: list[ast.stmt] = list(ast.parse(inspect.getsource(module)).body)
    while statements:
        statement = statements.pop()
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            found |= {statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)}
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) not in NEVER_IMPORTED:
            statements += statement.body + statement.orelse
    return found


def _put_away(kept: _Kept) -> None:
    """Have what is imported with Prefect kept, and forget what reads the environment when it is imported."""
    ours = [name for name in sys.modules if name.partition(".")[0] in OURS]
    prefect = {name for name in sys.modules if name.partition(".")[0] == "prefect"}
    kept.keep(_with_prefect(ours, kept.names) | prefect)
    for name in ours:
        if name.startswith(READS_ENVIRONMENT):
            del sys.modules[name]
    gc.collect()
    gc.freeze()


def _with_prefect(names: Iterable[str], known: set[str]) -> set[str]:
    """Those of our modules that import Prefect, or what is known to, when they are imported themselves."""
    imports = {name: _imported_at_once(sys.modules[name]) for name in names}
    found = set(known)
    while True:
        more = {
            name
            for name, others in imports.items()
            if any(other in found or other.partition(".")[0] == "prefect" for other in others)
        }
        if more <= found:
            return found - known
        found |= more


def _run_in_turn(kept: _Kept) -> None:
    """Run the command line for each message, until there are no more."""
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    while True:
        message, numbers, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not message:
            return
        control.send(b"%d" % _run_here(json.loads(message), numbers, kept))


def _run_here(asked: Mapping[str, Any], files: Sequence[int], kept: _Kept) -> int:
    """Run the command line once in this process; what runs next finds nothing of it. Gives its exit code."""
    from flows.commands.app import main as command_line  # noqa: PLC0415 - the parent imported it

    logger = logging.getLogger(LOGGER)
    handlers = list(logger.handlers)
    _take(files)
    _become(asked["folder"], asked["environment"])
    try:
        code = command_line(asked["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - what ends a process with a traceback
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    logger.handlers[:] = handlers
    LEARNED.forget()
    kept.put_away()
    return code


def _become(folder: str, environment: Mapping[str, str]) -> None:
    """Take a working folder and an environment."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def _run_once(command: Sequence[str], folder: str) -> None:
    """Run a command, as the interpreter would."""
    kind, what, *arguments = command
    path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.argv[:] = [kind, *arguments]
    sys.orig_argv[:] = [sys.executable, *command]
    if kind == "-m":
        sys.path[:1] = [folder, *path]
        if not hasattr(sys.modules.get(what), "__path__"):
            # Of a package, another module is run: its `__main__`.
            sys.modules.pop(what, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path[:1] = ["", *path]
        exec(what, sys.modules["__main__"].__dict__)  # noqa: S102 - a program of the tests, as `python -c` runs it


def main() -> None:
    """Import everything, then fork until the tests' end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    core = [module.name for module in pkgutil.walk_packages(tasks.core.__path__, "tasks.core.")]
    for name in (*BEFORE_PREFECT, *(name for name in core if not name.startswith(READS_ENVIRONMENT))):
        importlib.import_module(name)
    for name in WITH_PREFECT:
        importlib.import_module(name)
    finder = _Kept(_logging())
    _put_away(finder)
    sys.meta_path.insert(0, finder)
    assert "huggingface_hub" not in sys.modules
    assert threading.active_count() == 1, "a thread is not there after a fork"
    serving = _Serving(control, finder)
    asked = serving.until_forked()
    if asked is None:
        return
    if asked["within"] is not None:
        _enter(asked["within"])
    else:
        # What it starts is forked too, but for what has file systems of its own.
        sys.executable = str(serving.launcher)
    if "umask" in asked:
        os.umask(asked["umask"])
    _become(asked["folder"], asked["environment"])
    if asked["command"][0] == IN_TURN:
        _run_in_turn(finder)
    else:
        _run_once(asked["command"], asked["folder"])


if __name__ == "__main__":
    main()

"""The command line as a real process, the demo model server and a Prefect server as others."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
import zlib
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from sqlite3 import connect
from typing import IO, TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import urlopen

from flows.process.server import DATABASE
from flows.process.server_main import give_tables
from flows.process.settings import DEFAULTS, variable_of
from tests.flows.prepared import HERE, PARENT, authorities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.flows.prepared import Forked

ROOT = Path(__file__).parents[2]
MODULE = (sys.executable, "-m", "flows.generate")
"""`python -m flows.generate`, whose arguments are those of `vellumforge2 run`."""
CHECKPOINT = (sys.executable, "-m", "flows.checkpoint")
"""`python -m flows.checkpoint`, which is `vellumforge2 checkpoint`."""
PROGRAM = (sys.executable, "-c", "import sys; from flows.commands.app import main; sys.exit(main())")
"""What the installed script `vellumforge2` does."""
_RUN_IN_EACH = """
import json, os, sys
from flows.commands.app import main
def code(folder):
    os.chdir(folder)
    ended = main(["run"])
    os.chdir("..")
    return ended
print(json.dumps({folder: code(folder) for folder in sys.argv[1:]}))
"""
RUN_IN_EACH = (sys.executable, "-c", _RUN_IN_EACH)
"""`vellumforge2 run` in several folders, one after the other in one process; prints their exit codes."""
FLOW_RUN = (sys.executable, "-m", "tests.flows._flow_run")
"""A flow run as a worker runs it."""
PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")
"""Prefect's command line, which asks nothing."""

SERVICES = (
    "SCHEDULER",
    "LATE_RUNS",
    "CANCELLATION_CLEANUP",
    "PAUSE_EXPIRATIONS",
    "FOREMAN",
    "TRIGGERS",
    "EVENT_PERSISTER",
)
SERVER = ("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "warning")
"""What `prefect server start` runs, without its own seconds of imports."""
IN_TURN: dict[tuple[str, ...], tuple[str, ...]] = {MODULE: ("run",), CHECKPOINT: ("checkpoint",), PROGRAM: ()}
"""Programs that one process can run again and again, and what each says to `vellumforge2`."""
PREPARED = {MODULE, CHECKPOINT, PROGRAM, RUN_IN_EACH, FLOW_RUN, PREFECT[:3]}
"""What the prepared parent forks, beside programs that are given as text."""

TIMEOUT = 600.0
"""Seconds after which what is waited for is taken to hang; nothing takes a tenth of it."""
POLL = 0.005
START_POLL = 0.02
"""While what is waited for has not even begun."""
LONGEST_POLL = 0.1
REFUSED = 400
"""The status with which the demo's server refuses a question."""

_INTERPRETERS = {"PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "LC_ALL", "LANG"}
"""Variables that the interpreter reads when it starts: who sets one gets an interpreter that starts."""

_DROPPED = ("PREFECT_", "VELLUMFORGE__", "HF_", "HUGGING")

Row = dict[str, Any]


_PROGRESS = re.compile(r"(?:subtopics|prompts|pairs|complete) [\d,]+/[\d,]+ · .*\n")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code.
        out: What it said on standard output.
        err: What it said on standard error, without the lines of progress: there are some when the machine
            has other work.
    """

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The summary that `--json` printed."""
        assert self.out, f"it ended with {self.code} and without a summary: {self.err}"
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class User:
    """Someone who runs the program in a folder, with a home that is empty at first.

    Attributes:
        home: Their home.
        folder: The working folder.
        variables: Environment variables beside those that every process has.
        forks: Whether the program is forked from the prepared parent, and not started from nothing.
        within: A process whose user and mount namespaces it is forked into, or None.
        in_turn: Whether what is run to its end has no process of its own: one runs all that, in turn.
    """

    home: Path
    folder: Path
    variables: Mapping[str, str]
    forks: bool = True
    within: int | None = None
    in_turn: bool = False

    @classmethod
    def made(cls, where: Path, **variables: str) -> User:
        """A new user below the folder `where`."""
        home, folder = where / "home", where / "work"
        for path in (home, folder):
            path.mkdir(parents=True)
        return cls(home, folder, variables)

    def in_one_process(self) -> User:
        """The same user, whose runs to their end have one process, in turn."""
        return replace(self, in_turn=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process of this user has: nothing of the machine's own settings and secrets."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(_DROPPED) and not name.upper().endswith("API_KEY")
        }
        kept |= {"HOME": str(self.home), "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": authorities()}
        return kept | dict(self.variables)

    def start(self, *arguments: str, program: Sequence[str] = MODULE, **variables: str) -> Process:
        """Start the command line; `variables` are added to the environment."""
        environment = self.environment | variables
        command = [*program, *arguments]
        out, err = os.memfd_create("out"), os.memfd_create("err")
        own_interpreter = _INTERPRETERS & {*self.variables, *variables}
        with Path(os.devnull).open("rb") as nothing:
            if self.forks and _is_prepared(program) and not own_interpreter:
                files = (nothing.fileno(), out, err)
                forked = PARENT.fork(
                    command[1:], folder=self.folder, environment=environment, files=files, within=self.within
                )
                return Process(forked, out, err, forked_for=self.home)
            assert self.within is None, "only what is forked enters namespaces"
            started = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=nothing,
                stdout=out,
                stderr=err,
                # A group of its own, which can be killed as a whole.
                start_new_session=True,
            )
        return Process(started, out, err)

    def run(self, *arguments: str, program: Sequence[str] = MODULE, **variables: str) -> Ended:
        """Run the command line to its end."""
        first = IN_TURN.get(tuple(program[:3]))
        if not self.in_turn or first is None or _INTERPRETERS & {*self.variables, *variables}:
            return self.start(*arguments, program=program, **variables).end()
        out, err = os.memfd_create("out"), os.memfd_create("err")
        try:
            with Path(os.devnull).open("rb") as nothing:
                code = HERE.run(
                    [*first, *program[3:], *arguments],
                    folder=self.folder,
                    environment=self.environment | variables,
                    files=(nothing.fileno(), out, err),
                )
            return Ended(code, _content(out), _PROGRESS.sub("", _content(err)))
        finally:
            os.close(out)
            os.close(err)

    def processes(self) -> list[int]:
        """The process ids of all that runs as this user, whoever its parent is."""
        mark = f"HOME={self.home}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it is another user's, or ended meanwhile
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found + [
            process.pid for home, process in Process.forked if home == self.home and process.running
        ]

    def write(self, name: str, text: str) -> Path:
        """Write a file of the working folder."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def sessions(self, output: str = "output") -> list[Path]:
        """The session folders, oldest first."""
        return sorted((self.folder / output).glob("session_*"), key=lambda path: path.stat().st_ctime_ns)


class Process:
    """A process of the command line, whose output goes to two files in memory."""

    forked: ClassVar[list[tuple[Path, Process]]] = []
    """Those that the prepared parent forked, and the home of their user, which their environment hides."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | Forked,
        out: int,
        err: int,
        *,
        forked_for: Path | None = None,
    ) -> None:
        self._process = process
        self._out = out
        self._err = err
        for descriptor in (out, err):
            weakref.finalize(self, os.close, descriptor)
        self._read = 0
        self.pid = process.pid
        if forked_for is not None:
            # Those that ended have open files, which go with them.
            self.forked[:] = [(home, other) for home, other in self.forked if other.running]
            self.forked.append((forked_for, self))

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def kill(self, *, group: bool = False) -> None:
        """SIGKILL the process, or its whole process group."""
        (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)

    def until_said(self, text: str) -> None:
        """Wait until there is a line with this text on its standard error, after those waited for before."""
        while True:
            ended = not self.running
            said = _content(self._err)
            at = said.find(text, self._read)
            end = said.find("\n", at)
            if at >= 0 <= end:
                self._read = end
                return
            assert not ended, f"it ended without saying {text!r}: {said}"
            time.sleep(POLL)

    def has_said(self, text: str) -> bool:
        """Whether this text stands on its standard error by now."""
        return text in _content(self._err)

    def end(self, timeout: float = TIMEOUT) -> Ended:
        """Wait for its end."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait(timeout)
            said = f"{_content(self._out)}\n{_content(self._err)}"
            raise AssertionError(f"still running after {timeout:g} s:\n{said}") from None
        return Ended(code, _content(self._out), _PROGRESS.sub("", _content(self._err)))

    def children(self) -> list[int]:
        """The process ids of its children: its embedded server, when it has one."""
        found: list[int] = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, task.read_text().split())
        return found


def _is_prepared(program: Sequence[str]) -> bool:
    """Whether the prepared parent forks it; the rest is started as it is."""
    return tuple(program[:3]) in PREPARED or tuple(program[:2]) == (sys.executable, "-c")


def _content(descriptor: int) -> str:
    """What stands in a file; where its writers are stays as it is."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode("utf-8").replace("\r\n", "\n")


def until(holds: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Poll until something holds; fail when it does not in time."""
    end, pause = time.monotonic() + timeout, POLL
    while not holds():
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_POLL)


def outlives(pids: Sequence[int], seconds: float) -> list[int]:
    """Those of the processes that are still there after so many seconds."""
    end = time.monotonic() + seconds
    left = []
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                left.append(pid)
        finally:
            os.close(descriptor)
    return left


class Model:
    """The demo model server as a process; it can be stopped and started again at its address."""

    def __init__(self) -> None:
        self._process: Forked | None = None
        self._life: IO[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Its base URL, the same after every start."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, **behaviour: float | str) -> None:
        """Start it, or start it again, with options of `Behaviour`."""
        self.stop()
        options = [f"--{name.replace('_', '-')}={value}" for name, value in behaviour.items()]
        port = str(self.port or _port_of_test())
        command = ["-m", "tasks.core.demo.server", "--with-parent", "--port", port, *options]
        # It ends when its standard input does: with this process, whatever becomes of it.
        read, life = os.pipe()
        out, write = os.pipe()
        with Path(os.devnull).open("wb") as nothing:
            files = (read, write, nothing.fileno())
            self._process = PARENT.fork(command, folder=ROOT, environment=os.environ, files=files)
        os.close(read)
        os.close(write)
        self._life = os.fdopen(life, "wb")
        with os.fdopen(out) as said:
            taken = urlsplit(said.readline().strip()).port
        assert taken is not None
        assert self.port in {0, taken}, "the port was taken by somebody else"
        self.port = taken

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._life is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(TIMEOUT)
            self._life.close()
            self._process = self._life = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it take connections in this block, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stats(self) -> dict[str, Any]:
        """Its counts since it started."""
        found: dict[str, Any] = self._get("/stats")
        return found

    def requests(self) -> list[dict[str, Any]]:
        """Every chat request since it started, in order of arrival."""
        found: list[dict[str, Any]] = self._get("/requests")
        return found

    def until_requests(self, number: int, process: Process) -> bool:
        """Wait until so many requests arrived; False when the process ended before."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            while process.running:
                connection.request("GET", "/stats")
                arrived = json.load(connection.getresponse())["requests"]
                if arrived >= number:
                    return True
                time.sleep(POLL if arrived else START_POLL)
        finally:
            connection.close()
        return False

    def _get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=TIMEOUT) as response:
            return json.load(response)


def _port_of_test() -> int:
    """A port that is the same each time a test runs: what the demo's models answer depends on theirs.

    It lies below those that the system gives away. Where it is taken, the server takes one of the next.
    """
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" (")[0]
    return 20_000 + zlib.crc32(test.encode()) % 12_000 if test else 0


@contextmanager
def model(**behaviour: float | str) -> Iterator[Model]:
    """A running demo model server."""
    server = Model()
    server.start(**behaviour)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def prefect_server(
    home: Path, *, pages: bool = False, services: bool = True, **variables: str
) -> Iterator[str]:
    """A real Prefect server of somebody's own, with its home there; gives the URL of its API.

    Args:
        home: Its home.
        pages: Whether it serves the UI as well.
        services: Whether it looks after schedules, late runs and automations as well.
        variables: Added to its environment.
    """
    home.mkdir(parents=True, exist_ok=True)
    if not services:
        variables |= {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in SERVICES}
    give_tables(home / DATABASE)
    with _starting(home, free_port(), pages=pages, variables=variables) as url:
        yield url


def flow_run_states(home: Path) -> list[str]:
    """The types of the states of the flow runs in the database of a home, the oldest run first."""
    with closing(connect(home / DATABASE)) as database:
        return [state for (state,) in database.execute("SELECT state_type FROM flow_run ORDER BY created")]


@contextmanager
def _starting(home: Path, port: int, *, pages: bool, variables: Mapping[str, str]) -> Iterator[str]:
    user = User(home, home, {})
    settings = {variable_of(name): value for name, value in DEFAULTS.items()}
    settings |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false"}
    settings |= {"PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api"}
    settings |= {"PREFECT_UI_STATIC_DIRECTORY": str(home / "ui")}
    settings |= {"PREFECT_SERVER_UI_ENABLED": str(pages).lower(), "PREFECT__SERVER_FINAL": "1"}
    out, err = (os.open(home / name, os.O_RDWR | os.O_CREAT) for name in ("output.log", "error.log"))
    with Path(os.devnull).open("rb") as nothing:
        forked = PARENT.fork(
            [*SERVER, "--port", str(port)],
            folder=home,
            environment=user.environment | settings | dict(variables),
            files=(nothing.fileno(), out, err),
        )
    process = Process(forked, out, err, forked_for=home)
    try:
        until(lambda: not process.running or healthy(port), "the Prefect server's start")
        assert process.running, process.end().err
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.send(signal.SIGTERM)
        process.end()


def healthy(port: int) -> bool:
    """Whether a Prefect server answers at this port."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def rows_of(session: Path, name: str = "dataset.jsonl") -> list[Row]:
    """The rows of a session's dataset."""
    return [json.loads(line) for line in (session / name).read_text(encoding="utf-8").splitlines()]


def asked_twice(requests: Sequence[dict[str, Any]]) -> list[str]:
    """The keys of the calls that a server was asked for more than once, one entry a further time.

    What it refuses may be asked once more: a status does not tell whether it refuses the question.
    """
    seen: set[str] = set()
    again = []
    for request in requests:
        if request["key"] in seen:
            again.append(request["key"])
        if request["status"] != REFUSED:
            seen.add(request["key"])
    return again


TEMPLATES = """
[prompt_templates]
subtopic_generation = '''Generate {{.NumSubtopics}} different subtopics of "{{.MainTopic}}".
{{if .IsRetry}}Leave out these, which exist already: {{.ExcludeSubtopics}}
{{end}}Answer with a JSON array of strings and nothing else.'''
prompt_generation = '''Generate {{.NumPrompts}} writing prompts for subtopic: "{{.SubTopic}}".
Each is one or two sentences with a character and a conflict.
Answer with a JSON array of strings and nothing else.'''
chosen_generation = '''Write a short story of 400 to 600 words for this prompt, with a clear arc:

{{.Prompt}}'''
rejected_generation = '''Write a short story for this prompt:

{{.Prompt}}'''
judge_rubric = '''Score the story below on every criterion from 1 to 5, with one sentence of reasoning each.

PROMPT: {{.Prompt}}
STORY: {{.StoryText}}

Criteria:
1. plot_quality
2. creativity
3. writing_quality

Answer with JSON only: {"plot_quality": {"score": 3, "reasoning": "..."}, ...}'''
chosen_system_prompt = "You are a published writer of short stories about {{.MainTopic}}."
"""


def config(
    url: str,
    *,
    mode: str = "dpo",
    subtopics: int = 3,
    prompts: int = 2,
    concurrency: int = 8,
    generation: str = "",
    models: str = "max_retries = 2\nmax_backoff_seconds = 0.1",
    more: str = "",
    templates: str = TEMPLATES,
    replaced: bool = False,
    preflight: bool = False,
) -> str:
    """A configuration file for models at `url`.

    Args:
        url: Their base URL.
        mode: The dataset mode.
        subtopics: How many are wanted.
        prompts: How many a subtopic.
        concurrency: Jobs at the same time.
        generation: Further lines of that section.
        models: Further lines for each model.
        more: Further sections.
        templates: The section of templates.
        replaced: Whether near-duplicates, and prompts that yield no usable pair, are replaced. Tests that
            count calls do without: what the demo's models write depends on its port.
        preflight: Whether the models are checked first. Tests that count calls do without.
    """
    judge = "true" if mode == "mo-dpo" or "judge_filtering" in more else "false"
    lines = [
        "[generation]",
        'main_topic = "Lighthouse keepers & the sea"',
        f"num_subtopics = {subtopics}",
        f"num_prompts_per_subtopic = {prompts}",
        f"concurrency = {concurrency}",
        f'dataset_mode = "{mode}"',
        "enable_checkpointing = true",
        "checkpoint_interval = 1",
        generation,
        *(() if replaced else ("max_prompts_per_pair = 1", "similarity_threshold = 1")),
    ]
    for role, name, extra in (
        ("main", "strong-writer", ""),
        ("rejected", "weak-writer", ""),
        ("judge", "critic", f"enabled = {judge}"),
    ):
        lines += [
            f"[models.{role}]",
            f'base_url = "{url}"',
            f'model_name = "{name}"',
            "rate_limit_per_minute = 0",
            extra,
            models,
        ]
    if not preflight:
        execution = "[execution]\npreflight = false\n"
        more = more.replace("[execution]\n", execution) if "[execution]\n" in more else f"{more}\n{execution}"
    return "\n".join([*lines, more, templates])

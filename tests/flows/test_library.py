"""A run as a function: twice in a process, in a running loop, and as the README shows it."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import TYPE_CHECKING

from tests.flows.command import ROOT, asked_twice, config, model, outlives, rows_of

if TYPE_CHECKING:
    from tests.flows.command import User

SCRIPT = """
import asyncio, json, signal, sys
import prefect
from flows import arun, run
from tasks.core.errors import VellumforgeError

def tell(done):
    print(json.dumps([done.folder.name, done.summary.rows, done.summary.paid, list(done.rows())]))

before = signal.getsignal(signal.SIGINT)
tell(run())
try:
    run(config="nothing.toml")
except VellumforgeError as error:
    print(json.dumps(str(error)))
tell(run(overrides={"output.folder": "other"}))

async def notebook():
    tell(run(fresh=True))
    tell(await arun(config="config.toml", env_file=None))

asyncio.run(notebook())
assert signal.getsignal(signal.SIGINT) is before
"""


def test_a_run_is_called_several_times_in_a_process(user: User) -> None:
    with model() as server:
        user.write("config.toml", config(server.url))
        ended = user.run(program=(sys.executable, "-c", SCRIPT))
        assert ended.code == 0, ended.err
        first, refused, other, fresh, again = map(json.loads, ended.out.splitlines())
        assert refused.startswith("nothing.toml")
        assert first[3] == other[3] == again[3] != fresh[3]
        # Prefect's results are of another ledger: the other folder's is paid for anew.
        assert [done[2] > 0 for done in (first, other, fresh, again)] == [True, True, True, False]
        paid = len(server.requests())
        assert paid == sum(done[2] for done in (first, other, fresh))
        assert user.run().code == 0
        assert len(server.requests()) == paid
        assert asked_twice(server.requests()) != [], "of the other folder's ledger"
    sessions = user.sessions()
    assert [rows_of(folder) for folder in sessions] == [first[3], fresh[3], first[3], first[3]]


INTERRUPTED = """
import asyncio, json, sys
from pathlib import Path
import prefect
from flows import run

async def notebook():
    run()

for how in ("asyncio.run", "a notebook's loop"):
    print(how, file=sys.stderr, flush=True)
    try:
        if how == "asyncio.run":
            asyncio.run(notebook())
        else:
            asyncio.new_event_loop().run_until_complete(notebook())
    except KeyboardInterrupt:
        print("interrupted")
(first, second) = sorted(path.name for path in Path("output").glob("session_*"))
print(json.dumps(run(resume=first).summary.rows))
"""


def test_ctrl_c_stops_a_run_in_a_running_loop(user: User) -> None:
    with model(latency_ms=100) as server:
        user.write("config.toml", config(server.url))
        process = user.start(program=(sys.executable, "-c", INTERRUPTED))
        for how in ("asyncio.run", "a notebook's loop"):
            process.until_said(how)
            server.until_requests(len(server.requests()) + 5, process)
            process.send(signal.SIGINT)
        ended = process.end()
        assert ended.code == 0, ended.err
        assert ended.out.splitlines() == ["interrupted", "interrupted", "6"]


DYING = """
import json, os, signal, time
import prefect
from flows import run
from tasks.core.errors import VellumforgeError

def child():
    (found,) = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return int(found)

os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "nonsense://"
try:
    run(demo=True)
except VellumforgeError as error:
    print(str(error).partition(" (")[0])
assert "PREFECT_API_URL" not in os.environ
del os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
print(run(demo=True).summary.rows)
server = child()
os.kill(server, signal.SIGKILL)
os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
print(run(demo=True, fresh=True).summary.rows)
assert child() != server
"""


def test_an_embedded_server_that_dies_is_started_again(lone_user: User) -> None:
    ended = lone_user.run(program=(sys.executable, "-c", DYING))
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == ["the embedded Prefect server does not answer", "12", "12"]


def test_the_readmes_example_runs(lone_user: User) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example.splitlines()) <= 10
    process = lone_user.start(program=(sys.executable, "-c", example))
    ended = process.end()
    assert ended.code == 0, ended.err
    (session,) = lone_user.sessions()
    assert f"12 rows in output/{session.name}" in ended.out
    assert "Dataset({" in ended.out
    assert not outlives(lone_user.processes(), 10)

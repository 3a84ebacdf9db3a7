"""A process that may open few files: fewer jobs at a time, and no call fails for want of a descriptor."""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.core.demo.server import Behaviour, DemoServer
from tasks.core.traffic.concurrency import OWN_FILES, room_for
from tests.core.programs import Program
from tests.core.running import NOBODY, running

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = 200
ASK = """
import asyncio, contextlib, json, os, resource, sys
from pathlib import Path
from tests.core.running import running, some_jobs

async def main(folder, url, room, calls):
    options = {"generation__concurrency": 64, "execution__adaptive_concurrency": False}
    async with running(Path(folder), url, models__main__max_retries=0, **options) as run:
        # What the ledger opens has files of its own in a run; here its connections are opened before.
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(run.ledger.transaction("read"))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = len(os.listdir("/dev/fd")) + int(room)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        asked = [run.client.ask(run.questions.chosen(job, 0)) for job in some_jobs(int(calls))]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    failed = [str(each) for each in ended if isinstance(each, Exception)]
    print(json.dumps([failed, run.progress.paid.total(), run.progress.attempts_failed]), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def room_of(files: int) -> Iterator[None]:
    """So many more files may be opened in the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_call_without_a_descriptor_waits_and_is_paid_once(tmp_path: Path, host: str) -> None:
    async with DemoServer(Behaviour(latency_ms=20)) as server:
        url = server.base_url.replace("127.0.0.1", host)
        with Program(ASK, str(tmp_path), url, "20", str(CALLS)) as program:
            # The server is in this process: its loop must go on meanwhile.
            out, _ = await asyncio.to_thread(program.end)
        failed, paid, refused = json.loads(out)
        assert (failed, paid) == ([], CALLS)
        assert refused > 0
        assert len(server.records) == CALLS


def test_as_many_jobs_as_there_are_descriptors_for() -> None:
    assert room_for(8, 4).jobs == 8
    with room_of(OWN_FILES + 43):
        assert room_for(64, 4).jobs == 10
        assert room_for(64, 2).jobs == 21
        assert room_for(3, 4).jobs == 3
        assert room_for(64, 4).needed == room_for(64, 4).most + 64 * 4 - 43
    with room_of(5):
        assert room_for(64, 4).jobs == 1


async def test_too_few_descriptors_are_said_before_the_first_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with room_of(OWN_FILES + 60):
        async with running(tmp_path, NOBODY, generation__concurrency=64) as run:
            jobs = run.config.generation.concurrency
            # Without a judge a job has two connections.
            assert 16 <= jobs <= 30
            assert run.generating._free == run.judging._free == jobs
    (line,) = [record.getMessage() for record in caplog.records if "may open" in record.getMessage()]
    assert f"too few for generation.concurrency = 64: it is {jobs} for this run; allow " in line

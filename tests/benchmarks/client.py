"""How the client does against servers that are broken or busy: `python -m tests.benchmarks.client [CASE …]`.

Cases, each against demo servers on the loopback interface, each with the figures that it prints:

- `broken`: 500 pairs through the command line while every fourth attempt fails, against an undisturbed run.
- `rate`: a minute against servers that allow 600 requests a minute: the rate used, the share of 429s.
- `slots`: a server with eight slots that queues: where the limit settles, throughput against fixed limits.
- `speed`: the client alone at 64 connections: requests a second of wall and of CPU time, connections opened.

Servers' figures are by the servers' own clock. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.request import urlopen

from tasks.core.chat.http import ChatHttp
from tasks.core.chat.transport import Manner
from tasks.core.demo.chat import Behaviour
from tasks.core.models import Purpose
from tests.benchmarks.pipeline import machine, run
from tests.core.chat.scripted import question
from tests.core.running import running
from tests.core.traffic.limiting import QueueingServer, RateLimitedServer
from tests.core.traffic.virtual import Bucket, FixedWindow, SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.core.demo.server import Record
    from tasks.core.ledger.client import LedgerClient
    from tests.core.traffic.virtual import RateServer

CONFIG = """
[generation]
main_topic = "What a benchmark asks"
num_subtopics = 10
num_prompts_per_subtopic = 50
over_generation_buffer = 0.0
concurrency = 64
dataset_mode = "dpo"

[output]
folder = "{folder}"

[models.main]
base_url = "{url}"
model_name = "strong"
rate_limit_per_minute = 0
max_retries = 10
max_backoff_seconds = 1.0
use_streaming = true

[models.rejected]
base_url = "{url}"
model_name = "weak"
rate_limit_per_minute = 0
max_retries = 10
max_backoff_seconds = 1.0
use_streaming = true
"""
TROUBLE = ["--error", "0.1", "--rate-limited", "0.1", "--retry-after", "1", "--truncate", "0.1"]
TROUBLE += ["--unfinished", "0.05"]
ALLOWED = 10.0
"""Requests a second that a server allows in `rate`."""


class Served:
    """The demo server in a process of its own, with what it recorded."""

    def __init__(self, *options: str) -> None:
        self._command = [sys.executable, "-m", "tasks.core.demo.server", "--with-parent", *options]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def shown(self, path: str) -> Any:
        with urlopen(self.url.removesuffix("/v1") + path) as response:  # noqa: S310 - our own server
            return json.load(response)


def broken() -> None:
    """Done when every fourth attempt fails: rows, wall time, and whether every Retry-After was kept."""
    walls = []
    for name, options in (("undisturbed", []), ("disturbed", TROUBLE)):
        with tempfile.TemporaryDirectory() as folder, Served("--latency-ms", "50", *options) as server:
            config = Path(folder) / "config.toml"
            config.write_text(CONFIG.format(folder=Path(folder) / "output", url=server.url), encoding="utf-8")
            figures = run(config, server.url)  # raises when the exit code is not 0
            stats, records = server.shown("/stats"), server.shown("/requests")
            waited = waited_last(records, 1.0)
            walls.append((figures["seconds"], figures["process_seconds"], figures["seconds"] - waited))
        print(
            f"{name}: {figures['rows']} rows in {figures['seconds']:.2f} s "
            f"(pairs {figures['phase_seconds']['pairs']:.2f} s, "
            f"the process {figures['process_seconds']:.2f} s); requests {stats['requests']}, "
            f"statuses {stats['statuses']}, duplicates {stats['duplicates']}, "
            f"connections {stats['connections']}; sent before Retry-After: {too_early(records, 1.0)}; "
            f"Retry-After of the calls that ended the phases: {waited:.0f} s"
        )
    work, process, without = (disturbed / calm for calm, disturbed in zip(*walls, strict=True))
    print(
        f"disturbed / undisturbed: the process {process:.2f}, the work {work:.2f}, "
        f"the work without those Retry-After {without:.2f}"
    )


def too_early(records: Sequence[dict[str, Any]], retry_after: float) -> int:
    """Requests that were sent again before the Retry-After of their refusal had passed."""
    attempts = defaultdict(list)
    for record in records:
        attempts[record["key"]].append(record)
    return sum(
        before["status"] == 429 and after["arrived"] < before["ended"] + retry_after
        for tries in attempts.values()
        for before, after in pairwise(tries)
    )


def waited_last(records: Sequence[dict[str, Any]], retry_after: float) -> float:
    """Seconds that each phase's last call spent waiting for Retry-After: no client may be faster by them."""
    last: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record["ended"]):
        last[record["kind"]] = record["key"]
    chains = set(last.values())
    refused: int = sum(record["status"] == 429 and record["key"] in chains for record in records)
    return retry_after * refused


async def rates() -> None:
    """Servers that allow 600 a minute, all in the same seventy seconds."""
    told: dict[str, Any] = {"models__main__rate_limit_per_minute": 600}
    await asyncio.gather(
        rate("bucket of 10, nothing told", Bucket(ALLOWED, 10.0, 1.0)),
        rate("bucket of 60, nothing told", Bucket(ALLOWED, 60.0, 1.0)),
        rate("sliding window, nothing told", SlidingWindow(600)),
        rate("fixed window, nothing told", FixedWindow(600)),
        rate("bucket of 90, told 600 a minute", Bucket(ALLOWED, 90.0, 1.0), **told),
        rate("two models on one provider, told", Bucket(ALLOWED, 90.0, 1.0), both=True),
    )


async def rate(name: str, server: RateServer, *, both: bool = False, **settings: Any) -> None:
    """Ask without a pause for seventy seconds: requests taken, of those allowed, and 429s."""
    with tempfile.TemporaryDirectory() as folder:
        async with RateLimitedServer(server, Behaviour(latency_ms=50)) as limited:
            if both:
                settings["provider_rate_limits"] = {limited.base_url: 600}
            async with running(
                Path(folder), limited.base_url, generation__concurrency=16, **settings
            ) as asked:
                numbers = count()

                async def ask(purpose: Purpose, model: str) -> None:
                    while True:
                        request = question(
                            f"Of {next(numbers)}.", limited.base_url, purpose=purpose, model=model
                        )
                        await asked.client.ask(request)

                asking = [asyncio.create_task(ask(Purpose.CHOSEN, "strong")) for _ in range(32)]
                if both:
                    asking += [asyncio.create_task(ask(Purpose.REJECTED, "weak")) for _ in range(32)]
                await asyncio.sleep(70.0)
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
            print(f"{name}: {of_rate(limited.records)}", flush=True)


def of_rate(records: Sequence[Record]) -> str:
    """The rate in all, the rate and the refusals after ten seconds, and the models asked."""
    began = records[0].arrived
    taken = [record.arrived - began for record in records if record.status == 200]
    refused = [record.arrived - began for record in records if record.status == 429]
    late, late_refused = (sum(10 <= when < 70 for when in times) for times in (taken, refused))
    minute = sum(when < 60 for when in taken)
    models = {model: sum(record.model == model for record in records) for model in ("strong", "weak")}
    return (
        f"{minute} taken in the first minute ({minute / 60 / ALLOWED:.1%}); from 10 to 70 s: "
        f"{late / 60 / ALLOWED:.1%} of the rate, {late_refused} refused "
        f"({late_refused / max(1, late + late_refused):.2%}); {len(refused)} refused in all; {models}"
    )


async def slots() -> None:
    """Eight slots: the same requests with the limit found out, and with fixed ones."""
    for name, concurrency, adaptive in (
        ("adaptive", 64, True),
        *((f"fixed {4 * jobs}", jobs, False) for jobs in (1, 2, 4, 8)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            async with (
                QueueingServer(8, 100.0) as server,
                running(
                    Path(folder),
                    server.base_url,
                    generation__concurrency=concurrency,
                    execution__adaptive_concurrency=adaptive,
                ) as asked,
            ):
                await ask_many(asked.client, server.base_url, 1600)
                limit = asked.client._access[Purpose.CHOSEN].lane._limit.limit  # type: ignore[attr-defined]
                began = server.records[0].arrived
                ended = sorted(record.ended - began for record in server.records)
                print(
                    f"{name}: {1600 / ended[-1]:.1f} answers a second, {800 / (ended[-1] - ended[800]):.1f} "
                    f"in the second half; limit {limit}",
                    flush=True,
                )


async def ask_many(client: LedgerClient, url: str, number: int, what: str = "this") -> None:
    """Ask so many different questions, all at once."""
    requests = [question(f"Of {what}, {place}.", url, model="strong") for place in range(number)]
    await asyncio.gather(*map(client.ask, requests))


async def speed() -> None:
    """The client at 64 connections, with its ledger and alone; the server is another process."""
    with tempfile.TemporaryDirectory() as folder, Served() as server:
        async with running(
            Path(folder), server.url, generation__concurrency=16, execution__adaptive_concurrency=False
        ) as asked:
            await ask_many(asked.client, server.url, 64)
            clock = Clock()
            await ask_many(asked.client, server.url, 6000, "that")
            print(f"client with its ledger: {clock.rate(6000)}")
        async with ChatHttp(max_connections=64) as http:
            opened = server.shown("/stats")["connections"]
            manner = Manner(None, 60.0)
            places = iter(range(6000))

            async def send() -> None:
                for place in places:
                    await http.send(question(f"Of {place}.", server.url), manner)

            clock = Clock()
            await asyncio.gather(*(send() for _ in range(64)))
            print(f"HTTP alone: {clock.rate(6000)}")
            # One each to ask how many.
            print(f"connections: {opened - 1} and {server.shown('/stats')['connections'] - opened - 1}")


class Clock:
    """Wall and CPU time since it was made; CPU of all threads, the ledger's included."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def rate(self, number: int) -> str:
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        return f"{number:,} in {wall:.2f} s: {number / wall:,.0f} a second, {number / cpu:,.0f} a CPU second"


def main() -> None:
    """Run the cases that the command line names, or all."""
    cases = {"broken": broken, "rate": rates, "slots": slots, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=list(cases), default=list(cases), metavar="CASE")
    print(machine())
    for name in parser.parse_args().cases:
        print(f"\n{name}", flush=True)
        if asyncio.iscoroutine(result := cases[name]()):
            asyncio.run(result)


if __name__ == "__main__":
    main()

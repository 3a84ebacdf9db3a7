"""How many answers a second a ledger in PostgreSQL keeps: `python -m tests.benchmarks.ledger`.

Processes of their own put answers of 500 words into one ledger, each with so many calls in flight, through
the class that a run uses: every put returns when its row is durable. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from multiprocessing import get_context

from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import LedgerEntry
from tests.core.chat.scripted import answer, question
from tests.core.ledger.databases import sql
from tests.postgres import postgres

WORDS = 500
VOCABULARY = 3000
SHAPES = ((1, 1), (1, 64), (1, 512), (3, 64), (3, 512))
"""Processes, and calls in flight in each."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a process")
    options = parser.parse_args(arguments)
    with postgres() as server:
        for processes, flight in SHAPES:
            server.make_database(name := f"ledger_{processes}_{flight}")
            url = server.url(name, password=True)
            asyncio.run(_opened(url))
            empty = asyncio.run(_size(url))
            rows = options.rows if flight > 1 else options.rows // 10
            with get_context("spawn").Pool(processes) as pool:
                jobs = [(url, number, rows, flight) for number in range(processes)]
                found = pool.starmap(_put, jobs)
            wall = max(ended for _, ended, _ in found) - min(began for began, _, _ in found)
            total = rows * processes
            cpu = sum(seconds for _, _, seconds in found) / total
            size = (asyncio.run(_size(url)) - empty) / total
            print(
                f"{processes} x {flight:3} in flight: {total / wall:6.0f} answers/s, "
                f"{cpu * 1000:.2f} ms of client CPU each, {size:.0f} bytes of database each",
                flush=True,
            )


def _put(url: str, number: int, rows: int, flight: int) -> tuple[float, float, float]:
    """Put so many rows; when it began and ended (seconds since boot), and the CPU seconds in between."""
    return asyncio.run(_put_all(url, number, rows, flight))


async def _put_all(url: str, number: int, rows: int, flight: int) -> tuple[float, float, float]:
    words = random.Random(number)
    vocabulary = ["".join(words.choices("etaoinshrdlu", k=words.randint(2, 9))) for _ in range(VOCABULARY)]
    entries = iter(
        [
            LedgerEntry(
                question(f"{number}-{row}"), answer(" ".join(words.choices(vocabulary, k=WORDS))), "session"
            )
            for row in range(rows)
        ]
    )
    async with await Ledger.open(url) as ledger:

        async def put_next() -> None:
            for entry in entries:
                await ledger.put(entry)

        began, cpu = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(flight):
                group.create_task(put_next())
        return began, time.monotonic(), time.process_time() - cpu


async def _opened(url: str) -> None:
    await (await Ledger.open(url)).close()


async def _size(url: str) -> int:
    ((size,),) = await sql(url, "SELECT pg_database_size(current_database())")
    return int(size)


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    main()

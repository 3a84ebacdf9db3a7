"""Slots: as many at work as there are places, one more for each that waits, never more than twice as many."""

from __future__ import annotations

import asyncio
import random

from tasks.core.traffic.lane import Slots


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_work_than_there_are_places() -> None:
    slots, working, most = Slots(3), 0, 0

    async def job() -> None:
        nonlocal working, most
        async with slots:
            working += 1
            most = max(most, working)
            await asyncio.sleep(0)
            working -= 1

    await asyncio.gather(*(job() for _ in range(50)))
    assert (most, working) == (3, 0)


async def test_who_came_first_is_first() -> None:
    slots, order = Slots(1), []

    async def job(number: int) -> None:
        async with slots:
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(job(number) for number in range(10)))
    assert order == list(range(10))


async def test_a_place_whose_holder_waits_is_lent_and_taken_back() -> None:
    slots, begun, over = Slots(1), [], asyncio.Event()

    async def waits() -> None:
        async with slots:
            begun.append("waits")
            with slots.lent():
                await over.wait()

    async def works(name: str) -> None:
        async with slots:
            begun.append(name)
            await over.wait()

    jobs = [asyncio.create_task(work) for work in (waits(), works("one more"), works("not yet"))]
    await settle()
    assert begun == ["waits", "one more"]
    over.set()
    await asyncio.gather(*jobs)
    assert begun == ["waits", "one more", "not yet"]


async def test_no_more_are_lent_than_there_are() -> None:
    slots, begun, over = Slots(2), 0, asyncio.Event()

    async def waits() -> None:
        nonlocal begun
        async with slots:
            begun += 1
            with slots.lent():
                await over.wait()

    jobs = [asyncio.create_task(waits()) for _ in range(10)]
    await settle()
    assert begun == 4
    over.set()
    await asyncio.gather(*jobs)
    assert begun == 10


async def test_cancelled_jobs_leave_every_place_free() -> None:
    chance, slots = random.Random(3), Slots(4)

    async def job() -> None:
        async with slots:
            await asyncio.sleep(0)
            with slots.lent():
                await asyncio.sleep(0)
            await asyncio.sleep(0)

    jobs = [asyncio.create_task(job()) for _ in range(200)]
    while not all(task.done() for task in jobs):
        chance.choice(jobs).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*jobs, return_exceptions=True)
    inside = 0

    async def enter() -> None:
        nonlocal inside
        async with slots:
            inside += 1
            await asyncio.sleep(3600)

    late = [asyncio.create_task(enter()) for _ in range(10)]
    await settle()
    assert inside == 4
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)

"""One scheduler at a time, also when one is killed, stopped and woken, or loses its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.kv import KeyValue

from comfy_machine.services.jobs import leadership
from comfy_machine.services.jobs.leadership import Leadership, Lost
from tests.services.jobs.conftest import Server

PATIENCE = 30.0
"""Seconds for what takes a few."""


@asynccontextmanager
async def bucket(server: Server) -> AsyncIterator[KeyValue]:
    client = await nats.connect(server.url, reconnect_time_wait=0.1, max_reconnect_attempts=-1)
    try:
        yield await client.jetstream(timeout=1).create_key_value(bucket="leader")
    finally:
        await client.close()


async def written(it: KeyValue, times: int) -> None:
    """Wait until the holder has written the key so often."""

    async def revision() -> int:
        return (await it.get(leadership.KEY)).revision or 0

    async def follow() -> None:
        last = await revision()
        while await revision() < last + times:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(follow(), PATIENCE)


async def won(one: Leadership) -> None:
    await asyncio.wait_for(one.win(), PATIENCE)


def test_the_next_one_begins_when_the_holder_is_silent_and_not_before(server: Server) -> None:
    async def tried() -> None:
        async with bucket(server) as it:
            first, second = Leadership(it, "one"), Leadership(it, "two")
            await won(first)
            keeping = asyncio.create_task(first.keep())
            waiting = asyncio.create_task(second.win())
            await written(it, 6)
            assert not waiting.done(), "though it waited longer than SILENCE"
            keeping.cancel()
            await asyncio.wait_for(waiting, PATIENCE)
            with pytest.raises(Lost, match="another took over"):
                await asyncio.wait_for(first.keep(), PATIENCE)

    asyncio.run(tried())


def test_who_gives_up_keeps_nobody_waiting(server: Server) -> None:
    async def tried() -> None:
        async with bucket(server) as it:
            first, second = Leadership(it, "one"), Leadership(it, "two")
            await won(first)
            waiting = asyncio.create_task(second.win())
            await first.give_up()
            await asyncio.wait_for(waiting, PATIENCE)
            await first.give_up()
            keeping = asyncio.create_task(second.keep())
            await written(it, 2)
            assert not keeping.done()
            keeping.cancel()

    asyncio.run(tried())


def test_of_many_that_begin_together_one_wins(server: Server) -> None:
    async def tried() -> None:
        async with bucket(server) as it:
            several = [Leadership(it, str(number)) for number in range(8)]
            tasks = [asyncio.create_task(each.win()) for each in several]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            (first,) = done
            keeping = asyncio.create_task(several[tasks.index(first)].keep())
            await written(it, 6)
            assert sum(task.done() for task in tasks) == 1
            for task in (*tasks, keeping):
                task.cancel()

    asyncio.run(tried())


def test_without_a_server_nobody_is_it_and_with_it_somebody_is_again(server: Server) -> None:
    async def tried() -> None:
        async with bucket(server) as it:
            first = Leadership(it, "one")
            await won(first)
            keeping = asyncio.create_task(first.keep())
            await asyncio.to_thread(server.kill)
            with pytest.raises(Lost, match="the store was silent"):
                await asyncio.wait_for(keeping, PATIENCE)
            waiting = asyncio.create_task(Leadership(it, "two").win())
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(tried())

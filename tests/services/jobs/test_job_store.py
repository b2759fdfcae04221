"""Jobs on a real server: one id is one job, one step follows another, whatever is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import nats
import pytest

from comfy_machine.services.jobs.job_store import (
    INLINE,
    LARGEST_WORKFLOW,
    RECORDS,
    Overtaken,
    Store,
    TooLarge,
    declare,
)
from comfy_machine.services.jobs.record import Record
from tests.services.jobs.conftest import Server


@asynccontextmanager
async def store_on(server: Server) -> AsyncIterator[Store]:
    client = await nats.connect(server.url, reconnect_time_wait=0.1, max_reconnect_attempts=-1)
    try:
        yield await declare(client.jetstream(timeout=2))
    finally:
        await client.close()


def job(**about: object) -> Record:
    return Record(id=str(uuid4()), submitted=1.0, **about)  # type: ignore[arg-type]


def test_an_id_is_taken_once_and_its_workflow_is_there(server: Server) -> None:
    async def tried() -> None:
        async with store_on(server) as store:
            one = job(priority=3)
            assert await store.read(one.id) is None
            assert await store.create(one, b"{1}")
            assert not await store.create(one, b"{2}")
            stored = await store.read(one.id)
            assert stored is not None
            assert stored.record.model_copy(update={"nonce": "", "workflow": ""}) == one
            assert await store.workflow(stored.record) == b"{1}"
            contested = job()
            made = await asyncio.gather(*(store.create(contested, b"%d" % n) for n in range(20)))
            assert sum(made) == 1, "of twenty at once too"
            stored = await store.read(contested.id)
            assert stored is not None
            assert await store.workflow(stored.record) == b"%d" % made.index(True)

    asyncio.run(tried())


def test_of_two_steps_from_one_state_one_is_made(server: Server) -> None:
    async def tried() -> None:
        async with store_on(server) as store:
            one = job()
            await store.create(one, b"{}")
            first = await store.read(one.id)
            assert first is not None
            leased = first.record.next("leased", attempt=1, instance="gpu0")
            second = await store.replace(first, leased)
            assert await store.replace(first, leased) == second, "its acknowledgement was lost"
            with pytest.raises(Overtaken):
                await store.replace(first, first.record.next("leased", instance="gpu1"))
            done = await store.replace(second, second.record.next("succeeded", ended=9.0))
            with pytest.raises(Overtaken):
                await store.replace(second, second.record.next("waiting"))
            assert await store.read(one.id) == done
            with pytest.raises(ValueError, match="is succeeded: failed doesn't follow"):
                done.record.next("failed")

    asyncio.run(tried())


def test_what_was_acknowledged_outlives_a_killed_server_and_writes_wait_for_it(
    server: Server,
) -> None:
    async def tried() -> None:
        async with store_on(server) as store:
            before, meanwhile = job(), job()
            assert await store.create(before, b"{}")
            await asyncio.to_thread(server.kill)
            writing = asyncio.create_task(store.create(meanwhile, b"{}"))
            await asyncio.to_thread(server.start)
            assert await writing
            for each in (before, meanwhile):
                assert await store.read(each.id) is not None

    asyncio.run(tried())


def test_a_workflow_that_is_too_large_is_refused_and_leaves_nothing(server: Server) -> None:
    async def tried() -> None:
        async with store_on(server) as store:
            larger = job()
            with pytest.raises(TooLarge, match="33554433 bytes, 33554432 at most"):
                await store.create(larger, b"x" * (LARGEST_WORKFLOW + 1))
            assert await store.read(larger.id) is None

    asyncio.run(tried())


@pytest.mark.parametrize("size", [INLINE, INLINE + 1, 5_000_000])
def test_a_large_workflow_comes_back_whole_and_goes_whole(server: Server, size: int) -> None:
    async def tried() -> None:
        async with store_on(server) as store:
            one, workflow = job(), os.urandom(size)
            assert await store.create(one, workflow)
            stored = await store.read(one.id)
            assert stored is not None
            assert await store.workflow(stored.record) == workflow
            await store.forget(stored.record)
            assert await store.workflow(stored.record) is None

    asyncio.run(tried())


def test_a_bucket_that_was_changed_by_hand_is_set_right_with_its_jobs(server: Server) -> None:
    async def tried() -> None:
        one = job()
        async with store_on(server) as store:
            await store.create(one, b"{}")
        client = await nats.connect(server.url)
        stream = client.jetstream()
        found = (await stream.stream_info(f"KV_{RECORDS}")).config
        await stream.update_stream(found.evolve(max_age=3600.0, max_msgs_per_subject=5))
        async with store_on(server) as store:
            assert await store.read(one.id) is not None
        mended = (await stream.stream_info(f"KV_{RECORDS}")).config
        assert (mended.max_age, mended.max_msgs_per_subject) == (found.max_age, 1)
        await client.close()

    asyncio.run(tried())


def test_a_job_that_is_forgotten_is_gone_whole(server: Server) -> None:
    async def tried() -> None:
        async with store_on(server) as store:
            one = job()
            await store.create(one, b"{}")
            stored = await store.read(one.id)
            assert stored is not None
            await store.forget(stored.record)
            assert await store.read(one.id) is None
            assert await store.workflow(stored.record) is None
            assert await store.create(one, b"{}"), "its id is free again"

    asyncio.run(tried())

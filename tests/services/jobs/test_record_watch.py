"""The watch over all jobs: the server ends, the bucket is another, a consumer is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from comfy_machine.services.jobs.job_store import RECORDS, Store, Stored, declare
from comfy_machine.services.jobs.record import Record
from comfy_machine.services.jobs.record_watch import STREAM, RecordWatch
from tests.services.jobs.conftest import Server


class Seen:
    """What one watch has told."""

    def __init__(self) -> None:
        self.jobs: dict[str, Stored] = {}
        self.changes: list[str] = []

    def changed(self, stored: Stored) -> None:
        self.jobs[stored.record.id] = stored
        self.changes.append(stored.record.id)

    def forgotten(self, job: str) -> None:
        self.jobs.pop(job, None)
        self.changes.append(f"-{job}")

    async def until(self, holds: Callable[[], bool], seconds: float) -> float:
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, "not told in time"
            await asyncio.sleep(0.01)
        return time.monotonic() - began


@asynccontextmanager
async def connected(
    server: Server, reconnected: Callable[[], object] = lambda: None
) -> AsyncIterator[tuple[Client, JetStreamContext]]:
    async def resume() -> None:
        it = reconnected()
        if asyncio.iscoroutine(it):
            await it

    async def ignore(_: Exception) -> None:
        pass

    client = await nats.connect(
        server.url,
        reconnect_time_wait=0.1,
        max_reconnect_attempts=-1,
        reconnected_cb=resume,
        error_cb=ignore,
    )
    try:
        yield client, client.jetstream(timeout=2)
    finally:
        await client.close()


def job() -> Record:
    return Record(id=str(uuid4()), submitted=1.0)


async def create(store: Store, count: int) -> list[Record]:
    made = [job() for _ in range(count)]
    for each in made:
        assert await store.create(each, b"{}")
    return made


def test_all_that_is_there_is_told_then_each_change(server: Server) -> None:
    async def tried() -> None:
        async with connected(server) as (client, stream):
            store = await declare(stream)
            seen, watch = Seen(), RecordWatch(client, stream)
            await watch.start(seen.changed, seen.forgotten)
            assert seen.jobs == {}, "an empty bucket is complete at once"
            await watch.stop()
            made = await create(store, 50)
            seen, watch = Seen(), RecordWatch(client, stream)
            await watch.start(seen.changed, seen.forgotten)
            assert seen.changes == [each.id for each in made]
            first = seen.jobs[made[0].id]
            assert await store.read(made[0].id) == first
            leased = await store.replace(first, first.record.next("leased"))
            await seen.until(lambda: seen.jobs[made[0].id] == leased, 1)
            await client.publish(f"$KV.{RECORDS}.{made[1].id}", b"no record")
            await store.forget(leased.record)
            await seen.until(lambda: made[0].id not in seen.jobs, 1)
            assert seen.changes[50:] == [made[0].id, f"-{made[0].id}"]
            await watch.stop()
            more = await create(store, 1)
            await asyncio.sleep(0.2)
            assert more[0].id not in seen.jobs, "it was stopped"

    asyncio.run(tried())


def test_after_a_restart_of_the_server_the_next_change_comes_soon(server: Server) -> None:
    async def tried() -> None:
        watch: RecordWatch | None = None
        async with connected(server, lambda: watch and watch.resume()) as (client, stream):
            store = await declare(stream)
            before = await create(store, 20)
            seen, watch = Seen(), RecordWatch(client, stream)
            await watch.start(seen.changed, seen.forgotten)
            for _ in range(3):
                server.kill()
                await asyncio.to_thread(server.start)
                began = time.monotonic()
                before.extend(await create(store, 3))
                await seen.until(lambda: len(seen.jobs) == len(before), 2)
                assert time.monotonic() - began < 2
            assert seen.changes == [each.id for each in before], "each once, in order"
            await watch.stop()

    asyncio.run(tried())


def test_a_lost_consumer_is_noticed_without_a_reconnection(server: Server) -> None:
    async def tried() -> None:
        async with connected(server) as (client, stream):
            store = await declare(stream)
            seen, watch = Seen(), RecordWatch(client, stream)
            await watch.start(seen.changed, seen.forgotten)
            for consumer in await stream.consumers_info(STREAM):
                await stream.delete_consumer(STREAM, consumer.name)
            made = await create(store, 2)
            await seen.until(lambda: len(seen.jobs) == 2, 9)
            assert seen.changes == [each.id for each in made]
            await watch.stop()

    asyncio.run(tried())


def test_a_bucket_that_was_made_anew_is_told_from_its_beginning(server: Server) -> None:
    async def tried() -> None:
        async with connected(server) as (client, stream):
            store = await declare(stream)
            old = await create(store, 5)
            seen, watch = Seen(), RecordWatch(client, stream)
            await watch.start(seen.changed, seen.forgotten)
            await stream.delete_key_value(RECORDS)
            store = await declare(stream)
            new = await create(store, 2)
            await watch.resume()
            await seen.until(lambda: set(seen.jobs) == {each.id for each in new}, 2)
            assert {f"-{each.id}" for each in old} <= set(seen.changes)
            await watch.stop()

    asyncio.run(tried())

"""The view of all jobs: what is told in any order, and who hears of it."""

from __future__ import annotations

import asyncio
import json
import random
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg

from comfy_machine.services.gateway.job_view import KEPT, QUEUE, JobView, client_of
from comfy_machine.services.jobs.job_store import Stored
from comfy_machine.services.jobs.record import Record, State, Webhook
from comfy_machine.services.jobs.worker_protocol import PROGRESS


def record(submitted: float = 1.0, state: State = "waiting", **about: object) -> Record:
    it = {"id": str(uuid4()), "submitted": submitted, "state": state, **about}
    return Record.model_validate(it)


def said(job: str, data: bytes, **headers: str) -> Msg:
    return Msg(Client(), subject=f"{PROGRESS}.{job}", data=data, headers=headers or None)


def test_the_newest_come_first_whatever_the_order_they_are_told_in() -> None:
    view, jobs = JobView(), [record(float(n // 2)) for n in range(20)]
    for each in random.Random(1).sample(jobs, 20):
        view.changed(Stored(each, 1))
    order = sorted(jobs, key=lambda each: (each.submitted, each.id), reverse=True)
    assert [*view.newest()] == order
    assert [*view.newest((order[4].submitted, order[4].id))] == order[5:]
    view.forgotten(order[0].id)
    view.forgotten("unknown")
    assert [*view.newest()] == order[1:]
    assert view.waiting == 19


def test_the_queue_goes_by_priority_then_by_time() -> None:
    view = JobView()
    late, early, urgent = record(2.0), record(1.0), record(3.0, priority=1)
    for each in (late, early, urgent, record(0.0, "leased"), record(0.0, "succeeded")):
        view.changed(Stored(each, 1))
    assert view.queue() == [urgent, early, late]
    assert [view.place(each.id) for each in (urgent, early, late)] == [1, 2, 3]
    assert len(view.running()) == 1
    view.changed(Stored(urgent.next("leased"), 2))
    assert view.place(urgent.id) is None


def test_followers_hear_of_their_jobs_only() -> None:
    async def tried() -> None:
        view, mine, other = JobView(), record(client="me"), record()
        with (
            view.following(mine.id) as one,
            view.following(client_of("me")) as all_mine,
            view.following(QUEUE) as queue,
        ):
            view.changed(Stored(other, 1))
            assert not await one.news(0.01)
            assert not await all_mine.news(0.01)
            assert await queue.news(0.01)
            view.changed(Stored(mine, 2))
            assert await one.news(0.01)
            assert [*all_mine.changed] == [mine.id]
            view.changed(Stored(mine.next("leased"), 3))
            await view.said(said(mine.id, b'{"type": "progress", "data": {"value": 1, "max": 2}}'))
            await view.said(said(mine.id, b"12345678", Kind="binary"))
            await view.said(said(other.id, b'{"type": "x"}'))
            for nonsense in (b"", b"[]", b"{", b"[" * 100_000):
                await view.said(said(mine.id, nonsense))
            assert [each for _, each in all_mine.said] == [each for _, each in one.said]
            assert len(one.said) == 2
            for n in range(KEPT + 10):
                await view.said(said(mine.id, json.dumps({"n": n}).encode()))
            assert len(one.said) == KEPT, "who doesn't read loses the oldest"
            view.forgotten(mine.id)
            assert await all_mine.news(0.01)
        assert view._followers == {}

    asyncio.run(tried())


def test_an_end_is_told_once_whatever_is_noted_of_it_later() -> None:
    async def tried() -> None:
        view, job = JobView(), record(client="me", state="leased", webhook={"url": "http://a"})
        ended = job.next("failed", ended=5.0)
        view.changed(Stored(ended, 1))
        noted = ended.changed(webhook=Webhook(url="http://a", attempts=1, told=6.0))
        with view.following(job.id) as one, view.following(client_of("me")) as all_mine:
            view.changed(Stored(noted, 2))
            assert not await one.news(0.01)
            assert not all_mine.changed
            assert view.get(job.id) == Stored(noted, 2)
            assert view.last_ended(2) == [noted]
            view.changed(Stored(noted.next("waiting", ended=0.0), 3))
            assert await one.news(0.01)
            view.changed(Stored(ended.changed(ended=9.0), 4))
            assert await one.news(0.01), "it waited and ended again meanwhile"

    asyncio.run(tried())


def test_who_waits_for_an_end_is_told() -> None:
    async def tried() -> None:
        view, job = JobView(), record()
        view.changed(Stored(job, 1))
        await view.wait_for_end(job.id, 0.01)
        waiting = asyncio.create_task(view.wait_for_end(job.id, 5))
        await asyncio.sleep(0.01)
        view.changed(Stored(job.next("leased"), 2))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        view.changed(Stored(job.next("cancelled"), 3))
        await asyncio.wait_for(waiting, 0.1)
        await view.wait_for_end("unknown", 5)

    asyncio.run(tried())

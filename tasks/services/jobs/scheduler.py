"""Gives waiting jobs to idle instances, and takes them from those that fell silent.

`python -m comfy_machine.services.jobs.scheduler FILE`: FILE has the settings. Of all that run on
one server only the one that holds the key works; the others wait for it to fall silent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError, TimeoutError
from pydantic import ValidationError

from ...host.system import files
from ..waking import woken
from . import choice, connection, worker_protocol
from .backlog import Backlog
from .demand import Need, Waiting, why_unfit
from .instance_pool import Pool
from .job_settings import Settings
from .job_store import Overtaken, Store, Stored, reach
from .leadership import Leadership, Lost
from .leases import Leases
from .record import ENDED, Error, Record
from .record_watch import RecordWatch
from .webhooks import SECRET, Webhooks
from .worker_protocol import Announcement, Heard, Order, Reply

TICK = 1.0
"""Seconds between two looks at everything, if nothing happens."""
ASLEEP = 3.0
"""Seconds between two looks after which this process was stopped, and missed what was said."""
ANSWER = 2.0
"""Seconds that a worker may take to answer an order."""
SWEEP = 60.0
"""Seconds between two looks for jobs that are kept no longer."""
REST = 15.0
"""Seconds for which a job rests whose inputs couldn't be had."""
DEAD, MEMORY = "attempts_exhausted", "out_of_memory"


class Scheduler:
    """The one that works. `now` is of a monotonic clock, in seconds."""

    def __init__(self, client: Client, store: Store, settings: Settings) -> None:
        self._client, self._store, self._settings = client, store, settings
        self._backlog, self._leases, self._pool = Backlog(), Leases(), Pool()
        self._webhooks = Webhooks(os.environ.get(SECRET, "").strip(), self._step)
        self._known: dict[str, Stored] = {}
        self._on_way: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._offset = time.time() - time.monotonic()
        self._looked = self._swept = time.monotonic()
        self._paused = False

    async def work(self, watch: RecordWatch) -> None:
        """Schedule, for ever."""
        announced = await self._client.subscribe(worker_protocol.ANNOUNCE, cb=self._hear)
        try:
            await watch.start(self.changed, self.forgotten)
            self._leases.renew_all(time.monotonic())
            self._begin(self._webhooks.tell(lambda: self._client.is_connected))
            while True:
                await self._look()
                await woken(self._wake, TICK)
                self._wake.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            with suppress(NatsError):
                await announced.unsubscribe()
            await watch.stop()

    def refresh(self) -> None:
        """Time all leases afresh: the server was away, and nobody could renew."""
        self._leases.renew_all(time.monotonic())

    def changed(self, stored: Stored) -> None:
        """A record is as this one says."""
        record, now = stored.record, time.monotonic()
        known = self._known.get(record.id)
        if known and known.revision >= stored.revision:
            return
        self._known[record.id] = stored
        if record.state != "waiting":
            self._backlog.remove(record.id)
        if record.state != "leased":
            self._leases.end(record.id)
        if record.keys and record.state in ENDED and known:
            self._begin(self._store.partner_keys.drop(record.keys))
        if record.state == "leased":
            self._leases.note(record, now)
        elif record.state == "waiting":
            self._queue(stored)
        self._webhooks.note(stored)
        self._wake.set()

    def forgotten(self, job: str) -> None:
        """The record is gone."""
        self._known.pop(job, None)
        self._backlog.remove(job)
        self._leases.end(job)
        self._webhooks.forget(job)

    def _queue(self, stored: Stored) -> None:
        record = stored.record
        if record.cancel:
            self._begin(self._step(stored, record.next("cancelled", ended=time.time())))
        elif record.counted >= self._settings.attempts:
            self._begin(self._bury(stored))
        elif record.rested:
            self._begin(self._rest(stored))
        else:
            self._backlog.add(self._waiting(record))

    async def _rest(self, stored: Stored) -> None:
        await asyncio.sleep(REST)
        if self._known.get(stored.record.id) is stored:
            self._backlog.add(self._waiting(stored.record))
            self._wake.set()

    def _waiting(self, record: Record) -> Waiting:
        need = Need(
            frozenset(record.classes), frozenset(record.models), record.memory, record.checkpoint
        )
        since = record.submitted - self._offset
        return Waiting(record.id, need, since, record.priority, record.owner, record.above)

    async def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked > ASLEEP or not self._client.is_connected:
            self.refresh()
        if now - self._looked >= TICK:
            with suppress(NatsError, asyncio.TimeoutError):
                self._paused = await self._store.is_paused()
            self._pool.forget(now)
        self._looked = now
        for record in self._leases.expired(now):
            self._leases.renew(record.id, record.attempt, now)
            self._begin(self._expire(record))
        if now - self._swept >= SWEEP:
            self._swept = now
            self._begin(self._sweep())
        if not self._paused and self._client.is_connected:
            self._assign(now)

    def _assign(self, now: float) -> None:
        instances = self._pool.instances(now)
        running = dict(self._leases.running())
        while found := choice.choose(self._backlog.heads(), instances, running, now):
            self._backlog.pass_over(found.passed, now)
            waiting = self._backlog.remove(found.job)
            assert waiting is not None
            running[waiting.owner] = running.get(waiting.owner, 0) + 1
            self._pool.give(found.instance, found.job)
            self._on_way.add(found.job)
            self._begin(self._give(self._known[found.job], found.instance))
            instances = self._pool.instances(now)
        self._fail_unfit()

    def _fail_unfit(self) -> None:
        """A job that ran out of memory goes to a larger GPU, or nowhere."""
        known = self._pool.known()
        for job in [*self._backlog.heads()]:
            if job.above and (why := why_unfit(job, known)):
                self._backlog.remove(job.id)
                stored = self._known[job.id]
                error = Error(type=MEMORY, message=f"it ran out of GPU memory, and {why}")
                self._begin(
                    self._step(stored, stored.record.next("failed", error=error, ended=time.time()))
                )

    async def _give(self, stored: Stored, instance: str) -> None:
        """Lease a job to an instance and tell its worker."""
        record, job = stored.record, stored.record.id
        try:
            following = record.next(
                "leased", attempt=record.attempt + 1, instance=instance, started=time.time()
            )
            leased = await self._step(stored, following)
            if leased is None:
                self._pool.release(instance)
                return
            await self._order(leased, instance)
        finally:
            self._on_way.discard(job)
            self._wake.set()

    async def _order(self, leased: Stored, instance: str) -> None:
        order = Order(
            what="run", job=leased.record.id, attempt=leased.record.attempt,
            revision=leased.revision, record=leased.record,
        )  # fmt: skip
        subject = worker_protocol.worker(instance)
        try:
            answer = await self._client.request(
                subject, order.model_dump_json().encode(), timeout=ANSWER
            )
            reply = Reply.model_validate_json(answer.data)
        except NoRespondersError:
            reply = Reply(done=False, why="its worker is gone")
        except (TimeoutError, ValidationError, NatsError):
            # It may have taken the job: whoever renews the lease, or nobody, will tell.
            self._pool.settle(instance, 0, False)
            return
        self._pool.settle(instance, reply.number, reply.done)
        if not reply.done:
            record = leased.record
            await self._step(leased, record.next(**record.given_back()))

    async def _step(self, stored: Stored, record: Record) -> Stored | None:
        """Replace a record; None: somebody else was first, or the store doesn't answer."""
        try:
            replaced = await self._store.replace(stored, record)
        except Overtaken:
            await self._reread(record.id)
            return None
        except (NatsError, asyncio.TimeoutError):
            # Which of the two it is now, the watch tells; until then it waits as before.
            if stored.record.state == "waiting":
                self._backlog.add(self._waiting(stored.record))
            return None
        self.changed(replaced)
        return replaced

    async def _reread(self, job: str) -> None:
        with suppress(NatsError, asyncio.TimeoutError):
            if (now := await self._store.read(job)) is None:
                self.forgotten(job)
            else:
                self._known.pop(job, None)
                self.changed(now)

    async def _expire(self, record: Record) -> None:
        """Nobody renews a lease: the job goes elsewhere."""
        try:
            # A silent watch is no silent worker.
            stored = await self._store.read(record.id)
        except (NatsError, asyncio.TimeoutError):
            return
        if stored is None or stored.record.state != "leased":
            await self._reread(record.id)
        elif stored.record.attempt == record.attempt:
            if stored.record.cancel:
                await self._step(stored, stored.record.next("cancelled", ended=time.time()))
            elif record.counted >= self._settings.attempts:
                await self._bury(stored)
            else:
                await self._step(stored, stored.record.next("waiting"))

    async def _bury(self, stored: Stored) -> None:
        where = stored.record.instance or "an instance"
        error = stored.record.error or Error(
            type=DEAD,
            message=f"started {stored.record.counted} times, the last time on {where}, and its "
            "instance or worker ended each time",
        )
        await self._step(stored, stored.record.next("dead", error=error, ended=time.time()))

    async def _sweep(self) -> None:
        """Forget jobs that ended long ago."""
        until = time.time() - self._settings.keep
        for stored in [*self._known.values()]:
            if stored.record.state in ENDED and stored.record.ended < until:
                with suppress(NatsError, asyncio.TimeoutError):
                    await self._store.forget(stored.record)

    async def _hear(self, message: Msg) -> None:
        try:
            said = Announcement.model_validate_json(message.data)
        except ValidationError:
            return
        now = time.monotonic()
        self._pool.hear(said, now)
        for each in said.jobs:
            self._leases.renew(each.job, each.attempt, now)
        leases = self._leases.of(said.instance, frozenset(self._on_way))
        with suppress(NatsError):
            await message.respond(Heard(leases=leases).model_dump_json().encode())
        if self._pool.lacks_inventory(said.instance):
            self._begin(self._describe(said.instance, said.inventory))
        self._wake.set()

    async def _describe(self, instance: str, revision: str) -> None:
        with suppress(NatsError, asyncio.TimeoutError, KeyError):
            if inventory := await self._store.inventory(instance):
                self._pool.describe(instance, inventory, revision)
                self._wake.set()

    def _begin(self, task: Coroutine[Any, Any, Any]) -> None:
        running = asyncio.ensure_future(task)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)


async def serve(settings: Settings, ready: Path | None = None) -> None:
    """Work while this process holds the key, until it is ended by SIGTERM."""
    state: dict[str, Any] = {}

    async def reconnected() -> None:
        if watch := state.get("watch"):
            await watch.resume()
        if scheduler := state.get("scheduler"):
            scheduler.refresh()

    client = await connection.connect(settings, f"scheduler of {settings.machine}", reconnected)
    stream = client.jetstream(timeout=connection.ANSWER)
    store = await reach(stream, settings.replicas)
    if ready:
        files.write_receipt(ready, {})
    leadership = Leadership(store.control, settings.machine)
    ended = asyncio.ensure_future(_asked_to_end())
    while not ended.done():
        lead = asyncio.ensure_future(_lead(leadership, client, store, settings, state))
        await asyncio.wait([lead, ended], return_when=asyncio.FIRST_COMPLETED)
        lead.cancel()
        with suppress(asyncio.CancelledError, Lost, NatsError):
            await lead
    if client.is_connected:
        with suppress(NatsError, asyncio.TimeoutError):
            await asyncio.wait_for(leadership.give_up(), TICK)
    await connection.close(client)


async def _lead(
    leadership: Leadership, client: Client, store: Store, settings: Settings, state: dict[str, Any]
) -> None:
    """Raises Lost."""
    await leadership.win()
    scheduler = Scheduler(client, store, settings)
    watch = RecordWatch(client, client.jetstream(timeout=connection.ANSWER))
    state.update(scheduler=scheduler, watch=watch)
    working = asyncio.ensure_future(scheduler.work(watch))
    keeping = asyncio.ensure_future(leadership.keep())
    try:
        done, _ = await asyncio.wait([working, keeping], return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        state.clear()
        for each in (working, keeping):
            each.cancel()
            with suppress(asyncio.CancelledError, Lost, NatsError):
                await each


async def _asked_to_end() -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()


def main() -> None:
    file = Path(sys.argv[1])
    asyncio.run(serve(Settings.read(file), file.with_suffix(".ready.json")))


if __name__ == "__main__":
    main()

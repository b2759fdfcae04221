"""Runs jobs on one instance.

`python -m comfy_machine.services.jobs.instance_worker FILE`: FILE has the settings; the variables
COMFYUI_URL, JOBS_INSTANCE, JOBS_GPU and WORKER_STOP_TIMEOUT say which instance, and the seconds
that a job may take to end when this process is asked to. The lease of a job belongs to the
instance: a worker that starts takes up the job that its predecessor left running there.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Collection, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic import ValidationError

from ...spec.layout import Layout
from ..waking import woken
from . import connection, job_transfer, worker_protocol
from .distant_file import Absent, Silent
from .execution import Execution, Lost
from .instance_client import Away, Busy, Ended, InstanceClient, Refused
from .instance_place import Place
from .instance_stock import InstanceStock
from .job_results import JobResults, ended_as
from .job_settings import Settings
from .job_store import Store, Stored, reach
from .job_transfer import JobTransfer
from .progress_relay import ProgressRelay
from .record import Error
from .stored_workflow import with_extra
from .worker_protocol import Announcement, Heard, Lease, Order, Reply, State
from .worker_task import Task

BEAT = 1.0
"""Seconds between two announcements, if nothing changes."""
UNRENEWED = 9.0
"""Seconds without a renewal after which the job is ended: less than `leases.LASTS`."""
ASLEEP = 3.0
"""Seconds between two looks at the lease after which this process was stopped."""
ANSWER = 1.5
"""Seconds that the scheduler may take to answer."""
AGAIN = 0.5
"""Seconds between two attempts to end a job."""
RESTS = 240
"""How often a job rests whose inputs can't be had: an hour."""
KEYS_LOST = (
    "its partners' API keys are gone: the NATS server keeps them in its memory until a job ends; "
    "submit it again"
)
NOBODY = "none"
"""No job has this id."""
MARGIN = 10.0
"""Seconds before the end of its time in which a worker gives its job back."""


class Instead(Exception):  # noqa: N818  reads as what happens
    """The job isn't run: `outcome` becomes of it."""

    def __init__(self, outcome: Ended | dict[str, Any]) -> None:
        super().__init__()
        self.outcome = outcome


class InstanceWorker:
    """The worker of one instance."""

    def __init__(
        self, client: Client, store: Store, settings: Settings, place: Place,
        transfer: JobTransfer | None = None,
    ) -> None:  # fmt: skip
        """With `transfer` other machines may take part."""
        self._transfer = transfer
        self._client, self._store, self._settings, self._place = client, store, settings, place
        self._layout = Layout(settings.workspace)
        self._name = worker_protocol.instance_name(settings.machine, place.name)
        self._session = secrets.token_hex(8)
        self._instance = InstanceClient(place.url)
        self._relay = ProgressRelay(client)
        self._execution = Execution(self._instance, secrets.token_hex(16), self._relay.take)
        self._task: Task | None = None
        self._writing: list[Task] = []
        """Jobs that have ended and whose results are being written: the next one runs meanwhile."""
        self._number = 0
        self._changed = asyncio.Event()
        self._renewed = time.monotonic()
        self._looks = True
        self._stopping = False
        self._settled = False
        self._free = True
        self._why = "it has just started"
        self._checkpoint = ""
        self._results = JobResults(store, self._instance, settings, place, transfer)
        self._stock = InstanceStock(self._instance, store, self._layout, self._name, self._changed)

    async def work(self, ended: asyncio.Event) -> None:
        """Take jobs until `ended` is set, and end the job that then runs, or give it back."""
        await self._wait_for_namesake(ended)
        if ended.is_set():
            return
        orders = await self._client.subscribe(worker_protocol.worker(self._name), cb=self._obey)
        await self._observe()
        self._changed.set()
        always = [
            asyncio.ensure_future(each)
            for each in (
                self._announcing(),
                self._watching_lease(),
                self._execution.events.follow(),
                self._stock.watch(),
                self._relay.pass_on(),
            )
        ]
        stopped = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait([stopped, *always], return_when=asyncio.FIRST_COMPLETED)
            for each in always:
                if each.done():
                    each.result()
            await self._stop()
        finally:
            for each in always:
                each.cancel()
            with suppress(NatsError):
                await orders.unsubscribe()

    async def _wait_for_namesake(self, ended: asyncio.Event) -> None:
        """Two with one name would run each other's jobs. A predecessor ends soon; another machine
        of the same name has to get its own."""
        order, told = Order(what="cancel", job=NOBODY).model_dump_json().encode(), False
        while not ended.is_set():
            try:
                await self._client.request(worker_protocol.worker(self._name), order, ANSWER)
            except (NatsError, asyncio.TimeoutError):
                return
            if not told:
                print(f"{self._name} takes jobs elsewhere: if that is another machine, give this "
                      "one a machine_id of its own", file=sys.stderr, flush=True)  # fmt: skip
                told = True
            await woken(ended, BEAT)

    async def _stop(self) -> None:
        self._stopping = True
        with suppress(NatsError, asyncio.TimeoutError):
            await self._announce()
        task = self._task
        if task and task.running:
            await asyncio.wait([task.running], timeout=max(1.0, self._place.grace - MARGIN))
            if not task.running.done():
                task.given_back = True
                self._end(task)
                await asyncio.wait([task.running], timeout=MARGIN / 2)
        if written := [each.running for each in self._writing if each.running]:
            await asyncio.wait(written, timeout=MARGIN / 2)

    async def _announcing(self) -> None:
        while True:
            # Right after a job of ours nobody else's can wait there, or it would have run.
            if not await woken(self._changed, BEAT):
                await self._observe()
            self._changed.clear()
            with suppress(NatsError, asyncio.TimeoutError):
                await self._announce()

    async def _watching_lease(self) -> None:
        """On its own, since an answer to what is announced may take long to fail to come."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(BEAT)
            # Who was stopped itself has the time of a beat to be heard first.
            if time.monotonic() - looked < ASLEEP:
                self._end_if_unrenewed()
            looked = time.monotonic()

    async def _observe(self) -> None:
        """Whether the instance can take a job now."""
        if self._task is not None:
            return
        try:
            self._free = not await asyncio.to_thread(self._instance.remaining)
            self._why = "" if self._free else "it has jobs of others"
        except Away as away:
            self._free, self._why, self._looks = False, str(away), True

    def _state(self) -> tuple[State, str]:
        if self._task is not None:
            return "busy", ""
        if self._stopping:
            return "away", "its worker ends"
        if self._layout.draining(self._place.gpu).exists():
            return "away", "it is draining"
        if not self._settled:
            return "away", "its worker has just started"
        return ("idle", "") if self._free else ("away", self._why)

    async def _announce(self) -> None:
        """Say what the instance is like, and hear which leases it has."""
        self._number += 1
        task, (state, why) = self._task, self._state()
        said = Announcement(
            instance=self._name,
            machine=self._settings.machine,
            url=self._place.url,
            session=self._session,
            number=self._number,
            state=state,
            why=why,
            jobs=tuple(
                Lease(job=each.id, attempt=each.attempt)
                for each in (*self._writing, *([task] if task else []))
            ),
            memory=self._stock.memory,
            checkpoint=self._checkpoint,
            inventory=self._stock.revision,
        )
        announcement = said.model_dump_json().encode()
        await self._client.publish(worker_protocol.ANNOUNCED, announcement)
        try:
            answer = await self._client.request(
                worker_protocol.ANNOUNCE, announcement, timeout=ANSWER
            )
            heard = Heard.model_validate_json(answer.data)
        except NoRespondersError:
            # Without a scheduler no lease ends; but cut off from it one wouldn't see it either.
            await self._store.prove()
            self._doubt()
            self._renewed = time.monotonic()
            return
        except ValidationError:
            return
        self._doubt()
        self._renewed = time.monotonic()
        await self._reconcile(heard, task)

    def _doubt(self) -> None:
        """Whoever wasn't heard for so long may have lost the leases that he had."""
        if time.monotonic() - self._renewed > UNRENEWED:
            for each in (*self._writing, *([self._task] if self._task else [])):
                each.in_doubt = True

    async def _reconcile(self, heard: Heard, task: Task | None) -> None:
        """Take up what is leased to this instance, and end what isn't."""
        if self._task is not task or self._stopping:
            return
        for each in heard.leases:
            if each.cancel and task and each.job == task.id:
                self._end(task)
        if task and task.id not in [each.job for each in heard.leases]:
            await self._end_if_lost(task)
        if task is None:
            mine = {each.id for each in self._writing}
            jobs = [each.job for each in heard.leases if each.job not in mine]
            if not self._settled:
                await self._end_leftovers(jobs)
            if jobs:
                await self._take_up(jobs[0])

    async def _end_if_lost(self, task: Task) -> None:
        """End a job that is leased to another, since this process was stopped or cut off."""
        stored = await self._store.read(task.id)
        is_ours = stored and stored.record.is_leased_to(self._name, task.attempt)
        if self._task is task and not is_ours:
            self._looks = task.given_back = True
            self._end(task)

    async def _take_up(self, job: str) -> None:
        stored = await self._store.read(job)
        if stored is None or self._task is not None or not stored.record.is_leased_to(self._name):
            return
        self._start(Task(stored, adopted=True))

    async def _end_leftovers(self, leased: Collection[str]) -> None:
        """End jobs of ours that run here without a lease; those of others are left alone."""
        try:
            for each in await asyncio.to_thread(self._instance.queue):
                if each.attempt and each.id not in leased:
                    await asyncio.to_thread(self._instance.end, each.id)
        except Away:
            return
        self._settled = True
        self._changed.set()

    def _end_if_unrenewed(self) -> None:
        task = self._task
        if task and time.monotonic() - self._renewed > UNRENEWED:
            self._looks = task.given_back = True
            self._end(task)

    async def _obey(self, message: Msg) -> None:
        try:
            order = Order.model_validate_json(message.data)
        except ValidationError:
            return
        if order.what == "cancel":
            reply = await self._cancel(order)
        else:
            reply = self._accept(order)
        with suppress(NatsError):
            await message.respond(reply.model_dump_json().encode())

    def _accept(self, order: Order) -> Reply:
        number, task = self._number, self._task
        if task and task.id == order.job and task.attempt == order.attempt:
            return Reply(done=True, number=number)
        state, why = self._state()
        if state != "idle" or order.record is None:
            return Reply(done=False, why=why or "it has a job", number=number)
        self._start(Task(Stored(order.record, order.revision), adopted=False))
        return Reply(done=True, number=number)

    async def _cancel(self, order: Order) -> Reply:
        task = self._task
        if task is None or task.id != order.job:
            return Reply(done=False, why="it doesn't run here")
        self._end(task)
        return Reply(done=True, number=self._number)

    def _end(self, task: Task) -> None:
        if task.ending is None:
            task.ending = asyncio.ensure_future(self._ending(task))

    async def _ending(self, task: Task) -> None:
        """End a job again and again: it may not be there yet, and ComfyUI drops an interruption
        that comes between two nodes."""
        while self._task is task:
            if task.bringing:
                task.bringing.cancel()
            await self._execution.end(task.id)
            await asyncio.sleep(AGAIN)

    def _start(self, task: Task) -> None:
        self._task = task
        task.running = asyncio.ensure_future(self._perform(task))

    async def _perform(self, task: Task) -> None:
        """Run a job and write what became of it."""
        try:
            outcome = await self._run(task)
            self._writing.append(task)
        except asyncio.CancelledError:
            await self._execution.end(task.id)
            return
        finally:
            self._task = None
            if self._looks:
                await self._observe()
            self._changed.set()
        try:
            self._doubt()
            # The files of another run of it may lie there.
            if task.in_doubt and await self._results.reread(task) is None:
                return
            if isinstance(outcome, Ended):
                outcome = await self._results.end_state(task, outcome)
            await self._results.write(task, outcome)
        finally:
            self._writing.remove(task)
            self._changed.set()

    async def _run(self, task: Task) -> Ended | dict[str, Any]:
        """How a job ended at the instance; or, where it didn't, what follows for its record."""
        record = task.stored.record
        try:
            ended = await self._execute(task)
            if ended.out_of_memory:
                await asyncio.to_thread(self._instance.free)
                ended = await self._execute(task, again=True)
        except Instead as instead:
            return instead.outcome
        except Refused as refused:
            return ended_as("failed", error=refused.error)
        except Busy:
            return record.given_back()
        except (Lost, Away):
            self._looks = True
            return {"state": "waiting"}
        if ended.out_of_memory and self._stock.memory:
            return {"state": "waiting", "above": self._stock.memory}
        return ended

    async def _execute(self, task: Task, *, again: bool = False) -> Ended:
        record = task.stored.record
        if task.adopted and not again:
            return await self._execution.adopt(record.id, record.attempt)
        workflow = await self._store.workflow(record)
        if workflow is None:
            raise Lost(record.id)
        if record.keys:
            keys = await self._store.partner_keys.get(record.keys)
            if keys is None:
                raise Refused(Error(type="keys_lost", message=KEYS_LOST))
            workflow = with_extra(workflow, keys)
        if record.inputs and self._transfer:
            workflow = await self._brought(task, self._transfer.brought(record, workflow))
        looks = self._looks or record.attempt > 1
        ended = await self._execution.run(
            record.id, record.attempt, workflow, looks=looks and not again
        )
        self._looks = False
        self._checkpoint = record.checkpoint or self._checkpoint
        return ended

    async def _brought(self, task: Task, workflow: Coroutine[Any, Any, bytes]) -> bytes:
        """The workflow, when what it reads is here. Raises Instead."""
        record = task.stored.record
        task.bringing = asyncio.ensure_future(workflow)
        try:
            return await task.bringing
        except asyncio.CancelledError:
            if task.ending is None:
                raise
            raise Instead(Ended({}, interrupted=True)) from None
        except Absent as absent:
            raise Instead(_without_inputs(str(absent))) from None
        except (Silent, OSError) as error:
            if record.rested >= RESTS:
                message = f"what it reads can't be had: {error}"
                raise Instead(_without_inputs(message)) from None
            raise Instead({**record.given_back(), "rested": record.rested + 1}) from None
        finally:
            task.bringing = None


def _without_inputs(message: str) -> dict[str, Any]:
    return ended_as("failed", error=Error(type="missing_input", message=message))


async def serve(settings: Settings, place: Place) -> None:
    """Run jobs until this process is ended by SIGTERM."""
    client = await connection.connect(settings, f"worker of {place.name}")
    store = await reach(client.jetstream(timeout=connection.ANSWER), settings.replicas)
    # Not before: a worker that waits for the server has no job, and ends at once.
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    transfer = await job_transfer.connected(settings, f"files of {place.name}")
    await InstanceWorker(client, store, settings, place, transfer).work(ended)
    await connection.close(client)


def main() -> None:
    asyncio.run(serve(Settings.read(Path(sys.argv[1])), Place.from_environment()))


if __name__ == "__main__":
    main()

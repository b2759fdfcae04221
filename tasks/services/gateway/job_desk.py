"""What the gateway does with jobs: submit, cancel and retry them, each a step of the record."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext

from ...spec.layout import Layout
from ..jobs import connection, job_store
from ..jobs.demand import Waiting, why_unfit
from ..jobs.file_exchange import FileExchange
from ..jobs.job_settings import Settings
from ..jobs.job_store import Overtaken, Store, Stored, TooLarge
from ..jobs.object_files import ObjectFiles
from ..jobs.record import ENDED, Record, Webhook
from ..jobs.record_watch import RecordWatch
from ..jobs.shared_inputs import SharedInputs
from ..jobs.stored_workflow import pack, unpack
from ..jobs.worker_protocol import ANNOUNCED, PROGRESS, Order, worker
from .announced_instances import AnnouncedInstances
from .job_view import JobView
from .refused import Refused, away, not_found
from .submission import Submission, Workflow
from .waiting_reasons import WaitingReasons

ANSWER = 5.0
"""Seconds that the store may take to answer."""
ORDER = 2.0
"""Seconds that a worker may take to say that it ends a job."""
LEARNS = 0.5
"""Seconds that the store may take to say what new instances have, before jobs are shown."""
SEEN_IN = 1.0
"""Seconds that a step of ours may take to come back through the watch."""
TRIES = 20
"""Attempts at a step that others are faster at."""
NAMESPACE = uuid.UUID("5f0f5e7c-7d1c-4c1c-9a53-0d6f1d0c9d1b")
USER = "user"
"""The label that names for whom the client submits: jobs of these take turns."""
UNSURE = 1000
"""How many submissions without an acknowledgement are remembered."""


class JobDesk:
    """The jobs on one server. `start` comes first."""

    def __init__(self, settings: Settings, instances: AnnouncedInstances | None = None) -> None:
        self.settings = settings
        self.view = JobView()
        self.instances = instances or AnnouncedInstances()
        self.reasons = WaitingReasons(self.instances)
        self.ready = False
        """Whether it knows all jobs."""
        self.exchange: FileExchange | None = None
        """None: there are no other machines."""
        self.objects = ObjectFiles.from_environment(settings.store)
        self._inputs = SharedInputs(Layout(settings.workspace))
        self._uploads: set[asyncio.Task[bool]] = set()
        self._client: Client | None = None
        self._files: Client | None = None
        self._watch: RecordWatch | None = None
        self._unsure: dict[str, None] = {}
        """Jobs of which it isn't known whether they were stored."""

    async def start(self) -> None:
        """Connect, and know all jobs, however long it takes."""
        self._client = await connection.connect(self.settings, "gateway", self._resume)
        self._stream: JetStreamContext = self._client.jetstream(timeout=ANSWER)
        while True:
            try:
                self._store: Store = await job_store.declare(self._stream, self.settings.replicas)
                break
            except Error:
                await asyncio.sleep(connection.RETRY)
        if self.settings.shared:
            await self._exchange_files()
        self._watch = RecordWatch(self._client, self._stream)
        await self._client.subscribe(f"{PROGRESS}.*", cb=self.view.said)
        await self._client.subscribe(ANNOUNCED, cb=self.instances.hear)
        self.instances.listen()
        await self._watch.start(self.view.changed, self.view.forgotten)
        self.view.complete = True
        self.ready = True

    async def stop(self) -> None:
        if self._watch is not None:
            await self._watch.stop()
        for client in (self._client, self._files):
            if client is not None:
                await connection.close(client)

    async def _exchange_files(self) -> None:
        """Give files of this machine to others, and get theirs."""
        self._files = await connection.connect(self.settings, "files of the gateway")
        layout = Layout(self.settings.workspace)
        self.exchange = FileExchange(self._files, layout, self.settings.machine)
        await self.exchange.serve()

    @property
    def is_connected(self) -> bool:
        """Whether it hears what is announced."""
        return self._client is not None and self._client.is_connected

    # Jobs

    async def submit(self, owner: str, wanted: Submission) -> Record:
        """The job, stored. Raises Refused: it fits nowhere, too many wait, its key was used."""
        if self.view.waiting >= self.settings.max_queued:
            raise Refused(
                429,
                "queue_full",
                f"{self.view.waiting} jobs wait, {self.settings.max_queued} at most",
                headers={"Retry-After": str(self._queue_time())},
            )
        self._require_connection()
        try:
            workflow = pack(wanted.workflow, wanted.extra)
        except (ValueError, RecursionError):
            raise Refused(422, "invalid_workflow", "the workflow is no JSON") from None
        record = await self._record(owner, wanted)
        try:
            made = await self._store.create(record, workflow, wanted.keys)
        except TooLarge as error:
            raise Refused(413, "payload_too_large", f"the workflow is too large: {error}") from None
        except Error:
            self._unsure[record.id] = None
            if len(self._unsure) > UNSURE:
                del self._unsure[next(iter(self._unsure))]
            raise
        if made:
            await self.view.see(record.id, 1, SEEN_IN)
            return record
        if record.id in self._unsure and (stored := await self._store.read(record.id)):
            # The same client asks again, since it got no answer.
            del self._unsure[record.id]
            return stored.record
        raise Refused(
            422,
            "idempotency_key_reuse",
            f"this key was used: job {record.id} has it",
            {"job_id": record.id},
        )

    async def find(self, job: str) -> Stored:
        """A job, also one that was stored a moment ago. Raises Refused."""
        stored = self.view.get(job)
        if stored is None and is_id(job):
            self._require_connection()
            stored = await self._store.read(job)
        if stored is None:
            raise not_found(f"job {job[:80]}")
        return stored

    async def workflow(self, record: Record) -> tuple[Workflow, dict[str, Any]]:
        """The workflow as it is executed, and what ComfyUI gets beside it. Raises Refused."""
        self._require_connection()
        workflow = await self._store.workflow(record)
        if workflow is None:
            raise not_found(f"workflow of job {record.id}")
        return unpack(workflow)

    async def cancel(self, job: str) -> Record:
        """The job once its end is certain; nothing happens to one that has ended."""
        for _ in range(TRIES):
            stored = await self._latest(job)
            record = stored.record
            if record.state in ENDED:
                return record
            with suppress(Overtaken):
                if record.state == "waiting":
                    wanted = record.next("cancelled", cancel=True, ended=time.time())
                    return await self._step(stored, wanted)
                if not record.cancel:
                    stored = await self._store.replace(stored, record.changed(cancel=True))
                await self._end(stored)
                return stored.record
        raise away()

    async def retry(self, job: str) -> Record:
        """A job that failed or is dead, waiting again. Raises Refused."""
        for _ in range(TRIES):
            stored = await self._latest(job)
            if stored.record.state not in ("failed", "dead"):
                message = f"job {job} is {stored.record.state}; only a failed or dead one"
                raise Refused(409, "invalid_state", f"{message} can be tried again")
            with suppress(Overtaken):
                record, hook = stored.record, stored.record.webhook
                # The number of the attempt isn't used again: instances tell attempts by it.
                again = record.next(
                    "waiting", returned=record.attempt, error=None, cancel=False,
                    above=0, started=0.0, ended=0.0, outputs={}, sizes={}, machine="",
                    stored=False, gone=False, rested=0,
                    webhook=Webhook(url=hook.url) if hook else None,
                )  # fmt: skip
                return await self._step(stored, again)
        raise away()

    async def forget(self, job: str) -> None:
        """Remove a job that has ended; nothing happens to another. Raises Refused."""
        if self.view.get(job) is None:
            return
        self._require_connection()
        stored = await self._store.read(job)
        if stored is not None and stored.record.state in ENDED:
            await self._store.forget(stored.record)
            self.view.forgotten(job)

    async def learn(self) -> None:
        """Know what the instances have, as far as the store tells it soon."""
        if self._client is not None and self._client.is_connected:
            with suppress(Error, asyncio.TimeoutError):
                await asyncio.wait_for(self.instances.learn(self._store), LEARNS)

    async def note_gone(self, job: str) -> bool:
        """Note that the files of a job that has ended are removed from this machine, and say
        whether they may be."""
        if self.view.get(job) is None:
            return True
        for _ in range(TRIES):
            if (stored := await self._store.read(job)) is None:
                return True
            record = stored.record
            if record.state not in ENDED:
                return False
            if record.gone or record.machine not in ("", self.settings.machine):
                return True
            with suppress(Overtaken):
                await self._step(stored, record.changed(gone=True))
        return False

    async def is_paused(self) -> bool:
        """Whether no job is started now."""
        self._require_connection()
        return await self._store.is_paused()

    async def pause(self, *, on: bool) -> None:
        """Start no more jobs, or start them again; those that run go on."""
        self._require_connection()
        await self._store.pause(on)

    # Steps

    async def _step(self, stored: Stored, record: Record) -> Record:
        """Make a step, and see it: who asks for the queue next expects it there. Raises
        Overtaken."""
        made = await self._store.replace(stored, record)
        await self.view.see(record.id, made.revision, SEEN_IN)
        return made.record

    async def _latest(self, job: str) -> Stored:
        if not is_id(job):
            raise not_found(f"job {job[:80]}")
        self._require_connection()
        stored = await self._store.read(job)
        if stored is None:
            raise not_found(f"job {job}")
        return stored

    async def _end(self, stored: Stored) -> None:
        """Ask the worker that has the job; one that doesn't hear it sees the record."""
        assert self._client is not None
        record = stored.record
        order = Order(
            what="cancel", job=record.id, attempt=record.attempt, revision=stored.revision
        )
        if record.instance:
            with suppress(Error):
                await self._client.request(
                    worker(record.instance), order.model_dump_json().encode(), ORDER
                )

    async def _record(self, owner: str, wanted: Submission) -> Record:
        await self.instances.learn(self._store)
        job = wanted.id or str(
            uuid.uuid5(NAMESPACE, f"{owner}\n{wanted.key}") if wanted.key else uuid.uuid4()
        )
        need = self.instances.models.need(wanted.workflow)
        if reason := why_unfit(Waiting(job, need, 0.0), self.instances.having):
            raise Refused(422, "invalid_workflow", reason)
        inputs = await self._shared_inputs(wanted.workflow) if self.settings.shared else {}
        queue = self.view.queue() if wanted.front else []
        first = min((each.submitted for each in queue), default=time.time())
        return Record(
            id=job,
            submitted=first - 0.001 if queue else time.time(),
            priority=wanted.priority,
            owner=wanted.labels.get(USER) or owner,
            classes=tuple(sorted(need.classes)),
            models=tuple(sorted(need.models)),
            memory=need.memory,
            checkpoint=need.checkpoint,
            nodes=len(wanted.workflow),
            labels=wanted.labels,
            client=wanted.client,
            webhook=Webhook(url=wanted.webhook) if wanted.webhook else None,
            inputs=inputs,
            origin=self.settings.machine if inputs else "",
        )

    async def _shared_inputs(self, workflow: Workflow) -> dict[str, str]:
        """The inputs that it names, kept for the machine that will run it. Raises Refused."""
        try:
            inputs = await asyncio.to_thread(self._inputs.note, workflow)
        except OSError as error:
            message = f"the inputs of the workflow can't be kept: {error}"
            raise Refused(507, "insufficient_storage", message) from None
        for digest in inputs.values():
            if self.objects and (path := self._inputs.get(digest)):
                # The job needn't wait: until the store has them, this machine gives them.
                key = self.objects.input_key(digest)
                task = asyncio.ensure_future(self.objects.put_new(key, path))
                self._uploads.add(task)
                task.add_done_callback(self._uploads.discard)
        return inputs

    def _queue_time(self) -> int:
        """Seconds after which a place in the queue may be free."""
        return 5 if self.view.running() else 30

    async def _resume(self) -> None:
        self.instances.begin_anew()
        if self._watch is not None:
            await self._watch.resume()

    def _require_connection(self) -> None:
        """Refuse at once what would wait for the store in vain."""
        if not self.is_connected:
            raise away()


def is_id(job: str) -> bool:
    """Whether it is a canonical UUID, which ComfyUI asks of a prompt_id."""
    try:
        return str(uuid.UUID(job)) == job
    except ValueError:
        return False

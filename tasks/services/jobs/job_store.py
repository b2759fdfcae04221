"""The jobs in NATS JetStream's key-value store: each step is a compare-and-swap.

Source of the codes and limits: NATS 2.15 and nats-py 2.16.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from nats.errors import NoRespondersError, TimeoutError
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StreamConfig
from nats.js.errors import (
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    NotFoundError,
    ObjectNotFoundError,
    ServiceUnavailableError,
)
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from .partner_keys import Keys, PartnerKeys
from .record import Record
from .worker_protocol import Inventory

RECORDS, WORKFLOWS = "comfy_jobs", "comfy_workflows"
LARGE = "comfy_large_workflows"
"""The bucket of the object store."""
INVENTORIES, CONTROL = "comfy_inventories", "comfy_jobs_control"
INLINE = 900_000
"""Bytes of a workflow that is one value of a bucket: a message ends at 1 MB. Reading a larger one
from the object store takes a hundred times as long."""
LARGEST_WORKFLOW = 32 << 20
"""Bytes."""
DECLARED = (
    KeyValueConfig(RECORDS, history=1, max_value_size=INLINE, direct=True),
    KeyValueConfig(WORKFLOWS, history=1, max_value_size=INLINE, direct=True),
    KeyValueConfig(INVENTORIES, history=1, max_value_size=INLINE, direct=True),
    KeyValueConfig(CONTROL, history=1, max_value_size=INLINE, direct=False),
)
"""On one server; a cluster is never read directly, since any of its servers would answer, also one
that hasn't heard of the last writes yet, or is cut off."""
PAUSED = "paused"
"""In CONTROL: while this key is there, no job is started."""
PROOF = "proof"
"""In CONTROL: a key that is written to see that it can be."""
PATIENCE, PAUSE = 10.0, 0.1
"""Seconds for which a write is tried whose acknowledgement doesn't come, and between two attempts:
a cluster elects a leader in 4 to 8 s."""
SILENT = (TimeoutError, NoRespondersError, NoStreamResponseError, ServiceUnavailableError)
"""What is raised while a server restarts, a leader is elected, or most of a cluster is away."""


class Overtaken(Exception):  # noqa: N818  reads as what happened
    """Somebody else changed the record first."""


class TooLarge(Exception):  # noqa: N818  reads as what happened
    """The workflow is larger than LARGEST_WORKFLOW."""


@dataclass(frozen=True)
class Stored:
    """A record, and the revision that the next step replaces."""

    record: Record
    revision: int


class Store:
    """The jobs on one server or cluster. Raises nats.errors.Error while it can't be reached."""

    def __init__(
        self, buckets: Sequence[KeyValue], large: ObjectStore, partner_keys: PartnerKeys
    ) -> None:
        """`buckets` are those of DECLARED."""
        self._records, self._workflows, self._inventories, self.control = buckets
        self._large = large
        self.partner_keys = partner_keys

    async def create(self, record: Record, workflow: bytes, keys: Keys | None = None) -> bool:
        """Add a job; False: one of this id exists. `keys` are those of partners. Raises TooLarge.

        The workflow comes first, under a name that no other has: a record always has its own.
        """
        if len(workflow) > LARGEST_WORKFLOW:
            raise TooLarge(f"{len(workflow)} bytes, {LARGEST_WORKFLOW} at most")
        if await self.read(record.id) is not None:
            return False
        record = record.changed(workflow=hashlib.sha256(workflow).hexdigest())
        if len(workflow) > INLINE:
            record = record.changed(large=True)
            await self._large.put(_key(record), workflow)
        else:
            await _until_told(lambda: self._workflows.put(_key(record), workflow))
        if keys:
            record = record.changed(keys=f"{record.id}.{record.nonce}")
            await self.partner_keys.put(record.keys, keys)
        try:
            await self._write(record, 0)
        except Overtaken:
            return False
        return True

    async def read(self, job: str) -> Stored | None:
        """The job as it is now; None: there is none of this id."""
        try:
            entry = await self._records.get(job)
        except KeyNotFoundError:
            return None
        assert entry.value is not None
        assert entry.revision is not None
        return Stored(Record.model_validate_json(entry.value), entry.revision)

    async def replace(self, known: Stored, record: Record) -> Stored:
        """Put `record` in the place of `known`. Raises Overtaken when that has changed since."""
        return Stored(record, await self._write(record, known.revision))

    async def workflow(self, record: Record) -> bytes | None:
        """The workflow, as it was submitted; None: the job was forgotten meanwhile."""
        try:
            if record.large:
                return (await self._large.get(_key(record))).data
            return (await self._workflows.get(_key(record))).value
        except (KeyNotFoundError, ObjectNotFoundError):
            return None

    async def forget(self, record: Record) -> None:
        """Remove a job that has ended, the record first."""
        await self._records.purge(record.id)
        if record.large:
            with suppress(ObjectNotFoundError):
                await self._large.delete(_key(record))
        else:
            await self._workflows.purge(_key(record))

    async def put_inventory(self, instance: str, inventory: Inventory) -> str:
        """Note what an instance has, and return the revision of that."""
        value = inventory.model_dump_json().encode()
        return str(await _until_told(lambda: self._inventories.put(instance, value)))

    async def inventory(self, instance: str) -> Inventory | None:
        """What an instance has, as it was last noted; None: it never was."""
        try:
            entry = await self._inventories.get(instance)
        except KeyNotFoundError:
            return None
        return Inventory.model_validate_json(entry.value or b"{}")

    async def prove(self) -> None:
        """Return if the store takes writes. One server of a cluster that is cut off from the others
        answers all questions, what is in the store and who leads it among them. Raises
        nats.errors.Error."""
        await self.control.put(PROOF, b"")

    async def is_paused(self) -> bool:
        """Whether no job is to be started now."""
        try:
            await self.control.get(PAUSED)
        except KeyNotFoundError:
            return False
        return True

    async def pause(self, on: bool) -> None:
        """Start no more jobs, or start them again; those that run go on."""
        if on:
            await _until_told(lambda: self.control.put(PAUSED, b""))
        elif await self.is_paused():
            await self.control.purge(PAUSED)

    async def _write(self, record: Record, last: int) -> int:
        """Write where `last` is the revision now. A write whose acknowledgement was lost looks as
        if somebody else had been first: the nonce tells. Raises Overtaken."""
        value = record.model_dump_json().encode()
        try:
            if not last:
                # It knows a job that was forgotten from one that is there.
                return await _until_told(lambda: self._records.create(record.id, value))
            return await _until_told(lambda: self._records.update(record.id, value, last))
        except KeyWrongLastSequenceError:
            now = await self.read(record.id)
            if now is not None and now.record.nonce == record.nonce:
                return now.revision
            raise Overtaken(record.id) from None


def _key(record: Record) -> str:
    return f"{record.id}.{record.workflow}"


async def _until_told(write: Callable[[], Awaitable[int]]) -> int:
    """Write again while no acknowledgement comes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await write()
        except SILENT:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE)


async def declare(stream: JetStreamContext, replicas: int = 1) -> Store:
    """The store; its buckets are made where they are missing, and set right where a person
    changed them. Raises nats.errors.Error."""
    buckets = [await _declare(stream, each, replicas) for each in DECLARED]
    try:
        large = await stream.object_store(LARGE)
    except (BucketNotFoundError, NotFoundError):
        large = await stream.create_object_store(LARGE, replicas=replicas)
    return Store(buckets, large, PartnerKeys(stream, replicas))


async def reach(stream: JetStreamContext, replicas: int) -> Store:
    """The store, however long it takes to answer. Raises nats.errors.Error for what it refuses."""
    while True:
        with suppress(*SILENT):
            return await declare(stream, replicas)
        await asyncio.sleep(PAUSE)


async def _declare(stream: JetStreamContext, wanted: KeyValueConfig, replicas: int) -> KeyValue:
    wanted = wanted.evolve(replicas=replicas, direct=wanted.direct and replicas == 1)
    try:
        bucket = await stream.key_value(wanted.bucket)
    except BucketNotFoundError:
        return await stream.create_key_value(wanted)
    found = (await stream.stream_info(f"KV_{wanted.bucket}")).config
    right = _right(found, wanted)
    if right == found:
        return bucket
    await stream.update_stream(right)
    return await stream.key_value(wanted.bucket)


def _right(found: StreamConfig, wanted: KeyValueConfig) -> StreamConfig:
    """The bucket's configuration with what we rely on."""
    return found.evolve(
        max_msgs_per_subject=wanted.history,
        max_msg_size=wanted.max_value_size,
        num_replicas=wanted.replicas,
        allow_direct=wanted.direct,
        max_msgs=-1,
        max_age=0,
    )

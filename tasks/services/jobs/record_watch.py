"""All jobs as they change, in order and without gaps, whatever the server and the connection do.

nats-py's own watch notices a lost consumer after 5 to 11 s. This one makes a consumer of its own
from the last change on, as soon as it is told that the connection is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header

from .job_store import RECORDS, Stored
from .record import Record

STREAM, SUBJECTS = f"KV_{RECORDS}", f"$KV.{RECORDS}."
BEAT = 2.0
"""Seconds without a change after which the server says that it is there."""
SILENCE = 5.0
"""Seconds without a word after which the consumer is taken for lost."""
ANSWER, RETRY = 1.0, 0.1
"""Seconds to wait for a new consumer, and between two attempts."""
CONSUMER = ConsumerConfig(
    ack_policy=AckPolicy.NONE,
    max_deliver=1,
    mem_storage=True,
    num_replicas=1,
    flow_control=True,
    idle_heartbeat=BEAT,
)


class RecordWatch:
    """One watch. Each change is told once; of changes of one job in quick succession perhaps only
    the last. The functions that are told must not raise."""

    def __init__(self, client: Client, stream: JetStreamContext) -> None:
        self._client, self._stream = client, stream
        self._subscription: Subscription | None = None
        self._complete = asyncio.Event()
        self._opening = asyncio.Lock()
        self._guard: asyncio.Task[None] | None = None
        self._known: set[str] = set()
        self._unseen: set[str] | None = None
        """Jobs that a replay from the beginning hasn't shown yet."""
        self._last = 0
        """The last change in the bucket that was told."""
        self._number = 0
        """How many messages this consumer has sent."""
        self._heard = 0.0

    async def start(
        self, changed: Callable[[Stored], None], forgotten: Callable[[str], None]
    ) -> None:
        """Return once all jobs that exist were told; changes are told from then on."""
        self._changed, self._forgotten = changed, forgotten
        await self.resume()
        self._guard = asyncio.create_task(self._watch_over())
        await self._complete.wait()

    async def resume(self) -> None:
        """Continue after the last change, however long it takes to reach the store."""
        asked = time.monotonic()
        async with self._opening:
            if self._heard > asked:
                return  # somebody else has done it meanwhile
            while not self._client.is_closed:
                with suppress(Error):
                    await self._open()
                    return
                await asyncio.sleep(RETRY)

    async def stop(self) -> None:
        """Tell nothing any more."""
        if self._guard is not None:
            self._guard.cancel()
        await self._close()

    async def _open(self) -> None:
        await self._close()
        end = (await self._stream.stream_info(STREAM)).state.last_seq
        if end < self._last:
            # This is another bucket than before.
            self._last, self._unseen = 0, set(self._known)
        self._number = 0
        inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(inbox, cb=self._take)
        start = {"opt_start_seq": self._last + 1} if self._last else {}
        policy = DeliverPolicy.BY_START_SEQUENCE if self._last else DeliverPolicy.ALL
        made = await self._stream.add_consumer(
            STREAM,
            CONSUMER.evolve(deliver_policy=policy, deliver_subject=inbox, **start),
            timeout=ANSWER,
        )
        self._heard = time.monotonic()
        if not made.num_pending and not self._number:
            self._completed()

    async def _close(self) -> None:
        if self._subscription is not None:
            with suppress(Error):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def _take(self, message: Msg) -> None:
        if self._subscription is None or message.sid != self._subscription._id:
            return  # of a consumer that was given up
        self._heard = time.monotonic()
        headers = message.headers or {}
        if Header.STATUS in headers:
            stalled = message.reply or headers.get(Header.CONSUMER_STALLED)
            if stalled:
                await self._client.publish(stalled)
            missed = int(headers.get(Header.LAST_CONSUMER, 0)) > self._number
        else:
            about = message.metadata
            missed = about.sequence.consumer != self._number + 1
            if not missed:
                self._number, self._last = about.sequence.consumer, about.sequence.stream
                self._tell(message.subject.removeprefix(SUBJECTS), message)
                if not about.num_pending:
                    self._completed()
        if missed:
            self._heard = 0.0

    def _tell(self, job: str, message: Msg) -> None:
        if (message.headers or {}).get("KV-Operation"):
            self._known.discard(job)
            self._forgotten(job)
            return
        try:
            record = Record.model_validate_json(message.data)
        except ValueError:
            return  # not written by us, or by a version with other records
        self._known.add(job)
        if self._unseen is not None:
            self._unseen.discard(job)
        self._changed(Stored(record, self._last))

    def _completed(self) -> None:
        for job in self._unseen or ():
            self._known.discard(job)
            self._forgotten(job)
        self._unseen = None
        self._complete.set()

    async def _watch_over(self) -> None:
        """Resume where a consumer was lost without the connection, as in a cluster."""
        while True:
            await asyncio.sleep(BEAT / 4)
            if self._client.is_connected and time.monotonic() - self._heard > SILENCE:
                await self.resume()

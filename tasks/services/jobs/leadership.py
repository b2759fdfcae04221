"""One scheduler at a time: a key that its holder writes again and again.

Nobody compares clocks: who waits sees on his own that the key doesn't change any more. Two that
both believe to be it for a moment do no harm, since each step of a job is a compare-and-swap.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from nats.errors import Error, NoRespondersError, TimeoutError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

KEY = "scheduler"
BEAT = 1.0
"""Seconds between two writes of the holder."""
SILENCE = 4.0
"""Seconds without a change after which another takes over."""
DOUBT = 3.0
"""Seconds without an acknowledgement after which the holder is it no longer: less than SILENCE."""


class Lost(Exception):  # noqa: N818  reads as what happened
    """Another is the scheduler now, or may be."""


class Leadership:
    """The key of one process; `name` is for people."""

    def __init__(self, bucket: KeyValue, name: str) -> None:
        self._bucket = bucket
        self._value = f"{name} {secrets.token_hex(8)}".encode()
        self._revision = 0

    async def win(self) -> None:
        """Return once this process is the scheduler."""
        seen, since, looked = -1, 0.0, 0.0
        while True:
            try:
                holder, revision = await self._holder()
                stopped = time.monotonic() - looked > BEAT
                looked = time.monotonic()
                # A process that was stopped itself has missed what others wrote.
                if revision != seen or stopped:
                    seen, since = revision, looked
                if not holder or time.monotonic() - since >= SILENCE:
                    self._revision = await self._take(revision)
                    return
            except KeyWrongLastSequenceError:
                # Another was faster.
                seen = -1
            except Error:
                # Without an answer, the silence begins anew.
                seen = -1
            await asyncio.sleep(BEAT / 4)

    async def keep(self) -> None:
        """Write the key again and again. Raises Lost."""
        heard = time.monotonic()
        while True:
            await asyncio.sleep(BEAT)
            if time.monotonic() - heard >= DOUBT:
                raise Lost("the store was silent, or this process was stopped")
            try:
                self._revision = await asyncio.wait_for(
                    self._bucket.update(KEY, self._value, self._revision), DOUBT
                )
                heard = time.monotonic()
            except KeyWrongLastSequenceError:
                if not await self._is_mine():
                    raise Lost("another took over") from None
                heard = time.monotonic()
            except (TimeoutError, NoRespondersError, asyncio.TimeoutError):
                continue

    async def give_up(self) -> None:
        """Let another begin at once; nothing happens if one has."""
        if self._revision:
            await self._bucket.delete(KEY, self._revision)
            self._revision = 0

    async def _holder(self) -> tuple[bytes, int]:
        """The key's content, which names its holder, and its revision; empty without one."""
        try:
            entry = await self._bucket.get(KEY)
        except KeyNotFoundError:
            return b"", 0
        return entry.value or b"", entry.revision or 0

    async def _take(self, revision: int) -> int:
        if revision:
            return await self._bucket.update(KEY, self._value, revision)
        return await self._bucket.create(KEY, self._value)

    async def _is_mine(self) -> bool:
        """Whether the last write was this process's, and only its acknowledgement was lost."""
        holder, revision = await self._holder()
        if holder == self._value:
            self._revision = revision
        return holder == self._value

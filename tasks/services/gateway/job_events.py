"""What happens to one job, as server-sent events until it has ended."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from ..jobs.api_words import status
from ..jobs.job_store import Stored
from ..jobs.record import ENDED, Record
from .job_answers import JobAnswers
from .job_progress import Preview, preview_of
from .job_view import Follower, JobView

STREAMS = 1024
"""Clients that may follow jobs at the same time."""
KEEPALIVE = 10.0
"""Seconds of silence after which a comment is sent; clients take 45 s for a lost connection."""
PLACE_EVERY = 2.0
"""Seconds between two looks at the place in the queue."""
BREATH = 0.2
"""Seconds for which progress is gathered into one event."""


class JobEvents:
    """The events of one job for one client."""

    def __init__(self, view: JobView, answers: JobAnswers, found: Stored, base: str) -> None:
        self._view, self._answers, self._base = view, answers, base
        self._record = found.record
        self._revision = found.revision
        self._said: tuple[str, int | None] | None = None
        """The last status and place."""
        self._progress: dict[str, Any] | None = None
        self._outputs: set[str] = set()
        self._sent = 0.0

    async def stream(self) -> AsyncIterator[bytes]:
        """All outputs come before the status that ends the stream, which clients read last."""
        with self._view.following(self._record.id) as me:
            while True:
                async for event in self._news(me):
                    self._sent = time.monotonic()
                    yield event
                if self._record.state in ENDED or not self._current() or self._view.ended:
                    return
                await me.news(PLACE_EVERY if self._record.state == "waiting" else KEEPALIVE)
                if not me.changed:
                    await asyncio.sleep(BREATH)
                if time.monotonic() - self._sent >= KEEPALIVE:
                    self._sent = time.monotonic()
                    yield b": keepalive\n\n"

    def _current(self) -> bool:
        """Take in the record as it is now; False: it was forgotten."""
        stored = self._view.get(self._record.id)
        if stored is None:
            # The view may not have seen yet what was stored a moment ago.
            return self._said is None or self._record.state == "waiting"
        if stored.revision >= self._revision:
            self._record, self._revision = stored.record, stored.revision
        return True

    async def _news(self, me: Follower) -> AsyncIterator[bytes]:
        me.changed.clear()
        previews = [
            it for _, said in me.said if isinstance(said, bytes) if (it := preview_of(said))
        ]
        me.said.clear()
        self._current()
        record = self._record
        if record.state not in ENDED and (now := self._status(record)) is not None:
            yield now
        if record.state == "leased":
            progress = self._view.progress(record.id)
            if progress and (snapshot := progress.snapshot()) != self._progress:
                self._progress = snapshot
                yield event("progress", snapshot)
            if previews:
                yield event("preview", _preview(previews[-1]))
        for output in await self._answers.outputs(record, self._base):
            if output["id"] not in self._outputs:
                self._outputs.add(output["id"])
                yield event("output", output)
        if record.state in ENDED and (last := self._status(record)) is not None:
            yield last

    def _status(self, record: Record) -> bytes | None:
        now = status(record), self._view.place(record.id)
        if now == self._said:
            return None
        self._said = now
        return event("status", {"status": now[0], "queue_position": now[1]})


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _preview(preview: Preview) -> dict[str, Any]:
    return {
        "node_id": preview.node,
        "content_type": preview.content_type,
        "data_base64": base64.b64encode(preview.image).decode(),
    }

"""One job on one instance: posted once, followed to its end whatever becomes of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ..waking import woken
from .instance_client import Away, Ended, InstanceClient
from .instance_events import InstanceEvents

T = TypeVar("T")

LOOK = 5.0
"""Seconds without a word at the WebSocket after which the instance is asked."""
UNHEARD = 0.5
"""The same without a WebSocket."""
LOOKS, SETTLES = 4, 0.25
"""How often a job is looked for that neither waits, nor runs, nor has ended, and the seconds
between."""


class Lost(Exception):  # noqa: N818  reads as what happened
    """The instance doesn't have the job any more, or has another attempt of it."""


class Execution:
    """Runs jobs on an instance, one at a time.

    `relay` gets the job and what is said about it, as ComfyUI says it: JSON, or a picture's bytes.
    """

    def __init__(
        self,
        instance: InstanceClient,
        client: str,
        relay: Callable[[str, dict[str, Any] | bytes], None],
    ) -> None:
        self._instance, self._client = instance, client
        self._relay = relay
        self._job = ""
        self._heard = asyncio.Event()
        self._is_over = False
        self.events = InstanceEvents(instance.url, client, self._said, self._pictured)

    async def run(self, job: str, attempt: int, workflow: bytes, *, looks: bool) -> Ended:
        """Run a job to its end; with `looks` the instance may have it already, or another attempt.

        Raises Lost, and Refused and Busy of the instance.
        """
        with self._about(job):
            if looks:
                with suppress(Lost):
                    return await self._end_of(job, attempt)
                await self.end(job)
            try:
                await self._call(self._instance.post, job, attempt, workflow, self._client)
            except Away:
                # It may have come through nevertheless.
                return await self._end_of(job, attempt)
            await self._word()
            return await self._end_of(job, attempt)

    async def adopt(self, job: str, attempt: int) -> Ended:
        """Follow a job that another process posted. Raises Lost when it isn't there."""
        with self._about(job):
            return await self._end_of(job, attempt)

    async def end(self, job: str) -> None:
        """End the job at the instance, if it is there and the instance answers."""
        with suppress(Away):
            if any(each.id == job for each in await self._call(self._instance.queue)):
                await self._call(self._instance.end, job)

    @contextmanager
    def _about(self, job: str) -> Iterator[None]:
        self._job, self._is_over = job, False
        self._heard.clear()
        try:
            yield
        finally:
            self._job = ""

    async def _end_of(self, job: str, attempt: int) -> Ended:
        """Wait for the end. Raises Lost when the instance has no such job, or has ended."""
        missing = 0
        while missing < LOOKS:
            try:
                found = await self._call(self._instance.ended, job)
                if found and found[1] == attempt:
                    return found[0]
                queued = await self._call(self._instance.queue)
                is_there = any(each.id == job and each.attempt == attempt for each in queued)
            except Away as away:
                # One that hangs still has it.
                is_there = not away.gone
            if is_there:
                missing = 0
                await self._word()
            else:
                # Between the two answers it may have ended.
                missing += 1
                await asyncio.sleep(SETTLES)
        raise Lost(job)

    async def _word(self) -> None:
        """Wait for word that the job is over, or until nothing was said for some time."""
        while not self._is_over:
            patience = LOOK if self.events.connected.is_set() else UNHEARD
            if not await woken(self._heard, patience):
                return
            self._heard.clear()
        self._is_over = False

    def _said(self, kind: str, data: dict[str, Any]) -> None:
        if not self._job or data.get("prompt_id") != self._job:
            return
        self._relay(self._job, {"type": kind, "data": data})
        # The history has it before this is said.
        if kind == "executing" and data.get("node") is None:
            self._is_over = True
        self._heard.set()

    def _pictured(self, content: bytes) -> None:
        if self._job:
            self._relay(self._job, content)
            self._heard.set()

    @staticmethod
    async def _call(asked: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(asked, *arguments)

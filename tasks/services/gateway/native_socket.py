"""ComfyUI's WebSocket: a client hears of its own jobs what the instances say, and of the queue.

That a job has ended it hears only when the record says so: clients then ask for its history.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from ..jobs.record import ENDED
from .job_events import BREATH
from .job_view import QUEUE, Follower, JobView, client_of
from .native_answers import end_of
from .shown_outputs import placed

SOCKETS = 1024
"""Clients at the same time."""
LOOK = 10.0
"""Seconds between two looks at whether the gateway ends."""
ENDS = frozenset(["execution_success", "execution_error", "execution_interrupted"])


class NativeSocket:
    """All WebSockets."""

    def __init__(
        self, view: JobView, exec_info: Callable[[], dict[str, Any]],
        features: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:  # fmt: skip
        self._view, self._exec_info, self._features = view, exec_info, features
        self._open = 0

    async def serve(self, socket: WebSocket) -> None:
        """What happens to the jobs of a `clientId`, and how long the queue is."""
        if self._open >= SOCKETS:
            await socket.close(1013)
            return
        await socket.accept()
        client = socket.query_params.get("clientId") or secrets.token_hex(16)
        self._open += 1
        try:
            # What the client sends means little, but only a read notices that it left.
            tasks = [
                asyncio.create_task(self._read(socket)),
                asyncio.create_task(self._relay(socket, client)),
                asyncio.create_task(self._count(socket, client)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(1001)
        finally:
            self._open -= 1

    async def _read(self, socket: WebSocket) -> None:
        with suppress(WebSocketDisconnect):
            while True:
                try:
                    said = await socket.receive_json()
                except (ValueError, KeyError, RecursionError):
                    continue
                if isinstance(said, dict) and said.get("type") == "feature_flags":
                    about = await self._features()
                    await socket.send_json({"type": "feature_flags", "data": about})

    async def _count(self, socket: WebSocket, client: str) -> None:
        """Say how long the queue is, whenever that changes."""
        said = None
        with self._view.following(QUEUE) as me:
            while not self._view.ended:
                if (now := self._exec_info()) != said:
                    about = {"status": now} | ({} if said else {"sid": client})
                    said = now
                    await socket.send_json({"type": "status", "data": about})
                await me.news(LOOK)
                await asyncio.sleep(BREATH)

    async def _relay(self, socket: WebSocket, client: str) -> None:
        told: set[str] = set()
        """Jobs of whose end the client heard."""
        with self._view.following(client_of(client)) as me:
            while not self._view.ended:
                await self._pass_on(socket, me)
                for job in [*me.changed]:
                    del me.changed[job]
                    await self._end(socket, job, told)
                await me.news(LOOK)

    async def _pass_on(self, socket: WebSocket, me: Follower) -> None:
        while me.said:
            job, said = me.said.popleft()
            if isinstance(said, bytes):
                await socket.send_bytes(said)
            elif not _is_end(said):
                await socket.send_json(placed(said, job))

    async def _end(self, socket: WebSocket, job: str, told: set[str]) -> None:
        stored = self._view.get(job)
        if stored is None or stored.record.state not in ENDED:
            told.discard(job)
        elif job not in told:
            told.add(job)
            kind, about = end_of(stored.record)
            await socket.send_json({"type": kind, "data": about})
            done = {"node": None, "prompt_id": job}
            await socket.send_json({"type": "executing", "data": done})


def _is_end(said: dict[str, Any]) -> bool:
    """Whether it says that a job has ended, or speaks of the queue of one instance."""
    data = said.get("data")
    last = isinstance(data, dict) and "node" in data and data["node"] is None
    return said.get("type") in ENDS or (said.get("type") == "executing" and last) or (
        said.get("type") == "status"
    )  # fmt: skip

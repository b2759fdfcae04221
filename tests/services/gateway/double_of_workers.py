"""A double of the scheduler and the workers: it takes each job through its states by itself.

What a job does is in its workflow: each node of class `Say`, `Save`, `Hold` and `Break` is done in
turn. To test with the real ones, replace `Workers`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from comfy_machine.services.jobs.job_store import Overtaken, Store, Stored, declare
from comfy_machine.services.jobs.record import Error
from comfy_machine.services.jobs.record_watch import RecordWatch
from comfy_machine.services.jobs.stored_workflow import unpack
from comfy_machine.services.jobs.worker_protocol import (
    ANNOUNCED,
    PROGRESS,
    Announcement,
    Inventory,
    Order,
    Reply,
    worker,
)
from comfy_machine.spec.layout import Layout

INSTANCE = "machine_gpu0"
BEAT = 1.0
"""Seconds between two announcements."""
CLASSES = ("Say", "Save", "Hold", "Break", "LoadImage", "Noop", "SaveImage")
MODELS = {"checkpoints/base.safetensors": 7_000}


class Workers:
    """One instance, which runs all jobs at once. `pause` lets them wait."""

    def __init__(self, url: str, workspace: Path, instance: str = "") -> None:
        self._url, self._layout, self.instance = url, Layout(workspace), instance
        self._ready = threading.Event()
        self._paused = False
        self._cancelled: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, Stored] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def pause(self) -> None:
        self._paused = True

    def go_on(self) -> None:
        self._paused = False
        self._loop.call_soon_threadsafe(self._begin)

    def meant(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """What is done for it."""
        return [node]

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)

    async def _live(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()

        async def resume() -> None:
            await watch.resume()

        async def ignore(_: Exception) -> None:
            pass

        client = self._client = await nats.connect(
            self._url,
            reconnect_time_wait=0.1,
            max_reconnect_attempts=-1,
            reconnected_cb=resume,
            error_cb=ignore,
        )
        stream = client.jetstream(timeout=2)
        self._store: Store = await declare(stream)
        has = Inventory(classes=CLASSES, models=tuple(MODELS), sizes=MODELS)
        revision = await self._store.put_inventory(INSTANCE, has)
        watch = RecordWatch(client, stream)
        await client.subscribe(worker(INSTANCE), cb=self._ordered)
        await watch.start(self._changed, self._forgotten)
        said = Announcement(
            instance=INSTANCE, url=self.instance, session="1", number=1, state="idle",
            memory=24_000, inventory=revision,
        )  # fmt: skip
        while not self._ended.is_set():
            await client.publish(ANNOUNCED, said.model_dump_json().encode())
            if not self._ready.is_set():
                await client.flush()
                self._ready.set()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), BEAT)
        await watch.stop()
        await client.close()

    async def _ordered(self, message: Msg) -> None:
        order = Order.model_validate_json(message.data)
        if order.what == "cancel":
            self._cancelled.add(order.job)
        await message.respond(Reply(done=True).model_dump_json().encode())

    def _changed(self, stored: Stored) -> None:
        if stored.record.state == "waiting":
            self._waiting[stored.record.id] = stored
        else:
            self._waiting.pop(stored.record.id, None)
        self._begin()

    def _forgotten(self, job: str) -> None:
        self._waiting.pop(job, None)

    def _begin(self) -> None:
        if self._paused:
            return
        for stored in [*self._waiting.values()]:
            task = asyncio.create_task(self._run(stored))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._waiting.clear()

    async def _run(self, stored: Stored) -> None:
        record = stored.record
        leased = record.next(
            "leased", attempt=record.attempt + 1, instance=INSTANCE, started=time.time()
        )
        try:
            stored = await self._store.replace(stored, leased)
        except Overtaken:
            return
        workflow, _ = unpack(await self._store.workflow(leased) or b"{}")
        outputs: dict[str, Any] = {}
        state, error = "succeeded", None
        await self._say(record.id, "execution_start", {"prompt_id": record.id})
        steps = ((node, each) for node, what in workflow.items() for each in self.meant(what))
        for node, what in steps:
            await self._say(record.id, "executing", {"node": node, "prompt_id": record.id})
            inputs = what.get("inputs", {})
            if what["class_type"] == "Break":
                message = inputs.get("message", "it broke")
                error = Error(type="ValueError", message=message, node=node, node_type="Break")
                state = "failed"
                break
            if what["class_type"] == "Hold":
                while record.id not in self._cancelled:
                    await asyncio.sleep(0.02)
                state = "cancelled"
                break
            if what["class_type"] == "Say":
                await self._talk(record.id, node, inputs)
            if what["class_type"] == "Save":
                outputs[node] = self._save(record.id, inputs)
                about = {"node": node, "output": outputs[node], "prompt_id": record.id}
                await self._say(record.id, "executed", about)
            await asyncio.sleep(inputs.get("seconds", 0))
        if state == "succeeded":
            # As ComfyUI does: before anybody has noted the outputs.
            await self._say(record.id, "executing", {"node": None, "prompt_id": record.id})
            await self._say(record.id, "execution_success", {"prompt_id": record.id})
            await asyncio.sleep(0.1)
        while True:
            now = await self._store.read(record.id)
            assert now is not None
            ended = now.record.next(state, outputs=outputs, error=error, ended=time.time())  # type: ignore[arg-type]
            try:
                await self._store.replace(now, ended)
                return
            except Overtaken:
                continue

    async def _talk(self, job: str, node: str, inputs: dict[str, Any]) -> None:
        for step in range(1, 5):
            about = {"node": node, "value": step, "max": 4, "prompt_id": job}
            await self._say(job, "progress", about)
            image = (1).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"\x89PNG"
            client: Client = self._client
            await client.publish(f"{PROGRESS}.{job}", image, headers={"Kind": "binary"})
            await asyncio.sleep(inputs.get("pause", 0.05))

    async def _say(self, job: str, kind: str, data: dict[str, Any]) -> None:
        message = json.dumps({"type": kind, "data": data}).encode()
        await self._client.publish(f"{PROGRESS}.{job}", message)

    def _save(self, job: str, inputs: dict[str, Any]) -> dict[str, Any]:
        folder = self._layout.outputs(0).parent / "jobs" / job
        folder.mkdir(parents=True, exist_ok=True)
        name = inputs.get("name", "image_00001_.png")
        source = inputs.get("image")
        content = inputs.get("content", "0123456789").encode("latin-1")
        if source:
            content = (self._layout.inputs / source).read_bytes()
        (folder / name).write_bytes(content)
        return {"images": [{"filename": name, "subfolder": f"jobs/{job}", "type": "output"}]}

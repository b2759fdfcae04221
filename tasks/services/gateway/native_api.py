"""ComfyUI's own HTTP endpoints, so that its clients find the pool where they expect one ComfyUI."""

from __future__ import annotations

import asyncio
import filecmp
import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..jobs.partner_keys import NAMES
from ..jobs.record import ENDED, Record
from .announced_instances import AnnouncedInstances
from .asset_files import AssetFiles
from .derived_pictures import DerivedPictures
from .file_answers import file_answer
from .home_instance import HomeInstance
from .job_desk import JobDesk, is_id
from .job_outputs import File, JobOutputs
from .mask_uploads import MaskUploads
from .native_answers import history, queued, refusal
from .output_files import JOBS, OutputFile, outputs_of
from .refused import Refused
from .requested import json_object, number
from .shown_outputs import made_as
from .submission import (
    Submission,
    Workflow,
    checked_keys,
    checked_webhook,
    checked_workflow,
    only,
)
from .uploads import Upload, receive

LONGEST_CLIENT = 128
"""Characters of a clientId."""
MOST_HISTORY = 100
"""Entries of /history, each of which costs a read."""
GRAPHS = 16
"""Entries of /queue with a workflow: nobody would wait for thousands of them."""
FORGOTTEN = 32
"""Jobs that are forgotten at once."""
RENAMES = 1000
"""Numbers that are tried for a file whose name is taken."""


class NativeApi:
    """Its endpoints; `router` has them all, below /api too."""

    def __init__(
        self, desk: JobDesk, files: AssetFiles, outputs: JobOutputs, inputs: Path,
        instances: AnnouncedInstances, home: HomeInstance, pictures: DerivedPictures,
    ) -> None:  # fmt: skip
        self._desk, self._files, self._outputs = desk, files, outputs
        self._inputs, self._instances, self._home = inputs, instances, home
        self._pictures = pictures
        self.router = APIRouter()
        routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("POST", "/prompt", self.submit),
            ("GET", "/prompt", self.remaining),
            ("GET", "/queue", self.queue),
            ("POST", "/queue", self.change_queue),
            ("GET", "/history", self.history),
            ("GET", "/history/{job}", self.history_of),
            ("POST", "/history", self.change_history),
            ("POST", "/interrupt", self.interrupt),
            ("GET", "/view", self.view),
            ("POST", "/upload/image", self.upload),
            ("POST", "/upload/mask", MaskUploads(files, home, self._find).upload),
            ("GET", "/object_info", self.classes),
            ("GET", "/object_info/{name}", self.classes),
            ("GET", "/system_stats", self.system),
        )
        for method, path, endpoint in routes:
            add = self.router.add_api_route
            add(path, endpoint, methods=[method])
            add(f"/api{path}", endpoint, methods=[method], include_in_schema=False)

    # Jobs

    async def submit(self, request: Request) -> Response:
        """Submit a job; the `webhook_url` of its `extra_data` is told of its end."""
        body = await json_object(request)
        try:
            record = await self._desk.submit(request.state.owner, _submission(body))
        except Refused as refused:
            if refused.code == "idempotency_key_reuse":
                return JSONResponse(refusal("duplicate_prompt_id", str(refused)), 400)
            if refused.status != 422:
                raise
            return JSONResponse(refusal(refused.code, str(refused)), 400)
        answer = {"prompt_id": record.id, "number": record.submitted, "node_errors": {}}
        return JSONResponse(answer)

    async def remaining(self) -> Response:
        """How many jobs wait or run."""
        return JSONResponse(self.exec_info())

    def exec_info(self) -> dict[str, Any]:
        """How many jobs wait or run."""
        view = self._desk.view
        return {"exec_info": {"queue_remaining": view.waiting + len(view.running())}}

    async def queue(self) -> Response:
        """The jobs that run and wait, the first 16 with their workflows."""
        view = self._desk.view
        running, waiting = view.running(), view.queue()
        shown = [each for each in (*running, *waiting)[:GRAPHS] if not each.large]
        found = await asyncio.gather(*map(self._workflow, shown))
        graphs = dict(zip((each.id for each in shown), found, strict=True))

        def entries(records: list[Record]) -> list[Any]:
            return [queued(each, *graphs.get(each.id, ({}, {}))) for each in records]

        return JSONResponse({"queue_running": entries(running), "queue_pending": entries(waiting)})

    async def change_queue(self, request: Request) -> Response:
        """Cancel waiting jobs: those to `delete`, or with `clear` all of this owner."""
        body = await json_object(request)
        waiting = {each.id: each for each in self._desk.view.queue()}
        wanted = body.get("delete")
        jobs = [job for job in wanted if job in waiting] if isinstance(wanted, list) else []
        if body.get("clear"):
            owner = request.state.owner
            jobs = [job for job, each in waiting.items() if each.owner == owner]
        for job in jobs:
            await self._desk.cancel(job)
        return Response()

    async def history(self, request: Request) -> Response:
        """The last jobs that ended, 100 at most."""
        most = int(number(request, "max_items", MOST_HISTORY, 0, 1e9))
        ended = (each for each in self._desk.view.newest() if each.state in ENDED)
        found = [*islice(ended, min(most, MOST_HISTORY))]
        # A hundred of the largest workflows are no answer.
        entries = await asyncio.gather(
            *(self._history(each, alone=each.large) for each in reversed(found))
        )
        return JSONResponse(dict(zip((each.id for each in reversed(found)), entries, strict=True)))

    async def history_of(self, job: str) -> Response:
        """A job that has ended."""
        try:
            record = (await self._desk.find(job)).record
        except Refused as refused:
            if refused.status != 404:
                raise
            return JSONResponse({})
        found = {job: await self._history(record)} if record.state in ENDED else {}
        return JSONResponse(found)

    async def change_history(self, request: Request) -> Response:
        """Forget jobs that have ended: those to `delete`, or with `clear` all of this owner. Their
        files stay."""
        body = await json_object(request)
        wanted = body.get("delete")
        jobs = [job for job in wanted if isinstance(job, str)] if isinstance(wanted, list) else []
        if body.get("clear"):
            owner = request.state.owner
            mine = (each for each in self._desk.view.newest() if each.owner == owner)
            jobs = [each.id for each in mine if each.state in ENDED]
        for first in range(0, len(jobs), FORGOTTEN):
            await asyncio.gather(*map(self._desk.forget, jobs[first : first + FORGOTTEN]))
        return Response()

    async def _history(self, record: Record, *, alone: bool = False) -> dict[str, Any]:
        """An entry, `alone`: without its workflow."""
        return history(record, *(({}, {}) if alone else await self._workflow(record)))

    async def _workflow(self, record: Record) -> tuple[Workflow, dict[str, Any]]:
        """The workflow and what goes with it; empty where the job is forgotten."""
        try:
            return await self._desk.workflow(record)
        except (Refused, ValueError):
            return {}, {}

    async def interrupt(self, request: Request) -> Response:
        """End a running job: that of `prompt_id`, or the oldest of this owner."""
        body = await json_object(request, optional=True)
        running, named = self._desk.view.running(), body.get("prompt_id")
        mine = [each for each in running if each.owner == request.state.owner]
        jobs = [each for each in running if each.id == named] if named else mine[:1]
        for each in jobs:
            await self._desk.cancel(each.id)
        return Response()

    # Files

    async def view(self, request: Request) -> Response:
        """A file of the outputs, inputs or temporary files; with `preview` or `channel` a picture
        as ComfyUI makes it of that. Outputs answer as those of
        `/api/v2/assets`."""
        name, query = request.query_params.get("filename", ""), request.query_params
        kind = query.get("type", "output")
        for known in ("output", "input", "temp"):
            if name.endswith(f" [{known}]"):
                name, kind = name.removesuffix(f" [{known}]"), known
        file = await self._find(name, query.get("subfolder", ""), kind)
        if file is None:
            return Response(status_code=404)
        if query.get("preview") or query.get("channel", "rgba") != "rgba":
            return await self._pictures.derived(request, file, name)
        return file_answer(request, file, name)

    async def _find(self, name: str, subfolder: str, kind: str) -> File | None:
        """The file; None: nothing has this name. Raises Refused for an output that is gone, or
        whose machine doesn't answer."""
        locate = self._outputs.folders.locate
        if found := await asyncio.to_thread(locate, name, subfolder, kind):
            return found
        job = subfolder.removeprefix(f"{JOBS}/")
        stored, progress = self._desk.view.get(job), self._desk.view.progress(job)
        if stored is None:
            return None
        record = stored.record
        for output in outputs_of(record, record.outputs):
            if (output.name, output.subfolder, output.type) == (name, subfolder, kind):
                return await self._outputs.find(record, output)
        made = made_as(progress.outputs, name) if progress else None
        if made is None:
            return None
        running = OutputFile(record.id, "", "", name, *made, record.instance)
        return await self._outputs.find(record, running)

    async def upload(self, request: Request) -> Response:
        """Keep a file among the inputs."""
        upload = await receive(request, self._files.parts, "image")
        try:
            path = await asyncio.to_thread(self._keep, upload)
        finally:
            if upload.part is not None:
                upload.part.unlink(missing_ok=True)
        subfolder = upload.fields.get("subfolder", "")
        return JSONResponse({"name": path.name, "subfolder": subfolder, "type": "input"})

    def _keep(self, upload: Upload) -> Path:
        name, kind = upload.name, upload.fields.get("type", "input") or "input"
        subfolder = Path(upload.fields.get("subfolder", ""))
        if upload.part is None or Path(name).name != name or name.startswith(".") or not name:
            raise Refused(
                400, "invalid_request", "there is no part 'image' with the name of a file"
            )
        if kind != "input":
            raise Refused(400, "invalid_request", "only inputs can be uploaded")
        folder, top = (self._inputs / subfolder).resolve(), self._inputs.resolve()
        if not folder.is_relative_to(top) or "\0" in f"{name}{subfolder}":
            raise Refused(400, "invalid_request", "'subfolder' leads elsewhere")
        folder.mkdir(parents=True, exist_ok=True)
        if upload.fields.get("overwrite") in ("true", "1"):
            upload.part.replace(folder / name)
            return folder / name
        stem, suffix = Path(name).stem, Path(name).suffix
        for attempt in range(RENAMES):
            path = folder / (f"{stem} ({attempt}){suffix}" if attempt else name)
            try:
                os.link(upload.part, path)
            except FileExistsError:
                if path.is_file() and filecmp.cmp(path, upload.part, shallow=False):
                    return path
            else:
                return path
        raise Refused(409, "invalid_request", f"{RENAMES} files have this name")

    # What there is

    async def classes(self, name: str = "") -> Response:
        """All node classes of all instances."""
        found = await self._instances.classes()
        if name:
            found = {name: found[name]} if name in found else {}
        return JSONResponse(found)

    async def system(self) -> Response:
        """One device for each instance."""
        instances = self._instances.now()
        about = (await self._home.json("/system_stats")).get("system")
        return JSONResponse(
            {
                "system": {"os": "posix", "argv": [], "embedded_python": False}
                | (about if isinstance(about, dict) else {}),
                "devices": [
                    {
                        "name": each.instance,
                        "type": "cuda",
                        "index": index,
                        "vram_total": each.memory or 0,
                        "vram_free": 0,
                        "torch_vram_total": 0,
                        "torch_vram_free": 0,
                    }
                    for index, each in enumerate(instances)
                ],
            }
        )


def _submission(body: dict[str, Any]) -> Submission:
    """Raises Refused."""
    extra = body.get("extra_data")
    extra = {**extra} if isinstance(extra, dict) else {}
    keys = checked_keys(extra)
    for name in NAMES:
        extra.pop(name, None)
    webhook = checked_webhook(extra.pop("webhook_url", None))
    client = body.get("client_id") or extra.pop("client_id", "")
    job = body.get("prompt_id") or ""
    if job and not (isinstance(job, str) and is_id(job)):
        raise Refused(422, "invalid_prompt_id", "prompt_id is no canonical UUID")
    if not isinstance(client, str) or len(client) > LONGEST_CLIENT:
        raise Refused(
            422, "invalid_request", f"client_id has more than {LONGEST_CLIENT} characters"
        )
    place = body.get("number")
    early = isinstance(place, int | float) and place < 0
    return Submission(
        workflow=only(checked_workflow(body.get("prompt")), body.get("partial_execution_targets")),
        client=client,
        id=job,
        front=bool(body.get("front")) or early,
        webhook=webhook,
        extra={**extra, "create_time": round(time.time() * 1000)} if extra else {},
        keys=keys,
    )

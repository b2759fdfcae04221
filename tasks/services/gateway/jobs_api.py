"""The jobs of the Comfy API v2."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..jobs.api_words import STATUS, status
from ..jobs.partner_keys import Keys
from ..jobs.record import Record
from .asset_files import AssetFiles
from .asset_references import resolved
from .job_answers import PREFIX, JobAnswers, base
from .job_desk import JobDesk
from .job_events import STREAMS, JobEvents
from .job_outputs import JobOutputs
from .refused import Refused, not_found
from .requested import json_object, number
from .submission import (
    Submission,
    checked_keys,
    checked_labels,
    checked_priority,
    checked_webhook,
    checked_workflow,
)

MOST_LISTED, LISTED = 100, 50
LONGEST_KEY = 255
"""Characters of an Idempotency-Key."""
LONGEST_WAIT = 60.0
"""Seconds that a client may ask to wait for the end of a job."""
STATES = {*STATUS.values(), "canceling", "expired"}
LABEL = re.compile(r"metadata\[(.+)\]")
CURSOR = re.compile(r"(\d{1,12}\.\d{1,9})_([0-9a-f-]{36})")
EXTRA = {"api_key_comfy_org"}


class JobsApi:
    """Its endpoints; `router` has them all."""

    def __init__(
        self, desk: JobDesk, files: AssetFiles, answers: JobAnswers, outputs: JobOutputs
    ) -> None:
        self._desk, self._files, self._answers, self._outputs = desk, files, answers, outputs
        self._streams = 0
        self.router = APIRouter(prefix=f"{PREFIX}/jobs")
        add = self.router.add_api_route
        add("", self.submit, methods=["POST"])
        add("", self.list, methods=["GET"])
        add("/{job}", self.get, methods=["GET"])
        add("/{job}/workflow", self.workflow, methods=["GET"])
        add("/{job}/cancel", self.cancel, methods=["POST"])
        add("/{job}/retry", self.retry, methods=["POST"])
        add("/{job}/preview", self.preview, methods=["GET"])
        add("/{job}/events", self.events, methods=["GET"])

    async def submit(self, request: Request) -> Response:
        """Submit a job: `workflow` in API format; `priority`, `metadata` and `webhook_url`, which
        is told of its end, if wanted."""
        body = await json_object(request)
        if body.get("inputs") is not None:
            raise Refused(422, "invalid_workflow", "'inputs' is not supported")
        keys = _keys(body.get("extra_data"))
        workflow = checked_workflow(body.get("workflow"))
        wanted = Submission(
            workflow=await resolved(
                workflow, self._files, self._desk, self._answers, self._outputs
            ),
            priority=checked_priority(body.get("priority")),
            labels=checked_labels(body.get("metadata")),
            webhook=checked_webhook(body.get("webhook_url")),
            key=_key(request),
            keys=keys,
        )
        record = await self._desk.submit(request.state.owner, wanted)
        return await self._answer(record, request, 201)

    async def list(self, request: Request) -> Response:
        """All jobs, the newest first: `limit`, `cursor`, `status`, `metadata[name]`."""
        limit = int(number(request, "limit", LISTED, 1, MOST_LISTED))
        before, states = _before(request), _states(request)
        labels = [
            (found[1], value)
            for name, value in request.query_params.multi_items()
            if (found := LABEL.fullmatch(name))
        ]
        matching = (
            record
            for record in self._desk.view.newest(before)
            if (not states or status(record) in states)
            and all(record.labels.get(name) == value for name, value in labels)
        )
        await self._desk.learn()
        page = [*islice(matching, limit + 1)]
        more, page = len(page) > limit, page[:limit]
        jobs = [await self._answers.job(record, base(request)) for record in page]
        cursor = {"next_cursor": _cursor(page[-1])} if more else {}
        return JSONResponse({"jobs": jobs, "truncated": False, **cursor})

    async def get(self, request: Request, job: str) -> Response:
        """A job; with `wait`, when it has ended or so many seconds are over."""
        stored = await self._desk.find(job)
        if wait := number(request, "wait", 0, 0, LONGEST_WAIT):
            await self._desk.view.wait_for_end(job, wait)
            stored = await self._desk.find(job)
        await self._desk.learn()
        return await self._answer(stored.record, request)

    async def workflow(self, request: Request, job: str) -> Response:
        """Its workflow as it is executed: references to assets are names of files."""
        stored = await self._desk.find(job)
        workflow, _ = await self._desk.workflow(stored.record)
        return JSONResponse({"format": "api", "workflow": workflow})

    async def cancel(self, request: Request, job: str) -> Response:
        """End a job; one that has ended stays as it is."""
        return await self._answer(await self._desk.cancel(job), request)

    async def retry(self, request: Request, job: str) -> Response:
        """Let a job wait again that failed or is dead."""
        return await self._answer(await self._desk.retry(job), request)

    async def preview(self, job: str) -> Response:
        """The last picture that a running job showed of what it makes; 404: none yet."""
        progress = self._desk.view.progress(job)
        if progress is None or progress.preview is None:
            raise not_found(f"preview of job {job[:80]}")
        shown = progress.preview
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return Response(shown.image, media_type=shown.content_type, headers=headers)

    async def events(self, request: Request, job: str) -> Response:
        """Server-sent events of a job: `status`, `progress`, `preview`, `output`."""
        stored = await self._desk.find(job)
        if self._streams >= STREAMS:
            raise Refused(
                429, "too_many_streams", f"{STREAMS} clients follow jobs; ask for the job instead",
                headers={"Retry-After": "5"},
            )  # fmt: skip
        events = JobEvents(self._desk.view, self._answers, stored, base(request))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._counted(events), media_type="text/event-stream", headers=headers
        )

    async def _counted(self, events: JobEvents) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            async for event in events.stream():
                yield event
        finally:
            self._streams -= 1

    async def _answer(self, record: Record, request: Request, code: int = 200) -> Response:
        return JSONResponse(await self._answers.job(record, base(request)), code)


def _keys(extra: object) -> Keys:
    if extra is None:
        return {}
    if not isinstance(extra, dict) or set(extra) - EXTRA or None in extra.values():
        raise Refused(400, "invalid_request", f"'extra_data' has {', '.join(EXTRA)} only")
    return checked_keys(extra)


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise Refused(
            400, "invalid_request", f"Idempotency-Key has not 1 to {LONGEST_KEY} characters"
        )
    return key or ""


def _states(request: Request) -> set[str]:
    wanted = request.query_params.get("status", "")
    states = {each.strip() for each in wanted.split(",") if each.strip()}
    if unknown := states - STATES:
        raise Refused(
            400, "invalid_request", f"there is no status {', '.join(sorted(unknown))[:80]}"
        )
    return states


def _cursor(record: Record) -> str:
    return f"{record.submitted:.9f}_{record.id}"


def _before(request: Request) -> tuple[float, str] | None:
    cursor: Any = request.query_params.get("cursor")
    if cursor is None:
        return None
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise Refused(400, "invalid_cursor", "this cursor was not given by this gateway")
    return float(found[1]), found[2]
